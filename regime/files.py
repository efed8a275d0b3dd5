"""Files that appear whole or not at all, and directories in which one process is at work."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
LOCK = ".lock"


@contextmanager
def alone_in(directory: Path, taken: Exception) -> Iterator[None]:
    """Keep other processes out of a directory; raises ``taken`` where one is at work there.

    The lock goes with the process, however it ends; its file stays, for who waits on it may have it open.
    """
    with (directory / LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        yield


def write_durably(path: Path, content: bytes | str | memoryview, written_ns: int | None = None) -> None:
    """Make a file appear whole or not at all, and stay. Raises OSError, and then leaves nothing."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        if written_ns is not None:
            os.utime(temporary, ns=(written_ns, written_ns))
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is found by a write, which knows no name; and the temporary one would tell nobody anything.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name is on disk only with this
    finally:
        os.close(directory)
