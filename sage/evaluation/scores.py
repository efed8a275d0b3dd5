"""Scores of quantile and volatility forecasts, and what may be said of the difference between two.

Rows are forecasts in time order, one for each bar; all scores are losses: less is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arch.bootstrap import CircularBlockBootstrap, optimal_block_length
from numpy.typing import NDArray
from scipy.stats import t as student

from regime.forecast import QUANTILE_LEVELS

FloatArray = NDArray[np.float64]

_LEVELS = np.array(QUANTILE_LEVELS)


def coverage(outcomes: FloatArray, quantiles: FloatArray) -> float:
    """Share of the outcomes within the outer quantiles, which should be 0.8; quantiles have an axis more."""
    return float(((quantiles[..., 0] <= outcomes) & (outcomes <= quantiles[..., -1])).mean())


def shares_below(outcomes: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Share of the outcomes at or below each quantile, shape (9,): the levels themselves where it is calibrated."""
    return np.asarray((outcomes[..., None] <= quantiles).reshape(-1, len(_LEVELS)).mean(axis=0))


def qlike(variance: FloatArray, realised: FloatArray) -> FloatArray:
    """Quasi-likelihood loss ``log h + v / h`` of a variance forecast ``h`` beside its proxy ``v`` (Patton, 2011).

    Robust to noise in the proxy, which may be a single squared return, and zero. Shape as given; a difference of
    two has no unit.
    """
    return np.log(variance) + realised / variance


@dataclass(frozen=True)
class DieboldMariano:
    """A test of equal accuracy; ``statistic`` is negative where the first of the two is better."""

    statistic: float
    p_value: float


def diebold_mariano(first: FloatArray, second: FloatArray, horizon_bars: int) -> DieboldMariano:
    """Diebold and Mariano's test (1995) of two series of losses, two-sided.

    The variance is Newey and West's (1987) with ``horizon_bars - 1`` lags, for forecasts of so many bars made every
    bar overlap; statistic and degrees of freedom are Harvey, Leybourne and Newbold's (1997). Bartlett's weights make
    the variance rather small where losses overlap fully: at 16 bars a p-value of 0.05 is one of about 0.11. Where
    it is close, the bootstrap's errors decide.

    Parameters
    ----------
    first, second
        Losses of the same forecasts, shape (rows,).
    horizon_bars
        Bars that one loss looks ahead.
    """
    difference = first - second
    rows, lags = len(difference), horizon_bars - 1
    if rows <= 2 * horizon_bars:
        raise ValueError(f"{rows} losses are too few for a horizon of {horizon_bars} bars")
    mean = float(difference.mean())
    centred = difference - mean
    variance = float(centred @ centred) / rows
    for lag in range(1, lags + 1):
        # Bartlett's weights keep the sum from becoming negative.
        weight = 1.0 - lag / (lags + 1)
        variance += 2.0 * weight * float(centred[lag:] @ centred[:-lag]) / rows
    if variance <= 0.0:
        # A difference that never varies: none, or one beyond doubt.
        return DieboldMariano(0.0, 1.0) if mean == 0.0 else DieboldMariano(float(np.copysign(np.inf, mean)), 0.0)
    correction = (rows + 1 - 2 * horizon_bars + horizon_bars * lags / rows) / rows
    statistic = mean / np.sqrt(variance / rows) * np.sqrt(correction)
    return DieboldMariano(float(statistic), float(2.0 * student.sf(abs(statistic), rows - 1)))


@dataclass(frozen=True)
class RelativeDifferences:
    """``(model - baseline) / baseline`` of the mean losses, and standard errors; shape (baselines,)."""

    values: FloatArray
    standard_errors: FloatArray
    block_bars: int


def relative_differences(losses: FloatArray, horizon_bars: int, replications: int, seed: int) -> RelativeDifferences:
    """How much worse the model is than each baseline, with circular block bootstrap errors (Politis and Romano, 1992).

    A block spans two horizons, or what Politis and White's rule (2004) asks for where that is more: volatility
    clusters, and with it the differences.

    Parameters
    ----------
    losses
        Shape (rows, 1 + baselines), the model's in the first column.
    horizon_bars
        Bars that one loss looks ahead.
    replications, seed
        Of the bootstrap.
    """
    block = block_length(losses[:, :1] - losses[:, 1:], horizon_bars)
    bootstrap = CircularBlockBootstrap(block, losses, seed=np.random.default_rng(seed))
    drawn = bootstrap.apply(_relative, replications)
    return RelativeDifferences(_relative(losses), drawn.std(axis=0, ddof=1), block)


def block_length(differences: FloatArray, horizon_bars: int) -> int:
    """Bars of a bootstrap's block for differences of shape (rows, columns): the longest that a column needs."""
    varying = differences[:, differences.std(axis=0) > 0.0]
    chosen = optimal_block_length(varying)["circular"].to_numpy() if varying.shape[1] else np.zeros(1)
    # A tenth of the rows at most: fewer blocks than ten would not be a bootstrap.
    return int(np.clip(np.ceil(np.nanmax(chosen)), 2 * horizon_bars, max(2 * horizon_bars, len(differences) // 10)))


def _relative(losses: FloatArray) -> FloatArray:
    means = losses.mean(axis=0)
    return np.asarray((means[0] - means[1:]) / means[1:])
