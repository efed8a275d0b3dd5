"""What the best of many trials is worth: its Sharpe ratio less what the luck of so many would have given it.

Sharpe ratios here are of one observation, not annualised; matrices of returns have the shape (observations, trials).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SIGNIFICANCE = 0.05
CLUSTER_CORRELATION = 0.5
"""Trials whose returns correlate by more than that, on average, are variations of one idea."""

CLUSTERED_MAX = 5_000
"""So many trials are held against each other at most: the table of their correlations takes 200 MB, several times."""

OBSERVATIONS_MIN = 20
_EULER = 0.5772156649015329


@dataclass(frozen=True)
class Deflated:
    """What selection leaves of the winner of ``trials`` trials.

    ``winner`` is its column and ``sharpe`` its ratio. By luck alone the best of such trials would have been expected to
    reach ``expected_sharpe``, which is what the best of ``effective_trials`` independent ones as spread out would;
    ``clusters`` are groups of alike ones. ``probability`` is the deflated Sharpe ratio: how sure it is that the true
    ratio exceeds ``expected_sharpe``; ``naive_probability`` is the same for zero, as if nothing had been selected.
    ``moving`` counts the winner's returns that are not nought: of a few, neither probability says anything.
    """

    winner: int
    sharpe: float
    probability: float
    naive_probability: float
    expected_sharpe: float
    trials: int
    clusters: int
    effective_trials: float
    moving: int

    @property
    def is_significant(self) -> bool:
        """True where luck is surely not all that made the winner."""
        return self.probability > 1.0 - SIGNIFICANCE and self.moving >= OBSERVATIONS_MIN


def deflated_sharpe(returns: FloatArray, idle_trials: int = 0, earlier: FloatArray | None = None) -> Deflated | None:
    """The deflated Sharpe ratio of the best trial (Bailey and López de Prado, J. Portfolio Management 40(5), 2014).

    Their expected maximum is that of independent trials. Here trials come in clusters of alike ones, and
    :func:`expected_best` reckons with that.

    Parameters
    ----------
    returns
        Of each trial, shape (observations, trials), at the same times.
    idle_trials
        Trials that were made and left no returns to look at (they never traded, or failed): they count, each as one
        more that might have been the best.
    earlier
        Returns of trials that were made before, shape (observations, earlier trials): they count as trials, and none
        is the winner.

    Returns
    -------
    None where there are fewer than OBSERVATIONS_MIN observations, or no trial whose returns ever differ.
    """
    if len(returns) < OBSERVATIONS_MIN:
        return None
    moving = np.flatnonzero(returns.std(axis=0) > 0)
    if not len(moving):
        return None
    idle_trials += returns.shape[1] - len(moving)
    best = int(np.argmax(sharpes(returns[:, moving])))
    winner = int(moving[best])
    every = returns[:, moving]
    if earlier is not None:
        moved = earlier.std(axis=0) > 0
        idle_trials += int(np.sum(~moved))
        every = np.concatenate([every, earlier[:, moved]], axis=1)
    trials = every.shape[1] + idle_trials
    ratios = sharpes(every)
    cluster = clusters_of(every)
    expected = expected_best(ratios, cluster, len(returns), idle_trials)
    one = returns[:, winner]
    return Deflated(
        winner=winner,
        sharpe=float(ratios[best]),
        probability=probabilistic_sharpe(one, expected),
        naive_probability=probabilistic_sharpe(one),
        expected_sharpe=expected,
        trials=trials,
        clusters=int(cluster.max()) + 1,
        effective_trials=_effective(expected, ratios, trials),
        moving=int(np.count_nonzero(one)),
    )


def sharpes(returns: FloatArray) -> FloatArray:
    """Sharpe ratio of each column, of one observation."""
    return np.asarray(returns.mean(axis=0) / returns.std(axis=0, ddof=1))


def probabilistic_sharpe(returns: FloatArray, benchmark: float = 0.0) -> float:
    """How sure it is that the true Sharpe ratio exceeds a benchmark (Bailey and López de Prado, J. Risk 15(2), 2012).

    Skewness and kurtosis of the returns, shape (observations,), widen or narrow its standard error.
    """
    ratio = float(returns.mean() / returns.std(ddof=1))
    standard = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float(np.mean(standard**3)), float(np.mean(standard**4))
    variance = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    # Few and wild observations can make the expansion negative, where it says nothing.
    error = math.sqrt(max(variance, 1e-6) / (len(returns) - 1))
    return float(norm.cdf((ratio - benchmark) / error))


def expected_maximum(trials: float) -> float:
    """Of so many independent standard normal values, by the approximation of Bailey and López de Prado (2014)."""
    if trials <= 1.0:
        return 0.0
    return float(
        max(0.0, (1.0 - _EULER) * norm.ppf(1.0 - 1.0 / trials) + _EULER * norm.ppf(1.0 - 1.0 / (math.e * trials)))
    )


def clusters_of(returns: FloatArray) -> IntArray:
    """The cluster of each trial, from 0; shape (trials,). Of more than CLUSTERED_MAX some make them, the rest joins."""
    trials = returns.shape[1]
    if trials == 1:
        return np.zeros(1, dtype=np.int64)
    if trials > CLUSTERED_MAX:
        return _joined(returns, np.linspace(0, trials - 1, CLUSTERED_MAX).astype(np.int64))
    correlation = np.corrcoef(returns, rowvar=False).clip(-1.0, 1.0)
    distance = 1.0 - correlation
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    return np.asarray(fcluster(tree, 1.0 - CLUSTER_CORRELATION, criterion="distance") - 1, dtype=np.int64)


def _joined(returns: FloatArray, some: IntArray) -> IntArray:
    """Clusters of some trials, which every other one joins whose returns correlate enough with theirs on average."""
    standard = (returns - returns.mean(axis=0)) / returns.std(axis=0)
    cluster = np.full(returns.shape[1], -1, dtype=np.int64)
    cluster[some] = clusters_of(returns[:, some])
    centre = np.zeros((int(cluster.max()) + 1, len(returns)))
    np.add.at(centre, cluster[some], standard[:, some].T)
    centre /= np.bincount(cluster[some])[:, None]
    others = np.flatnonzero(cluster < 0)
    for begin in range(0, len(others), CLUSTERED_MAX):
        part = others[begin : begin + CLUSTERED_MAX]
        correlation = centre @ standard[:, part] / len(returns)
        cluster[part] = np.where(correlation.max(axis=0) > CLUSTER_CORRELATION, correlation.argmax(axis=0), -1)
    alone = np.flatnonzero(cluster < 0)
    cluster[alone] = len(centre) + np.arange(len(alone))
    return cluster


def expected_best(ratios: FloatArray, cluster: IntArray, observations: int, idle_trials: int = 0) -> float:
    """The Sharpe ratio that the best of these trials would be expected to have, at most, if none had any merit.

    A ratio is its cluster's mean and what it is above that. The best of all cannot be expected to be more than the
    best of the means and the best of the rests together; nor more than the best of as many independent ratios as
    spread out (Slepian's inequality). The smaller of both is taken; for independent trials, and for those of one
    cluster, they are one, and the expected maximum itself.

    Parameters
    ----------
    ratios
        Of each trial, shape (trials,).
    cluster
        Of each trial, from 0, shape (trials,).
    observations
        From which the ratios are.
    idle_trials
        Trials of which nothing else is known: clusters of their own, as spread out as the others, and at least as
        ratios without merit are that come from so many observations.
    """
    size = np.bincount(cluster)
    mean = np.bincount(cluster, ratios) / size
    between = float(mean.var(ddof=1)) if len(mean) > 1 else 0.0
    within_sum = float(np.sum((ratios - mean[cluster]) ** 2))
    freedom = len(ratios) - len(size)
    within = within_sum / freedom if freedom else 0.0
    # A cluster's mean varies by its members' variance, too; that part is found again in the best of a cluster.
    between = max(0.0, between - within * float(np.mean(1.0 / size))) if freedom else between
    if idle_trials:
        between = max(between, 1.0 / (observations - 1))
    apart = math.sqrt(between) * expected_maximum(len(size) + idle_trials) + math.sqrt(within) * expected_maximum(
        len(ratios)
    )
    return min(apart, math.sqrt(between + within) * expected_maximum(len(ratios) + idle_trials))


def _effective(expected: float, ratios: FloatArray, trials: int) -> float:
    """How many independent trials, spread as these are, would be expected to have as good a best one."""
    spread = float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0
    if spread == 0.0:
        return 1.0
    low, high = 1.0, float(trials)
    if expected >= spread * expected_maximum(high):
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spread * expected_maximum(middle) < expected else (low, middle)
    return high
