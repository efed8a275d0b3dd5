"""Temporary directories that do not outlive their makers for long, however those end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

_NAMED = re.compile(r"sage-scratch-(\d+)-")


@contextlib.contextmanager
def scratch_directory() -> Iterator[str]:
    """A directory that is removed afterwards; what processes left that were killed is removed before."""
    for left in Path(tempfile.gettempdir()).glob("sage-scratch-*"):
        maker = _NAMED.match(left.name)
        if maker is not None and not psutil.pid_exists(int(maker[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"sage-scratch-{os.getpid()}-") as directory:
        yield directory
