"""The circuit breaker: stops asking a model that fails or is slow, and asks again, a little at a time, later on.

Closed, open, half-open, after Nygard, "Release It!" (2007). The rates are over the last calls, not over time, and
waiting is counted in bars: a backtest knows no other time, and a live run on minute bars no finer one.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from regime.config import BreakerConfig


class BreakerState(StrEnum):
    """Closed lets calls through, open lets none through, half-open lets a few through to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Counts calls that fail or are slow. The bar numbers handed in are its clock, and must not decrease."""

    def __init__(self, config: BreakerConfig) -> None:
        self.state = BreakerState.CLOSED
        self.times_opened = 0
        self._config = config
        self._calls: deque[tuple[bool, bool]] = deque(maxlen=config.window_calls)
        self._opened_at_bar = 0
        self._good_probes = 0

    def allows(self, bar: int) -> bool:
        """Whether the model may be asked at this bar; what it answers must then be recorded."""
        if self.state is BreakerState.OPEN and bar - self._opened_at_bar >= self._config.open_bars:
            self.state = BreakerState.HALF_OPEN
            self._good_probes = 0
        return self.state is not BreakerState.OPEN

    def record(self, bar: int, *, failed: bool, slow: bool) -> None:
        """Take in how a call went.

        Parameters
        ----------
        bar
            The bar at which it was made.
        failed
            No usable answer came.
        slow
            It took longer than a call should, whether or not it was answered.
        """
        if self.state is BreakerState.HALF_OPEN:
            self._record_probe(bar, good=not (failed or slow))
            return
        self._calls.append((failed, slow))
        calls = len(self._calls)
        if calls < self._config.minimum_calls:
            return
        failures = sum(call_failed for call_failed, _ in self._calls)
        slow_calls = sum(call_slow for _, call_slow in self._calls)
        if failures >= self._config.failure_rate * calls or slow_calls >= self._config.slow_rate * calls:
            self._open(bar)

    def _record_probe(self, bar: int, *, good: bool) -> None:
        if not good:
            self._open(bar)
            return
        self._good_probes += 1
        if self._good_probes >= self._config.probes:
            self.state = BreakerState.CLOSED
            # What was counted before is what the breaker opened for.
            self._calls.clear()

    def _open(self, bar: int) -> None:
        self.state = BreakerState.OPEN
        self.times_opened += 1
        self._opened_at_bar = bar
