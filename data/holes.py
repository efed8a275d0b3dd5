"""Where new bars are missing for so long that they say nothing of the bars that a catalog holds there.

New bars replace what was held from the first of them to the last. But a file of several may be missing, and what it
held must not go with its neighbours' old bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.barfiles import BarFile
from data.bars import Bars, IntArray
from data.errors import CatalogDamaged
from data.gaps import Gap
from data.spool import BarParts

LEAST_NS = 86_400 * 10**9
"""No file of bars is of less than a day; what is missing for no longer than that was left out of one."""


@dataclass(frozen=True)
class Holes:
    """Holes in time order; each lies between the closes of two new bars, neither of which it contains."""

    after_ns: IntArray
    before_ns: IntArray

    @classmethod
    def of(cls, gaps: Iterable[Gap] = ()) -> Holes:
        """Those among gaps, of which the calendar has told already that bars are to be expected there."""
        long = [(gap.after_ns, gap.before_ns) for gap in gaps if gap.before_ns - gap.after_ns > LEAST_NS]
        ends = np.array(long, dtype=np.int64).reshape(-1, 2)
        return cls(ends[:, 0], ends[:, 1])

    def meet(self, first_ns: int, last_ns: int) -> bool:
        """Whether any of them reaches into a time."""
        return bool(((self.after_ns < last_ns) & (self.before_ns > first_ns)).any())

    def enclose(self, first_ns: int, last_ns: int) -> bool:
        """Whether one of them contains all of a time."""
        return bool(((self.after_ns < first_ns) & (self.before_ns > last_ns)).any())

    def contain(self, ts_ns: IntArray) -> NDArray[np.bool_]:
        """Which times lie in one of them."""
        if not len(self.after_ns):
            return np.zeros(len(ts_ns), dtype=bool)
        place = np.searchsorted(self.after_ns, ts_ns) - 1
        return np.asarray((place >= 0) & (ts_ns < self.before_ns[place]))


NONE = Holes.of()


def held_in(
    holes: Holes, new: BarParts, files: Iterable[BarFile], read: Callable[[BarFile], Iterator[Bars]]
) -> BarParts | None:
    """Bars that files hold in the holes of new ones, in the order of time; None are None.

    Raises
    ------
    CatalogDamaged
        If a file cannot be read that lies in a hole. Of others the new bars take the place.
    """
    found: list[BarFile] = []
    for file in files:
        if file.last_ns < new.first_ns or file.first_ns > new.last_ns or not holes.meet(file.first_ns, file.last_ns):
            continue
        try:
            if sum(np.count_nonzero(holes.contain(part.ts_close_ns)) for part in read(file)):
                found.append(file)
        except CatalogDamaged:
            if holes.enclose(file.first_ns, file.last_ns):
                raise

    def every() -> Iterator[Bars]:
        last_ns = new.first_ns
        for part in (part for file in found for part in read(file)):
            # So come those of files that overlap in order, too.
            bars = part[holes.contain(part.ts_close_ns) & (part.ts_close_ns > last_ns)]
            if len(bars):
                last_ns = int(bars.ts_close_ns[-1])
                yield bars

    known = [(len(bars), int(bars.ts_close_ns[0]), int(bars.ts_close_ns[-1])) for bars in every()]
    return BarParts(sum(count for count, _, _ in known), known[0][1], known[-1][2], every) if known else None


def filled(new: Iterable[Bars], old: Iterator[Bars]) -> Iterator[Bars]:
    """New bars with the old ones of their holes between them, in the order of time.

    No more is in memory than a part of each.
    """
    held = next(old, None)
    for part in new:
        while held is not None and held.ts_close_ns[0] < part.ts_close_ns[-1]:
            upto = int(np.searchsorted(part.ts_close_ns, held.ts_close_ns[0]))
            if upto:
                yield part[slice(0, upto)]
            part = part[slice(upto, None)]
            count = int(np.searchsorted(held.ts_close_ns, part.ts_close_ns[0]))
            yield held[slice(0, count)]
            held = held[slice(count, None)] if count < len(held) else next(old, None)
        yield part
