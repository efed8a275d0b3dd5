"""When bars close of which files tell the open, or the last moment."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.bars import NANOS_PER_SECOND, BarSize, IntArray
from data.reading import RawBars
from data.times import NOT_A_TIME, utc_of

_NEVER = np.iinfo(np.int64).max
_LATEST = _NEVER - 2 * 86_400 * 10**9

_MOMENTS = {10**6: "1 ms", 10**3: "1 µs", NANOS_PER_SECOND: "1 s"}
_MINUTE_NS = 60 * NANOS_PER_SECOND


def closes_of(raw: RawBars, size: BarSize) -> IntArray:
    """The closes of rows, nanoseconds, UTC; of rows without a time they say nothing.

    A bar that lasts from one time of a wall clock to another is an hour longer, or shorter, where the clock is changed
    within it: the day on which New York's goes back has 25 hours. So it is where the clock that the rows are stamped by
    leads there, and the next row is not in the way; and for a bar to be shorter the next one must begin as early, for
    bars that are counted in UTC have their full length, and none may be known before its end.
    """
    if raw.stamp == "close":
        return raw.stamp_ns
    closes = raw.stamp_ns + size.nanos
    # Rows without a time and of before 1970 are no bars, and nanoseconds end within a day of the latest ones.
    known = np.flatnonzero((raw.stamp_ns >= 0) & (raw.wall_ns < _LATEST))
    if len(known) == 0 or (raw.zone is None and np.array_equal(raw.stamp_ns, raw.wall_ns)):
        return closes
    opens, full = raw.stamp_ns[known], closes[known]
    rising, first = np.unique(opens, return_index=True)
    following = np.searchsorted(rising, opens, side="right")
    next_open = np.append(rising, _NEVER)[following]
    ends = raw.wall_ns[known] + size.nanos
    if raw.zone is not None:
        by_clock = utc_of(ends, raw.zone)
    else:
        # Stamps with their offset do not tell the zone: where the clock leads, the next row must tell.
        next_wall = np.append(raw.wall_ns[known][first], _NEVER)[following]
        by_clock = np.where(next_wall == ends, next_open, full)
    by_clock = np.where(by_clock == NOT_A_TIME, full, by_clock)
    # A whole number of bars further is a bar that is missing, and no longer one.
    changed = ((by_clock - opens) % size.nanos != 0) & (by_clock <= next_open)
    changed &= (by_clock > full) | (next_open < full)
    closes[known] = np.where(changed, by_clock, full)
    return closes


def last_moment(raw: RawBars, size: BarSize) -> int:
    """By how many nanoseconds most times of a file fall short of the boundary, as in 00:00:59.999; 0 where by none."""
    known = raw.wall_ns[raw.stamp_ns != NOT_A_TIME]
    if len(known) == 0:
        return 0
    unit = _unit(size)
    phases, counts = np.unique(known % unit, return_counts=True)
    missing = unit - int(phases[np.argmax(counts)])
    return missing if missing in _MOMENTS and 2 * missing < unit else 0


def up_to_boundary(raw: RawBars, size: BarSize, short_ns: int, notes: list[str]) -> RawBars:
    """Rows with the closes that fall so much short of a boundary moved up to it, for there is when the bar is known.

    What was taken for an open stays, known late rather than early, and is told.
    """
    if not short_ns:
        return raw
    if raw.stamp == "open":
        notes.append(
            f"{raw.path.name}: times end {_MOMENTS[short_ns]} before the full time, as closes do, and were taken as "
            "opens; if they are closes, give --stamp close"
        )
        return raw
    notes.append(f"{raw.path.name}: closes are stamped {_MOMENTS[short_ns]} early; moved up to the full time")
    early = (raw.stamp_ns != NOT_A_TIME) & ((raw.wall_ns + short_ns) % _unit(size) == 0)
    moved = np.where(early, short_ns, 0)
    return dataclasses.replace(raw, stamp_ns=raw.stamp_ns + moved, wall_ns=raw.wall_ns + moved)


def _unit(size: BarSize) -> int:
    """What times of sessions are multiples of, whose bars may begin at half past."""
    return min(size.nanos, _MINUTE_NS)
