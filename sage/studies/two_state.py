"""The simulated market on which volatility regimes are judged, and how they are judged.

Two states follow each other as a Markov chain, each with its mean and volatility: the simulation in use in the
literature on statistical jump models (Nystrup, Lindström and Madsen, 2020, Learning hidden Markov models with
persistent states by penalizing jumps), fitted there to the daily returns of a stock index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TwoStateMarket:
    """Means and volatilities per bar of the calm and the turbulent state, and the probabilities to stay in them.

    ``degrees_of_freedom`` of the standardised shocks; None where they are normal.
    """

    volatilities: tuple[float, float]
    degrees_of_freedom: float | None
    means: tuple[float, float] = (0.000615, -0.000785)
    stays: tuple[float, float] = (0.9979, 0.9880)

    @property
    def leaves(self) -> tuple[float, float]:
        """Probabilities to leave each state with a bar."""
        return 1.0 - self.stays[0], 1.0 - self.stays[1]

    @property
    def turbulent_share(self) -> float:
        """The stationary probability of turbulence."""
        return self.leaves[0] / sum(self.leaves)

    def simulate(self, rng: np.random.Generator, bars: int) -> tuple[FloatArray, BoolArray]:
        """Log returns and whether each bar is turbulent, both of shape (bars,); begins in the stationary state."""
        leaving = rng.random(bars)
        turbulent = np.empty(bars, dtype=bool)
        state = bool(rng.random() < self.turbulent_share)
        for bar in range(bars):
            if bar and leaving[bar] < self.leaves[state]:
                state = not state
            turbulent[bar] = state
        nu = self.degrees_of_freedom
        shocks = rng.standard_normal(bars) if nu is None else rng.standard_t(nu, bars) * np.sqrt((nu - 2.0) / nu)
        states = turbulent.astype(np.intp)
        return np.array(self.means)[states] + np.array(self.volatilities)[states] * shocks, turbulent


@dataclass(frozen=True)
class TwoStateModel:
    """A fitted or true model of many series at once: each field has shape (series, 2), calm state first.

    ``scales`` are standard deviations for normal shocks, and Student-t scales with ``degrees_of_freedom``.
    """

    means: FloatArray
    scales: FloatArray
    leaves: FloatArray
    degrees_of_freedom: float | None

    @classmethod
    def of(cls, market: TwoStateMarket, series: int) -> TwoStateModel:
        """The truth."""
        nu = market.degrees_of_freedom
        factor = 1.0 if nu is None else np.sqrt((nu - 2.0) / nu)
        rows = (market.means, factor * np.array(market.volatilities), market.leaves)
        means, scales, leaves = (np.tile(np.array(row, dtype=float), (series, 1)) for row in rows)
        return cls(means, scales, leaves, nu)

    @property
    def turbulent_share(self) -> FloatArray:
        """Stationary probability of turbulence, shape (series,)."""
        share: FloatArray = self.leaves[:, 0] / self.leaves.sum(axis=1)
        return share

    def filtered(self, returns: FloatArray) -> FloatArray:
        """Probability of turbulence given the returns up to each bar, shape (series, bars), by Hamilton's filter."""
        logs = log_densities(returns, self.means, self.scales, self.degrees_of_freedom)
        odds = np.exp(np.clip(logs[:, :, 1] - logs[:, :, 0], -500.0, 500.0))
        leave_calm, leave_turbulent = self.leaves[:, 0], self.leaves[:, 1]
        probability = self.turbulent_share
        found = np.empty_like(returns)
        for bar in range(returns.shape[1]):
            if bar:
                probability = probability * (1.0 - leave_turbulent) + (1.0 - probability) * leave_calm
            weighted = probability * odds[:, bar]
            probability = weighted / (weighted + 1.0 - probability)
            found[:, bar] = probability
        return found


def log_densities(returns: FloatArray, means: FloatArray, scales: FloatArray, nu: float | None) -> FloatArray:
    """Log densities, shape (series, bars, 2), of returns (series, bars) under both states (series, 2)."""
    z = (returns[:, :, None] - means[:, None, :]) / scales[:, None, :]
    logs = -np.log(scales)[:, None, :]
    if nu is None:
        return np.asarray(logs - 0.5 * z**2 - 0.5 * np.log(2.0 * np.pi))
    constant = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * np.log(nu * np.pi)
    return np.asarray(logs + constant - (nu + 1.0) / 2.0 * np.log1p(z**2 / nu))


@dataclass(frozen=True)
class Score:
    """How one series of states fares against the truth.

    ``delays`` are the bars from each true change until its state is named, 0 where it was named already; a change that
    is not noticed before the next one counts with all the bars between, and in ``unnoticed``.
    """

    balanced_accuracy: float
    changes: int
    delays: tuple[int, ...]
    unnoticed: int


def score(found: BoolArray, turbulent: BoolArray) -> Score:
    """Hold states against the truth, both of shape (bars,)."""
    recalls = [(found[turbulent == state] == state).mean() for state in (False, True)]
    starts = np.flatnonzero(turbulent[1:] != turbulent[:-1]) + 1
    ends = np.append(starts[1:], len(turbulent))
    delays, unnoticed = [], 0
    for start, end in zip(starts, ends, strict=True):
        named = np.flatnonzero(found[start:end] == turbulent[start])
        unnoticed += not len(named)
        delays.append(int(named[0]) if len(named) else int(end - start))
    changes = int((found[1:] != found[:-1]).sum())
    return Score(float(np.mean(recalls)), changes, tuple(delays), unnoticed)


def changes_within(turbulent: BoolArray, bars: int) -> BoolArray:
    """For all but the last ``bars`` bars: does the state change within the next ``bars`` bars, once or more?"""
    changed = np.concatenate([[0], np.cumsum(turbulent[1:] != turbulent[:-1])])
    return np.asarray(changed[bars:] > changed[:-bars])
