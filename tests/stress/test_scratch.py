"""Scratch directories: gone afterwards, and those of the dead too."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stress.scratch import scratch_directory


def test_a_scratch_directory_is_gone_afterwards_and_so_is_one_of_a_process_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, sys, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from stress.scratch import scratch_directory\n"
        "with scratch_directory() as directory:\n"
        "    open(os.path.join(directory, 'left'), 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with scratch_directory() as first:
        assert not left.exists()
        with scratch_directory():
            # Another of this process, which lives, stays.
            assert Path(first).exists()
    assert list(tmp_path.iterdir()) == []
