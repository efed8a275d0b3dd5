"""What a soak writes down as it goes: one JSON object a line, so that whatever ends it leaves all up to there.

All lines are held in memory too, packed: a directory that cannot be written any more costs the run nothing but the
file, and the journal hardly shows in the memory of who keeps it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import DataError

JOURNAL = "journal.jsonl"
VERSION = 1
_BLOCK_BYTES = 2**16


class Journal:
    """Appends to ``DIRECTORY/journal.jsonl``.

    ``lost`` is the error for which the file lacks lines, nothing where it has all of them, and ``unwritten`` how many
    it lacks; writing is tried again with each checkpoint.

    Parameters
    ----------
    directory
        Is made if it is not there.
    earlier
        Lines that are there already, of a soak that goes on.

    Raises
    ------
    OSError
        If nothing can be written there to begin with.
    """

    def __init__(self, directory: Path, earlier: bytes = b"") -> None:
        self.path = directory / JOURNAL
        self.lost = ""
        self._packed: list[bytes] = []
        self._loose = bytearray(earlier)
        self._packed_bytes = 0
        self._written = len(earlier)
        directory.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab"):  # found out now, not after the first hour
            pass

    def note(self, kind: str, at_s: float, **values: Any) -> None:
        """Append a line."""
        line = json.dumps({"kind": kind, "at_s": round(at_s, 3), **values}, separators=(",", ":"))
        self._loose += line.encode() + b"\n"
        if not self.lost:
            self._write()
        if len(self._loose) > _BLOCK_BYTES:
            self._packed.append(zlib.compress(self._loose))
            self._packed_bytes += len(self._loose)
            self._loose.clear()

    def checkpoint(self) -> bool:
        """See to it that everything is on the disk; false where it is not."""
        self._write(sync=True)
        return not self.lost

    @property
    def unwritten(self) -> int:
        """Lines that are in memory alone."""
        return self._unwritten.count(b"\n")

    @property
    def raw(self) -> bytes:
        """All lines so far."""
        return b"".join([*map(zlib.decompress, self._packed), self._loose])

    @property
    def _unwritten(self) -> bytes:
        if self._written >= self._packed_bytes:
            return bytes(self._loose[self._written - self._packed_bytes :])
        return self.raw[self._written :]

    def _write(self, *, sync: bool = False) -> None:
        try:
            if not self.path.exists() or (self.path.is_file() and self.path.stat().st_size < self._written):
                self._written = 0  # somebody has removed it, or cut it off: all of it again
            with self.path.open("r+b" if self._written else "wb") as file:
                # What a failed write left of a line is written over.
                file.seek(self._written)
                file.truncate()
                file.write(self._unwritten)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            self.lost = f"{self.path}: {error.strerror or error}"
            return
        self._written = self._packed_bytes + len(self._loose)
        self.lost = ""


def read_journal(directory: Path) -> bytes:
    """The lines of an earlier soak; a last one that was cut off is left out.

    Raises
    ------
    DataError
        If there is none, or it is damaged or of another version.
    """
    path = directory / JOURNAL
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the directory of an earlier sage stress") from error
    raw = raw[: raw.rfind(b"\n") + 1]
    try:
        first = next(parsed(raw), None)
        for _ in parsed(raw):
            pass
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); begin anew with another --out") from error
    if first is None or first.get("kind") != "soak" or first.get("version") != VERSION:
        raise DataError(f"{path}: no journal of this version of sage stress; begin anew with another --out")
    return raw


def parsed(raw: bytes) -> Iterator[dict[str, Any]]:
    """The objects in the lines. Raises ValueError for a line that holds none."""
    for number, line in enumerate(raw.splitlines(), start=1):
        found = json.loads(line)
        if not isinstance(found, dict) or "kind" not in found:
            raise ValueError(f"line {number} is none of a journal")
        yield found
