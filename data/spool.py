"""Bars too many to hold at once: kept in a file of their own until all of them are known."""

from __future__ import annotations

import fcntl
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from data.bars import Bars, BarsDigest

SPOOL_PREFIX = ".sage-spool-"
"""Of the file's name. A process at work holds a lock on its own, which goes with it, however it ends."""

NEVER = 2**63 - 1
"""Later than any bar, nanoseconds."""

_COLUMNS = ("ts_close_ns", "open", "high", "low", "close", "volume")
_SCHEMA = pa.schema([(name, pa.int64() if name == "ts_close_ns" else pa.float64()) for name in _COLUMNS])


class BarParts:
    """Bars in the order of time, some at a time, and as often as they are asked for.

    Parameters
    ----------
    count
        How many; one at least.
    first_ns, last_ns
        The closes of the first and of the last.
    make
        Gives all parts, each time anew.
    """

    def __init__(self, count: int, first_ns: int, last_ns: int, make: Callable[[], Iterator[Bars]]) -> None:
        self.first_ns, self.last_ns = first_ns, last_ns
        self._count, self._make = count, make
        self._sha256 = ""

    @classmethod
    def of(cls, bars: Bars) -> BarParts:
        """Those of arrays."""
        return cls(len(bars), int(bars.ts_close_ns[0]), int(bars.ts_close_ns[-1]), lambda: iter((bars,)))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Bars]:
        if self._sha256:
            yield from self._make()
            return
        # On the way, the first time: reading all of them once more would take as long.
        digest = BarsDigest()
        for bars in self._make():
            digest.update(bars)
            yield bars
        self._sha256 = digest.hexdigest()

    def sha256(self) -> str:
        """Digest of the contents, that of :meth:`data.bars.Bars.sha256`."""
        if not self._sha256:
            for _ in self:
                pass
        return self._sha256


@dataclass(frozen=True)
class _Part:
    """What is known of a part without reading it; ``middle`` is the median of its closes, ``rises`` their order."""

    middle: float
    count: int
    first_ns: int
    last_ns: int
    rises: bool
    path: Path


def sweep_spools(directory: Path) -> None:
    """Remove the spools that no process is at work on any more."""
    for path in directory.glob(f"{SPOOL_PREFIX}*"):
        with path.open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)


class Spool:
    """Parts of bars on the disk, each as it came.

    Use as a context manager; leaving it removes the file. What a process that was killed has left is removed by the
    next that writes to the catalog there.

    Parameters
    ----------
    directory
        Where the file goes; made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{SPOOL_PREFIX}{uuid.uuid4().hex}"
        self._held: IO[bytes] | None = None
        self._parts: list[_Part] = []
        self._writer: pa.RecordBatchFileWriter | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            # On a full disk its end cannot be written, and still it has to go.
            if self._held is not None:
                self._path.unlink(missing_ok=True)
                self._held.close()

    def __len__(self) -> int:
        return sum(part.count for part in self._parts)

    def append(self, bars: Bars, path: Path) -> None:
        """Keep a part, which came from a file; nothing of it stays in memory. Raises OSError where the disk is full."""
        if not len(bars):
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._held = self._path.open("ab")
            fcntl.flock(self._held, fcntl.LOCK_EX)
            self._writer = pa.ipc.new_file(str(self._path), _SCHEMA)
        columns = [pa.array(column) for column in bars.columns()]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
        stamps = bars.ts_close_ns
        rises = bool((np.diff(stamps) > 0).all())
        self._parts.append(
            _Part(float(np.median(stamps)), len(bars), int(stamps.min()), int(stamps.max()), rises, path)
        )

    def in_order(self) -> BarParts | None:
        """All parts in the order of time; None where some overlap, or are out of order in themselves."""
        self._close()
        order = self._order()
        parts = [self._parts[index] for index in order]
        overlap = any(later.first_ns <= earlier.last_ns for earlier, later in itertools.pairwise(parts))
        if overlap or not all(part.rises for part in parts):
            return None
        return BarParts(len(self), parts[0].first_ns, parts[-1].last_ns, lambda: self._read(order))

    def by_middle(self) -> Iterator[tuple[Bars, Path, int]]:
        """All parts with their files by the middle of their times; and when the earliest bar of those to come closes.

        After the last one that is NEVER.
        """
        self._close()
        order = self._order()
        firsts = [*(self._parts[index].first_ns for index in order[1:]), NEVER]
        to_come = list(itertools.accumulate(reversed(firsts), min))[::-1]
        for index, bars, next_ns in zip(order, self._read(order), to_come, strict=True):
            yield bars, self._parts[index].path, next_ns

    def _order(self) -> list[int]:
        return sorted(range(len(self._parts)), key=lambda index: self._parts[index].middle)

    def _read(self, order: list[int]) -> Iterator[Bars]:
        with pa.OSFile(str(self._path)) as source, pa.ipc.open_file(source) as file:
            for index in order:
                batch = file.get_batch(index)
                yield Bars(*(batch.column(name).to_numpy() for name in _COLUMNS))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
