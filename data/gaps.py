"""Where bars are missing."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.bars import Bars, BarSize, IntArray, iso
from data.calendars import ALWAYS_OPEN, Calendar

GAPS_TOLD = 10_000
"""Of more gaps the longest are told one by one: a thin market has as many as bars."""


@dataclass(frozen=True)
class Gap:
    """Missing bars between two accepted ones; both times are closes, nanoseconds, UTC."""

    after_ns: int
    before_ns: int
    missing_bars: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"after": iso(self.after_ns), "before": iso(self.before_ns), "missing_bars": self.missing_bars}


@dataclass(frozen=True)
class Gaps:
    """All gaps of some bars: how many, how many bars are missing in them, and the longest of them in time order."""

    count: int
    missing_bars: int
    told: list[Gap]

    @classmethod
    def of(cls, found: Iterable[Gap], most: int = GAPS_TOLD) -> Gaps:
        """Count gaps, and keep no more of them than ``most``."""
        count = missing = 0
        longest: list[tuple[int, int, Gap]] = []
        for gap in found:
            count += 1
            missing += gap.missing_bars
            # Of two as long the earlier stays.
            entry = (gap.missing_bars, -gap.after_ns, gap)
            if len(longest) < most:
                heapq.heappush(longest, entry)
            else:
                heapq.heappushpop(longest, entry)
        return cls(count, missing, sorted((gap for _, _, gap in longest), key=lambda gap: gap.after_ns))


def find_gaps(ts_close_ns: IntArray, size: BarSize, calendar: Calendar = ALWAYS_OPEN) -> list[Gap]:
    """Every place where bars are missing between neighbours that the calendar lets expect."""
    if calendar.opens_ns is None:
        # Rounded, for a day has 23 or 25 hours where the clocks change.
        bars_apart = (np.diff(ts_close_ns) + size.nanos // 2) // size.nanos
    else:
        bars_apart = np.diff(calendar.expected(ts_close_ns, size.nanos))
    return [
        Gap(int(ts_close_ns[index]), int(ts_close_ns[index + 1]), int(bars_apart[index]) - 1)
        for index in np.flatnonzero(bars_apart > 1)
    ]


def gaps_of(parts: Iterable[Bars], size: BarSize, calendar: Calendar = ALWAYS_OPEN) -> Gaps:
    """Those of bars that come some at a time."""

    def every() -> Iterable[Gap]:
        before = np.empty(0, dtype=np.int64)
        for part in parts:
            stamps = np.concatenate([before, part.ts_close_ns])
            yield from find_gaps(stamps, size, calendar)
            before = stamps[-1:]

    return Gaps.of(every())
