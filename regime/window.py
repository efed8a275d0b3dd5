"""The bars a signal may look at: validated, gap-free, preallocated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.season import Season, slot_of
from regime.signal import Reason

FloatArray = NDArray[np.float64]

OUT_OF_ORDER = "out of order"

_HOUR_NS = 3600 * 1_000_000_000


@dataclass(frozen=True)
class BarInput:
    """One bar as plain numbers. ``ts_ns`` is its close, nanoseconds since the epoch."""

    ts_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


NEVER = np.iinfo(np.int64).min
"""The number of no bar: those before the first would be -1 and less."""


class RingBuffer:
    """The last ``capacity`` values, always contiguous in memory.

    Every value is written twice, ``capacity`` apart, so that the newest ones are one slice and appending moves
    nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._values = np.zeros(2 * capacity)
        self._capacity = capacity
        self._next = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, value: float) -> None:
        """Add a value; the oldest one goes when the buffer is full."""
        self._values[self._next] = value
        self._values[self._next + self._capacity] = value
        self._next = (self._next + 1) % self._capacity
        self._length = min(self._length + 1, self._capacity)

    @property
    def full(self) -> bool:
        """True where the next value drives the oldest one out."""
        return self._length == self._capacity

    @property
    def newest(self) -> float:
        """The value that came last."""
        return float(self._values[self._next + self._capacity - 1])

    @property
    def oldest(self) -> float:
        """The value that has been here longest."""
        return float(self._values[self._next + self._capacity - self._length])

    def view(self, last: int | None = None) -> FloatArray:
        """The newest ``last`` values (all when None), oldest first, without a copy."""
        length = self._length if last is None else min(last, self._length)
        end = self._next + self._capacity
        return self._values[end - length : end]

    def clear(self) -> None:
        """Forget everything."""
        self._next = self._length = 0


def rejection_of(bar: BarInput, last_ts_ns: int | None) -> str | None:
    """Why a bar cannot be used, or None. Zero volume is fine."""
    opened, high, low, close = bar.open, bar.high, bar.low, bar.close
    finite = math.isfinite
    if not (finite(opened) and finite(high) and finite(low) and finite(close) and finite(bar.volume)):
        return "a value is NaN or infinite"
    if opened <= 0 or high <= 0 or low <= 0 or close <= 0:
        return "a price is zero or negative"
    if bar.volume < 0:
        return "volume is negative"
    if not (low <= opened <= high and low <= close <= high):
        return "open, high, low and close are inconsistent"
    if last_ts_ns is not None and bar.ts_ns == last_ts_ns:
        return "duplicate of the bar before"
    if last_ts_ns is not None and bar.ts_ns < last_ts_ns:
        return OUT_OF_ORDER
    return None


