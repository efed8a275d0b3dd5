"""Where things lie: what is kept for a user, what of the way to a place is there, and what a file holds."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import CatalogError

_XDG = {"XDG_CACHE_HOME": (".cache",), "XDG_DATA_HOME": (".local", "share")}


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def rights_to(path: Path) -> Iterator[None]:
    """Raise CatalogError where something may not be read or written in a place; other errors go their way."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise CatalogError(f"{error.filename or path}: {error.strerror}; check its rights") from error


def kept(variable: str, xdg: str, name: str) -> Path:
    """The place that a variable names, else ``sage/NAME`` below that of the XDG base directory specification.

    Parameters
    ----------
    variable
        Names the place.
    xdg
        ``XDG_CACHE_HOME`` or ``XDG_DATA_HOME``.
    name
        Below ``sage``.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    root = Path(os.environ.get(xdg, ""))
    # The specification: a relative path there is invalid and to be ignored.
    return (root if root.is_absolute() else Path.home().joinpath(*_XDG[xdg])) / "sage" / name


def nearest(path: Path) -> Path:
    """The place itself, or the nearest of its parents that is there."""
    # By os.path: what may not be looked at is not there for it, and Path raises.
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.exists(place))  # noqa: PTH110


def sha256_of(path: Path) -> str:
    """Hex digest of a file, which may be longer than memory. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
