"""Signals of an earlier run, given again bar by bar in the place of a detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from regime.detector import Timing
from regime.signal import BarRejected, Reason, Signal
from regime.window import BarInput


class RecordedDetector:
    """Answers each bar as a run before did; no model, no calibration, no classifier.

    Parameters
    ----------
    answers
        What that run's detector answered, in order of bars.
    """

    def __init__(self, answers: Sequence[Signal | BarRejected]) -> None:
        self.last_timing = Timing("recording", 0.0, 0.0)
        self.failures: Counter[Reason] = Counter()
        self._answers = answers
        self._next = 0

    def step(self, bar: BarInput) -> Signal | BarRejected:
        """The recorded answer to this bar. Raises ValueError if the recording is of other bars."""
        if self._next == len(self._answers):
            raise ValueError(f"the recording ends after {self._next} bars, before bar {bar.ts_ns}")
        answer = self._answers[self._next]
        if answer.ts_event != bar.ts_ns:
            raise ValueError(f"bar {self._next + 1} is stamped {bar.ts_ns}, but {answer.ts_event} in the recording")
        self._next += 1
        return answer
