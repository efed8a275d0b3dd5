"""The grid that the bars of a file lie on: sessions may open at half past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.bars import BarSize
from data.calendars import Calendar
from data.reading import RawBars
from data.times import NOT_A_TIME


class Grid:
    """That of one file, which may come in parts: its beginning tells for all of it.

    It is one of the file's own wall clock, or one counted from where the market's sessions begin, which in winter is
    another hour than in summer. Until the clocks change the two may be the same, so which of them it is stays open:
    the one that more rows lie on up to now.
    """

    def __init__(self) -> None:
        self._phase: int | None = None
        self._of_wall = self._of_spans = 0

    def off(self, raw: RawBars, size: BarSize, calendar: Calendar) -> NDArray[np.bool_]:
        """Which rows of the next part are off the grid; those without a time are not."""
        timed: NDArray[np.bool_] = raw.stamp_ns != NOT_A_TIME
        phase = raw.wall_ns % size.nanos
        if self._phase is None:
            if not timed.any():
                return timed
            phases, counts = np.unique(phase[timed], return_counts=True)
            self._phase = int(phases[np.argmax(counts)])
        on_wall = phase == self._phase
        on_spans = calendar.on_grid_of_spans(raw.stamp_ns, size.nanos)
        self._of_wall += int(np.count_nonzero(on_wall & timed))
        self._of_spans += int(np.count_nonzero(on_spans & timed))
        on_grid = on_spans if self._of_spans > self._of_wall else on_wall
        return np.asarray(~on_grid & timed & ~calendar.is_boundary(raw.stamp_ns))
