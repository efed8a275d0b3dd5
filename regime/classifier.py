"""From returns and a level's view to a regime that does not flicker.

Everything is scale-free: drift is told in standard deviations, and volatility is compared with its own past. Direction
and volatility state have a dead band each and last for some bars: a regime ends for a reason, not on a bar's noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regime.config import ClassifierConfig
from regime.directions import Directions
from regime.signal import Direction, VolatilityState
from regime.volatility_states import VolatilityStates


@dataclass(frozen=True)
class Regime:
    """A direction, a volatility state and how likely the latter is to change (``Signal.transition_probability``)."""

    direction: Direction
    volatility_state: VolatilityState
    transition_probability: float


class RegimeClassifier:
    """Keeps the present regime, and changes it when returns, or what a level foresees, leave a dead band.

    Returns are taken in at every bar, whichever level answers; a direction is named where a level has a view of it.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        self._lean = config.forecast_weight
        self.direction = Directions(config.reference_bars, config.direction_band, config.least_bars)
        self.volatility = VolatilityStates(config.reference_bars, config.band, config.least_bars)

    def observe(self, log_return: float, standardised_return: float) -> None:
        """Take in one return: without the season of the day, and over the volatility that was known before it."""
        self.volatility.update(log_return)
        self.direction.update(standardised_return)

    def restart(self) -> None:
        """Bars are missing before the next return."""
        self.volatility.restart()
        self.direction.restart()

    def classify(self, trend: float | None) -> Regime:
        """The regime with this bar's trend as a level sees it (z-score; None where it has no view)."""
        direction = Direction.UNKNOWN if trend is None else self.direction.name(self._lean * trend)
        return Regime(direction, self.volatility.state, self.volatility.transition_probability)


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
