"""From trend and volatility to a regime that does not flicker.

Everything is scale-free: the trend is a z-score, and volatility is compared with its own past. Both states have a
dead band, so that a regime ends for a reason and not on the next bar's noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from regime.config import ClassifierConfig
from regime.signal import Direction, VolatilityState
from regime.window import FloatArray, RingBuffer

_REFERENCE_EVERY_BARS = 25
_MIN_REFERENCE_BARS = 50
_SEPARATION_MIN = 0.10
"""Two volatility states closer than this (in logs) are one."""


@dataclass(frozen=True)
class Regime:
    """A direction, a volatility state and how likely they are to change with the next bar."""

    direction: Direction
    volatility_state: VolatilityState
    transition_probability: float


class RegimeClassifier:
    """Keeps the present regime, and changes it when trend or volatility leave their dead bands."""

    def __init__(self, config: ClassifierConfig) -> None:
        self._config = config
        self._log_volatility = RingBuffer(config.reference_bars)
        self._bars = 0
        self._changes = 0.0
        self._exposed = 0.0
        self._direction = Direction.SIDEWAYS
        self._volatility_state = VolatilityState.LOW
        self._split: tuple[float, float] | None = None

    def classify(self, trend: float | None, volatility: float) -> Regime:
        """Take in this bar's trend (z-score; None where nothing is known of it) and volatility (per bar)."""
        direction = Direction.UNKNOWN if trend is None else self._next_direction(trend)
        state = self._next_volatility_state(volatility)
        known_before = self._direction
        changed = state is not self._volatility_state or (trend is not None and direction is not known_before)
        self._bars += 1
        self._changes += changed
        self._exposed += 1.0
        if trend is not None:
            self._direction = direction
        self._volatility_state = state
        # Add-one estimate of a rare event's rate: one change in a hundred bars before any evidence.
        return Regime(direction, state, (self._changes + 1.0) / (self._exposed + 100.0))

    def _next_direction(self, trend: float) -> Direction:
        enter, leave = self._config.enter_trend, self._config.leave_trend
        if trend > enter or (self._direction is Direction.BULL and trend > leave):
            return Direction.BULL
        if trend < -enter or (self._direction is Direction.BEAR and trend < -leave):
            return Direction.BEAR
        return Direction.SIDEWAYS

    def _next_volatility_state(self, volatility: float) -> VolatilityState:
        if not volatility > 0:
            return self._volatility_state
        level = math.log(volatility)
        self._log_volatility.append(level)
        if self._bars % _REFERENCE_EVERY_BARS == 0 or self._split is None:
            self._split = two_means_split(self._log_volatility.view())
        if self._split is None:
            return self._volatility_state
        middle, distance = self._split
        band = self._config.band * distance
        if level > middle + band:
            return VolatilityState.HIGH
        if level < middle - band:
            return VolatilityState.LOW
        return self._volatility_state


def two_means_split(values: FloatArray) -> tuple[float, float] | None:
    """Where values fall apart into two groups, and how far apart the groups' means are.

    The split with the largest between-group variance (Otsu, 1979). None where there are too few values, or the
    groups are the same for every practical purpose.
    """
    if len(values) < _MIN_REFERENCE_BARS:
        return None
    ordered = np.sort(values)
    counts = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    low = sums[:-1] / counts
    high = (sums[-1] - sums[:-1]) / (len(ordered) - counts)
    between = counts * (len(ordered) - counts) * (high - low) ** 2
    best = int(np.argmax(between))
    distance = float(high[best] - low[best])
    if distance < _SEPARATION_MIN:
        return None
    return float(low[best] + high[best]) / 2, distance


class TrendFilter:
    """Realised trend as a z-score: an EWMA of standardised returns over its own standard deviation."""

    def __init__(self, span_bars: int) -> None:
        self._decay = 1.0 - 2.0 / (span_bars + 1.0)
        self._mean = 0.0
        self._weight_squares = 0.0

    def update(self, standardised_return: float) -> float:
        """Take in one return over its volatility, clipped at four; returns the z-score."""
        clipped = min(max(standardised_return, -4.0), 4.0)
        self._mean = self._decay * self._mean + (1.0 - self._decay) * clipped
        self._weight_squares = self._decay**2 * self._weight_squares + (1.0 - self._decay) ** 2
        return self._mean / math.sqrt(self._weight_squares)


class EwmaVolatility:
    """Standard deviation of returns per bar, exponentially weighted (RiskMetrics), bias-corrected at the start."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._sum = 0.0
        self._weight = 0.0

    def update(self, log_return: float) -> None:
        """Take in one return."""
        self._sum = self._decay * self._sum + (1.0 - self._decay) * log_return**2
        self._weight = self._decay * self._weight + (1.0 - self._decay)

    @property
    def value(self) -> float:
        """Zero before the first return."""
        return math.sqrt(self._sum / self._weight) if self._weight else 0.0