class BarWindow:
    """The run of usable bars up to now, and the contexts a model is shown.

    The run starts anew after a gap, after several rejected bars in a row, and after a jump of the clock;
    ``restart`` then holds the reason until the model may be asked again. When more than ``max_rejects`` bars in a row
    are good but for being too old, and come in order among themselves, it is the clock that has gone back, or an
    earlier stamp that was wrong: their time is then believed.
    """

    def __init__(self, config: RegimeConfig, bar_seconds: int) -> None:
        self._config = config
        self._bar_ns = bar_seconds * 1_000_000_000
        self._max_step_ns = (config.max_gap_bars + 1) * self._bar_ns + config.closure_seconds * 1_000_000_000
        self.returns = RingBuffer(config.context_bars)
        self.season = Season(bar_seconds)
        self.season_factor = 1.0
        self._bar_seconds = bar_seconds
        self.shown = RingBuffer(config.context_bars)
        self.highs = RingBuffer(config.smart_min_bars)
        self.lows = RingBuffer(config.smart_min_bars)
        self.closes = RingBuffer(config.smart_min_bars)
        self.last_ts_ns: int | None = None
        self.last_close = math.nan
        self.usable_bars = 0
        self.restart: Reason | None = None
        self._rejects_in_a_row = 0
        self._late_in_a_row = 0
        self._late_ts_ns = 0
        self._moves = 0

    def accept(self, bar: BarInput) -> str | None:
        """Take a bar in, or say why not. Afterwards ``restarted_now`` tells whether the run began with it."""
        why = rejection_of(bar, self.last_ts_ns)
        if self._clock_went_back(bar, why):
            self._forget(Reason.CLOCK_JUMP)
            why = self.last_ts_ns = None
        if why is not None:
            self._rejects_in_a_row += 1
            if self._rejects_in_a_row >= self._config.max_rejects and self.usable_bars:
                self._forget(Reason.REJECTED_BARS)
            return why
        self._rejects_in_a_row = 0
        if self.last_ts_ns is not None and self.usable_bars and bar.ts_ns - self.last_ts_ns > self._max_step_ns:
            far = bar.ts_ns - self.last_ts_ns > 366 * 86_400 * 1_000_000_000
            self._forget(Reason.CLOCK_JUMP if far else Reason.GAP)
        if self.usable_bars:
            self._append_return(math.log(bar.close / self.last_close), bar.ts_ns)
        self.highs.append(bar.high)
        self.lows.append(bar.low)
        self.closes.append(bar.close)
        self.usable_bars += 1
        self.last_ts_ns = bar.ts_ns
        self.last_close = bar.close
        return None

    @property
    def restarted_now(self) -> bool:
        """True on the first bar of a run."""
        return self.usable_bars == 1

    @property
    def model_ready(self) -> bool:
        """True where the model may be asked: enough bars, and some movement in them."""
        return self.usable_bars >= self._config.model_min_bars and self.has_variance

    @property
    def has_variance(self) -> bool:
        """False where no price of the window moved at all."""
        return self._moves > 0

    def shortage(self) -> Reason:
        """Why bars are short: because the run has just begun, or because of what cut the last one off."""
        return self.restart or Reason.WARM_UP

    def context(self) -> NDArray[np.float32]:
        """Log returns for the model, shape (context_bars,), oldest first, NaN where there were no bars yet.

        Each is divided by the season's factor as it was known then (``config.seasonal``); what the model answers is
        to be multiplied by :meth:`outlook`.
        """
        known = self.shown.view()
        context = np.full(self._config.context_bars, np.nan, dtype=np.float32)
        context[len(context) - len(known) :] = known
        return context

    def outlook(self) -> FloatArray:
        """The season's factors of the bars to forecast, shape (horizon_bars,)."""
        horizon_bars = self._config.horizon_bars
        return self.season.outlook(horizon_bars) if self._config.seasonal else np.ones(horizon_bars)

    def hours_ahead(self) -> NDArray[np.int64]:
        """The hours of the day, UTC, in which the next bars close if none is left out, shape (horizon_bars,).

        All 0 where a day has one bar or two.
        """
        ahead = np.arange(1, self._config.horizon_bars + 1)
        if not self.season.intraday or self.last_ts_ns is None:
            return np.zeros(len(ahead), dtype=np.int64)
        # A bar that closes at the full hour belongs to the hour that ends there.
        return (self.last_ts_ns - 1 + ahead * self._bar_ns) // _HOUR_NS % 24

    def _clock_went_back(self, bar: BarInput, why: str | None) -> bool:
        """Whether this is one bar too many that would be fine by an earlier clock."""
        if why != OUT_OF_ORDER:
            self._late_in_a_row = 0
            return False
        in_order = self._late_in_a_row == 0 or bar.ts_ns > self._late_ts_ns
        self._late_in_a_row = self._late_in_a_row + 1 if in_order else 1
        self._late_ts_ns = bar.ts_ns
        return self._late_in_a_row > self._config.max_rejects

    def _append_return(self, value: float, ts_ns: int) -> None:
        # Counted rather than looked up: the question is asked several times a bar, over hundreds of returns.
        if self.returns.full and self.returns.oldest != 0.0:
            self._moves -= 1
        self._moves += value != 0.0
        self.returns.append(value)
        factor = self.season.observe(slot_of(ts_ns, self.last_ts_ns, self._bar_seconds), value)
        self.season_factor = factor if self._config.seasonal else 1.0
        self.shown.append(value / self.season_factor)

    def _forget(self, reason: Reason) -> None:
        self._moves = 0
        for buffer in (self.returns, self.shown, self.highs, self.lows, self.closes):
            buffer.clear()
        self.usable_bars = 0
        self.restart = reason
