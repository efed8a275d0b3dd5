"""What a run's answers should rest on, worked out a second time from the bars alone.

Written from the architecture and not from the detector's code, and simpler where it can afford to be slow: whoever
judges the detector by itself would agree with any of its defects.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.season import Season, slot_of
from regime.signal import Reason
from regime.window import BarInput, FloatArray

_YEAR_NS = 366 * 86_400 * 1_000_000_000
_TIMES_KEPT = 4
"""Contexts of returns that are kept at most."""


class Shadow:
    """The window, its volatility and the model's context as they should be after each bar.

    The season of the day alone is the detector's own arithmetic, fed anew.
    """

    def __init__(self, config: RegimeConfig, bar_seconds: int) -> None:
        self.usable_bars = 0
        self.returns: list[float] = []
        self._shown: list[float] = []
        self._season = Season(bar_seconds)
        self.restart: Reason | None = None
        self.accepted = 0
        self._config = config
        self._step_ns = bar_seconds * 1_000_000_000
        self._last: BarInput | None = None
        self._rejects = 0
        self._late: list[int] = []
        self._squares = 0.0
        self._weight = 0.0

    def accepts(self, bar: BarInput) -> bool:
        """Take a bar in; false where it must be rejected."""
        prices = (bar.open, bar.high, bar.low, bar.close)
        good = all(map(math.isfinite, (*prices, bar.volume))) and min(prices) > 0 and bar.volume >= 0
        good = good and bar.low == min(prices) and bar.high == max(prices)
        last = self._last
        if not (good and last is not None and bar.ts_ns < last.ts_ns):
            self._late = []
        else:
            # So many old bars, in order among themselves: it is the clock that went back.
            self._late = [*self._late, bar.ts_ns] if self._late and bar.ts_ns > self._late[-1] else [bar.ts_ns]
            if len(self._late) > self._config.max_rejects:
                self._begin_anew(Reason.CLOCK_JUMP)
                self._last = last = None
        if not (good and (last is None or bar.ts_ns > last.ts_ns)):
            self._rejects += 1
            if self._rejects >= self._config.max_rejects and self.usable_bars:
                self._begin_anew(Reason.REJECTED_BARS)
            return False
        self._rejects = 0
        if last is not None and self.usable_bars:
            missing_ns = bar.ts_ns - last.ts_ns - self._step_ns
            allowed_ns = self._config.max_gap_bars * self._step_ns + self._config.closure_seconds * 1_000_000_000
            if missing_ns > allowed_ns:
                self._begin_anew(Reason.CLOCK_JUMP if bar.ts_ns - last.ts_ns > _YEAR_NS else Reason.GAP)
        if last is not None and self.usable_bars:
            change = math.log(bar.close / last.close)
            self._forget()
            decay = self._config.classifier.volatility_decay
            self.returns.append(change)
            factor = self._season.observe(slot_of(bar.ts_ns, last.ts_ns, self._step_ns // 1_000_000_000), change)
            self._shown.append(change / factor if self._config.seasonal else change)
            self._squares = decay * self._squares + (1.0 - decay) * change**2
            self._weight = decay * self._weight + (1.0 - decay)
        self.usable_bars += 1
        self.accepted += 1
        self._last = bar
        return True

    @property
    def volatility(self) -> float:
        """Standard deviation of returns per bar, exponentially weighted over the whole run; 0 before the first."""
        return math.sqrt(self._squares / self._weight) if self._weight else 0.0

    @property
    def moves(self) -> bool:
        """False where no price of the context differs from the one before."""
        return any(self.returns[-self._config.context_bars :])

    @property
    def shortage(self) -> Reason:
        """Why bars are short."""
        return self.restart or Reason.WARM_UP

    def context(self) -> NDArray[np.float32]:
        """What the model is to be asked about, shape (1, context_bars)."""
        length = self._config.context_bars
        found = np.full((1, length), np.nan, dtype=np.float32)
        known = self._shown[-length:]
        if known:
            found[0, -len(known) :] = known
        return found

    def follow(self, usable_bars: int, restart: Reason | None) -> None:
        """Take over a window that a fault has tampered with."""
        self.usable_bars, self.restart = usable_bars, restart
        kept = max(0, usable_bars - 1)
        self.returns, self._shown = (values[max(0, len(values) - kept) :] for values in (self.returns, self._shown))

    def outlook(self) -> FloatArray:
        """What the season multiplies the quantiles of the next bars by, shape (horizon_bars,)."""
        horizon_bars = self._config.horizon_bars
        return self._season.outlook(horizon_bars) if self._config.seasonal else np.ones(horizon_bars)

    def _forget(self) -> None:
        """Let go of returns that no context holds any more; a run may be without end."""
        kept = self._config.context_bars
        if len(self.returns) >= _TIMES_KEPT * kept:
            del self.returns[:-kept], self._shown[:-kept]

    def _begin_anew(self, why: Reason) -> None:
        self.usable_bars, self.returns, self._shown, self.restart = 0, [], [], why
