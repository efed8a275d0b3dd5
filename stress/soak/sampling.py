"""Samples of memory at equal counts of bars, as both sides of a soak take them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sage.processes import Machine
from sage.vitals import Vitals
from stress.soak.config import PHASES
from stress.soak.messages import Sampled
from stress.soak.yardstick import Yardstick

Tell = Callable[[Sampled | Vitals], None]


class Sampling:
    """One side's samples, before the same bars of each segment.

    Parameters
    ----------
    role
        What this process does in the soak.
    generation
        How many processes of its role there were before.
    segment_bars
        Bars of a segment.
    tell
        Hears of each sample.
    yardstick
        Tells how fast the machine is at each of them.
    """

    def __init__(
        self, role: str, generation: int, segment_bars: int, tell: Tell, yardstick: Yardstick | None = None
    ) -> None:
        self._generation = generation
        self._yardstick = yardstick
        self._tell = tell
        self._phases = sample_phases(segment_bars)
        # Of a GPU the one who watches knows: asking takes longer than a bar may.
        self._machine = Machine(lambda: {os.getpid(): role}, stopwatch=time.monotonic, gpu=False)
        self._bars = 0
        self._wanted = True

    def begin(self, *, wanted: bool) -> None:
        """A segment begins, and is to be sampled or not."""
        self._wanted = wanted

    def before_bar(self, segment: int, number: int) -> None:
        """Sample where it is time to; bars are counted from 1 in their segment."""
        if self._wanted and number in self._phases:
            seen = self._bars + number
            speed = None if self._yardstick is None else self._yardstick.measure_ms()
            sample = self._machine.sample()
            self._tell(Sampled(self._generation, segment, number, seen, time.monotonic(), sample, speed))

    def end(self, bars: int) -> None:
        """So many bars were played in the segment."""
        self._bars += bars


def sample_phases(segment_bars: int) -> frozenset[int]:
    """The bars of a segment, counted from 1, before which memory is sampled."""
    return frozenset(segment_bars * (place + 1) // PHASES for place in range(PHASES))
