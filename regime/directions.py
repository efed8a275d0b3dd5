"""Up, down or sideways: a three-state model of the drift, averaged over how strong and how lasting drifts may be.

Returns over their volatility have a mean of zero, of so many standard deviations, or of minus as many; the three states
follow each other as a Markov chain. Settings are filtered side by side and weighted by how well they foretold the
returns, as in :mod:`regime.volatility_states`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from regime.signal import Direction
from regime.transitions import Lasting

FloatArray = NDArray[np.float64]

_ORDER = (Direction.SIDEWAYS, Direction.BULL, Direction.BEAR)
_DRIFTS = (0.05, 0.10, 0.15, 0.20)
"""Mean return per bar in standard deviations: less could not be told from none."""

_STAYS_BARS = (100.0, 300.0)
_DEGREES_OF_FREEDOM = 5.0
_CLIP = 4.0
_TEND_EVERY_BARS = 16
_FRESH_WEIGHT = 1e-3
_LEAST_PROBABILITY = 1e-12

_NO_DRIFT = 0.15
"""Probability, before any return, that there is no drift ever: the last setting, which is always sideways."""

_DRIFT = np.append(np.repeat(_DRIFTS, len(_STAYS_BARS)), 0.0)
_LEAVE = np.append(1.0 / np.tile(_STAYS_BARS, len(_DRIFTS)), 0.0)
_MEANS = np.stack([np.zeros_like(_DRIFT), _DRIFT, -_DRIFT])
_SHARES = np.where(_DRIFT > 0.0, 1.0 / 3.0, np.array([[1.0], [0.0], [0.0]]))
_PRIOR = np.where(_DRIFT > 0.0, (1.0 - _NO_DRIFT) / (len(_DRIFT) - 1), _NO_DRIFT)


class Directions:
    """Filters the direction, return by return, and names it.

    Parameters
    ----------
    memory_bars
        The evidence for a setting counts for 1/e of a new return's after so many.
    band
        A direction ends when another one is more likely by this much, in logarithms of their probabilities' ratio.
    least_bars
        No direction ends before it has lasted so long.
    """

    def __init__(self, memory_bars: int, band: float, least_bars: int) -> None:
        self._kept_per_tending = math.exp(-_TEND_EVERY_BARS / memory_bars)
        self._band = band
        self._direction = Lasting(Direction.SIDEWAYS, least_bars)
        self._taken = 0
        # Joint probabilities of direction and setting, shape (3, settings), in the order of _ORDER.
        self._joint = _SHARES * _PRIOR

    @property
    def probabilities(self) -> dict[Direction, float]:
        """Of each direction, by the returns alone."""
        return dict(zip(_ORDER, self._joint.sum(axis=1).tolist(), strict=True))

    def restart(self) -> None:
        """Bars are missing: which direction it is now is open."""
        self._joint = _SHARES * self._joint.sum(axis=0)

    def update(self, standardised_return: float) -> None:
        """Take in one return over the volatility that was known before it."""
        value = min(max(standardised_return, -_CLIP), _CLIP)
        weights = self._joint.sum(axis=0)
        # Each of the two others with equal probability.
        joint = self._joint * (1.0 - _LEAVE) + (weights - self._joint) * (0.5 * _LEAVE)
        joint *= (1.0 + (value - _MEANS) ** 2 / (_DEGREES_OF_FREEDOM - 2.0)) ** (-(_DEGREES_OF_FREEDOM + 1.0) / 2.0)
        joint /= joint.sum()
        self._taken += 1
        if self._taken % _TEND_EVERY_BARS == 0:
            weights = joint.sum(axis=0)
            faded = weights**self._kept_per_tending
            faded *= (1.0 - _FRESH_WEIGHT) / faded.sum()
            joint *= (faded + _FRESH_WEIGHT * _PRIOR) / weights
        self._joint = joint

    def name(self, lean: float) -> Direction:
        """The direction with what else speaks for up (positive) or down, in logarithms of odds."""
        sideways, up, down = (math.log(max(value, _LEAST_PROBABILITY)) for value in self._joint.sum(axis=1).tolist())
        scores = {Direction.SIDEWAYS: sideways, Direction.BULL: up + lean, Direction.BEAR: down - lean}
        present = self._direction.value
        best = max(_ORDER, key=lambda direction: scores[direction])
        self._direction.propose(best if scores[best] > scores[present] + self._band else present)
        return self._direction.value
