"""Calm or turbulent: a two-state Student-t model of returns, averaged over all that its parameters may be.

Returns come from one of two states that follow each other as a Markov chain (Hamilton, 1989), with a mean of zero
and Student-t tails. Its parameters are never estimated: many settings are filtered side by side, each weighted by
how well it foretold the returns so far, and what is said is their weighted average (Bayesian model averaging;
Raftery, Karny and Ettler, 2010, whose forgetting factor lets the weights follow a market that changes). That needs no
refit, no starting values and no look back, costs the same at every bar, and is sure of nothing that it has not seen.

Scale-free: all settings are relative to a scale taken from the first returns, and move with the market in steps.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.signal import VolatilityState
from regime.transitions import ChangePoint, Lasting

FloatArray = NDArray[np.float64]

TRANSITION_BARS = 20
"""How far the transition probability looks ahead."""

_STEP = 0.10
_ROWS = 11
_RATIO_STEPS = (5, 7, 9, 12, 16)
_CALM_BARS = (60.0, 200.0, 600.0)
_TURBULENT_BARS = (30.0, 100.0, 300.0)
_DEGREES_OF_FREEDOM = (5.0, 50.0)

_ONE_STATE = 0.5
"""Probability, before any return, that there is one state only."""

_ANCHOR_RETURNS = 20
_TEND_EVERY_BARS = 16
_FRESH_WEIGHT = 1e-4
_STILL_BARS = 3
_LARGEST_RETURN = 1e4
_MEDIAN_OF_ABSOLUTE_NORMAL = 0.6745


@dataclass(frozen=True)
class _Grid:
    """The settings, shape (settings,), by rows of equal calm volatility, and the densities they need.

    ``calm`` and ``turbulent`` index the densities of :meth:`densities`; ``leave_calm`` and ``leave_turbulent`` are
    the probabilities to leave a state with a bar; ``share`` is the long-run share of the turbulent state, 0 in the
    settings that know one state only, so that a market without a second one is not split by its noise.
    """

    calm: NDArray[np.intp]
    turbulent: NDArray[np.intp]
    leave_calm: FloatArray
    leave_turbulent: FloatArray
    share: FloatArray
    prior: FloatArray
    scales: FloatArray
    exponents: FloatArray
    constants: FloatArray
    odds_turbulent: FloatArray
    odds_calm: FloatArray
    leaves_turbulent: FloatArray
    leaves_calm: FloatArray

    def densities(self, value: float) -> FloatArray:
        """Student-t densities at a return over the anchor, all times one factor: the largest is 1."""
        logs = self.constants - self.exponents * np.log1p((value / self.scales) ** 2)
        found: FloatArray = np.exp(logs - logs.max())
        return found


def _grid() -> _Grid:
    volatilities = np.exp(_STEP * (np.arange(_ROWS + max(_RATIO_STEPS)) - _ROWS // 2))
    two = list(itertools.product(_RATIO_STEPS, _CALM_BARS, _TURBULENT_BARS, range(len(_DEGREES_OF_FREEDOM))))
    one = list(itertools.product((0,), (math.inf,), (1.0,), range(len(_DEGREES_OF_FREEDOM))))
    found = np.array([(row, *setting) for row in range(_ROWS) for setting in (*two, *one)])
    row, ratio, calm_bars, turbulent_bars, tail = found.T
    first = tail.astype(np.intp) * len(volatilities) + row.astype(np.intp)
    leave_calm, leave_turbulent = 1.0 / calm_bars, 1.0 / turbulent_bars
    share = leave_calm / (leave_calm + leave_turbulent)
    prior = np.where(ratio > 0, (1.0 - _ONE_STATE) / (_ROWS * len(two)), _ONE_STATE / (_ROWS * len(one)))
    scales, exponents, constants = [], [], []
    for nu in _DEGREES_OF_FREEDOM:
        # Each state's volatility is its standard deviation, whatever the tails; scales hold the root of nu too.
        scale = volatilities * math.sqrt((nu - 2.0) / nu)
        scales.append(scale * math.sqrt(nu))
        exponents.append(np.full(len(scale), (nu + 1.0) / 2.0))
        constant = math.lgamma((nu + 1.0) / 2.0) - math.lgamma(nu / 2.0) - 0.5 * math.log(nu * math.pi)
        constants.append(constant - np.log(scale))
    return _Grid(
        calm=first,
        turbulent=first + ratio.astype(np.intp),
        leave_calm=leave_calm,
        leave_turbulent=leave_turbulent,
        share=share,
        scales=np.concatenate(scales),
        exponents=np.concatenate(exponents),
        constants=np.concatenate(constants),
        prior=prior,
        odds_turbulent=np.divide(1.0, share, out=np.zeros_like(share), where=share > 0.0),
        odds_calm=1.0 / (1.0 - share),
        leaves_turbulent=1.0 - (1.0 - leave_turbulent) ** TRANSITION_BARS,
        leaves_calm=1.0 - (1.0 - leave_calm) ** TRANSITION_BARS,
    )


_GRID = _grid()
_SETTINGS = len(_GRID.share)


class VolatilityStates:
    """Filters the volatility state, return by return.

    Parameters
    ----------
    memory_bars
        The evidence for a setting counts for 1/e of a new return's after so many.
    band
        A state ends when the other one is more likely by this much, in logarithms of the odds relative to their
        long-run odds; within the band it stays.
    least_bars
        No state ends before it has lasted so long.
    """

    def __init__(self, memory_bars: int, band: float, least_bars: int) -> None:
        self._kept_per_tending = math.exp(-_TEND_EVERY_BARS / memory_bars)
        self._band = band
        self._scale = 0.0
        self._first: list[float] = []
        self._still = 0
        self._taken = 0
        # Joint probabilities of setting and state, given all returns so far.
        self._turbulent = _GRID.prior * _GRID.share
        self._calm = _GRID.prior - self._turbulent
        self._state = Lasting(VolatilityState.LOW, least_bars)
        self._change_point = ChangePoint()
        self.probability_high = float(self._turbulent.sum())
        self.transition_probability = self._transition_probability()

    @property
    def state(self) -> VolatilityState:
        """The state that is named: persistent, where the probability is not."""
        return self._state.value

    @property
    def bars_in_state(self) -> int:
        """Bars since it was named."""
        return self._state.bars

    @property
    def delay_bars(self) -> int:
        """Bars that the last change had probably been there before it was named."""
        return self._change_point.delay_bars

    def restart(self) -> None:
        """Bars are missing: which state it is now is as open as ever, what the states are like is not."""
        weights = self._turbulent + self._calm
        self._turbulent = weights * _GRID.share
        self._calm = weights - self._turbulent
        self._change_point = ChangePoint()
        self._tell()

    def update(self, log_return: float) -> VolatilityState:
        """Take in one return, without the season of the day, and name the state."""
        if self._scale > 0.0:
            self._take(log_return)
        elif log_return != 0.0:
            self._first.append(log_return)
            if len(self._first) == _ANCHOR_RETURNS:
                self._scale = float(np.median(np.abs(self._first))) / _MEDIAN_OF_ABSOLUTE_NORMAL
                for earlier in self._first:
                    self._take(earlier)
                self._first.clear()
        return self.state

    def _take(self, log_return: float) -> None:
        grid = _GRID
        turbulent = self._turbulent * (1.0 - grid.leave_turbulent) + self._calm * grid.leave_calm
        calm = self._turbulent + self._calm - turbulent
        # A price that stands still says little of how it moves, and nothing new once it has stood for a while.
        self._still = self._still + 1 if log_return == 0.0 else 0
        evidence = 0.0
        if self._still <= _STILL_BARS:
            before = float(turbulent.sum())
            value = min(max(log_return / self._scale, -_LARGEST_RETURN), _LARGEST_RETURN)
            densities = grid.densities(value)
            turbulent *= densities[grid.turbulent]
            calm *= densities[grid.calm]
            found, other = float(turbulent.sum()), float(calm.sum())
            if not (found > 0.0 and other > 0.0):
                return  # beyond what numbers can hold: no evidence
            evidence = math.log(found / before) - math.log(other / (1.0 - before))
            turbulent /= found + other
            calm /= found + other
        self._turbulent, self._calm = turbulent, calm
        self._taken += 1
        if self._taken % _TEND_EVERY_BARS == 0:
            self._tend()
        self._tell()
        self._name(evidence)

    def _tell(self) -> None:
        self.probability_high = float(self._turbulent.sum())
        self.transition_probability = self._transition_probability()

    def _transition_probability(self) -> float:
        """That the hidden state changes within the next TRANSITION_BARS bars, once or more."""
        leaving = self._turbulent @ _GRID.leaves_turbulent + self._calm @ _GRID.leaves_calm
        return min(max(float(leaving), 0.0), 1.0)

    def _name(self, evidence: float) -> None:
        """The state in which the probability exceeds its long-run share: what balanced accuracy asks for."""
        odds = math.log(float(self._turbulent @ _GRID.odds_turbulent) / float(self._calm @ _GRID.odds_calm))
        high = self.state is VolatilityState.HIGH
        self._change_point.observe(-evidence if high else evidence)
        wanted = VolatilityState.HIGH if odds > (-self._band if high else self._band) else VolatilityState.LOW
        if self._state.propose(wanted):
            self._change_point.named()

    def _tend(self) -> None:
        """Let old evidence fade, keep every setting possible, and keep the settings around the market's scale."""
        weights = self._turbulent + self._calm
        faded = weights**self._kept_per_tending
        faded *= (1.0 - _FRESH_WEIGHT) / faded.sum()
        faded += _FRESH_WEIGHT * _GRID.prior
        turbulent = np.divide(self._turbulent, weights, out=_GRID.share.copy(), where=weights > 0.0)
        rows = faded.reshape(_ROWS, -1).sum(axis=1)
        shift = round(float(rows @ np.arange(_ROWS))) - _ROWS // 2
        if shift:
            faded, turbulent = _moved(faded, shift, _FRESH_WEIGHT * _GRID.prior), _moved(turbulent, shift, _GRID.share)
            self._scale *= math.exp(_STEP * shift)
        faded /= faded.sum()
        self._turbulent = faded * turbulent
        self._calm = faded - self._turbulent


def _moved(values: FloatArray, shift: int, fresh: FloatArray) -> FloatArray:
    """Settings moved by so many rows; new rows are filled from ``fresh``."""
    filled = fresh.copy()
    kept = _SETTINGS - abs(shift) * (_SETTINGS // _ROWS)
    if shift > 0:
        filled[:kept] = values[-kept:]
    else:
        filled[-kept:] = values[:kept]
    return filled
