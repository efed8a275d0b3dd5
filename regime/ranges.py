"""How far prices ranged lately: a second opinion on the scale of the next returns, and a quick one.

A bar's range tells its volatility about five times as precisely as its return does, so that a break of volatility
shows within a few bars. Source: Parkinson (1980), "The extreme value method for estimating the variance of the rate
of return". The range counts from the close before, so that a jump between two bars belongs to it.
"""

from __future__ import annotations

import math

FAST_DECAY, SLOW_DECAY = 0.85, 0.99

RISE_FROM, RISE_TO = 0.25, 0.50
"""Where fast ranges exceed slow ones by more than the first (in logs), intervals are widened, at most up to the
second."""


class Ranges:
    """Two exponentially weighted means of the bars' ranges, season taken out; square roots are what is averaged, so
    that one wild bar counts for less."""

    def __init__(self) -> None:
        self._fast, self._slow = _Mean(FAST_DECAY), _Mean(SLOW_DECAY)

    def update(self, high: float, low: float, close_before: float, season_factor: float) -> None:
        """Take in a bar, and the factor by which its hour is wilder than others."""
        log_range = math.log(max(high, close_before) / min(low, close_before))
        root = math.sqrt(log_range / season_factor)
        self._fast.update(root)
        self._slow.update(root)

    @property
    def recent(self) -> float:
        """The mean range of the last few bars, as a log return; 0 before the first."""
        return self._fast.value**2

    @property
    def rise(self) -> float:
        """The factor by which intervals are widened on purpose while ranges are rising.

        The first bars after a break of volatility are missed by whoever does not know the future. Those that follow
        make good for it: a little wider than needed, until what is wild now is what is usual.
        """
        if not self._fast.value > 0 or not self._slow.value > 0:
            return 1.0
        excess = 2.0 * math.log(self._fast.value / self._slow.value) - RISE_FROM
        return math.exp(min(max(excess, 0.0), RISE_TO - RISE_FROM))


class _Mean:
    """An exponentially weighted mean, bias-corrected at the start."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._sum = 0.0
        self._weight = 0.0

    def update(self, value: float) -> None:
        self._sum = self._decay * self._sum + (1.0 - self._decay) * value
        self._weight = self._decay * self._weight + (1.0 - self._decay)

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else 0.0
