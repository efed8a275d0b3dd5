"""What somebody sees who may not look everywhere; the tests may run as one who may."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may use, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="sage-rights-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextmanager
def closed(*places: Path) -> Iterator[None]:
    """Nobody has any right to these places, and whoever runs the tests is nobody."""
    with ExitStack() as after:
        for place in places:
            after.callback(place.chmod, place.stat().st_mode & 0o777)
        for place in places:
            place.chmod(0)
        if os.geteuid() == 0:
            # Back by the saved identity.
            os.setresuid(_NOBODY, _NOBODY, 0)
            after.callback(os.setresuid, 0, 0, 0)
        yield
