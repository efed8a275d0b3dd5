"""When bars close of which files tell the open."""

from __future__ import annotations

import numpy as np

from data.bars import BarSize, IntArray
from data.reading import RawBars
from data.times import NOT_A_TIME, utc_of

_NEVER = np.iinfo(np.int64).max
_LATEST = _NEVER - 2 * 86_400 * 10**9


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
