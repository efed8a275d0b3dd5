"""How often a sweep's statistics are right, on simulated returns: ``python -m stress.luck_study [SEEDS]``.

Printed are how many winners without merit the deflated Sharpe ratio calls good, and how many the winner's naive one;
how many planted edges are found; and the probability of overfitting with and without an edge.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from sage.sweep.deflation import SIGNIFICANCE, deflated_sharpe
from sage.sweep.overfitting import probability_of_overfitting

FloatArray = NDArray[np.float64]

TRIALS, DAYS, SEEDS = 200, 500, 400
FIRST_SEED = 1_000
EDGE = 6.0
CORRELATIONS = (0.0, 0.3, 0.45, 0.6, 0.9, 0.99)


def simulated_returns(
    correlation: float, seed: int, edge: float = 0.0, trials: int = TRIALS, days: int = DAYS
) -> FloatArray:
    """Daily returns of equally correlated trials without merit, shape (days, trials); the first one's t is ``edge``."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((days, 1)), rng.standard_normal((days, trials))
    returns = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own
    returns[:, 0] += edge / np.sqrt(days)
    return np.asarray(0.01 * returns)


def called_good(correlation: float, seeds: int) -> tuple[int, int]:
    """How many winners without merit are called good, deflated and as if each had been the only trial."""
    found = [deflated_sharpe(simulated_returns(correlation, FIRST_SEED + seed)) for seed in range(seeds)]
    judged = [one for one in found if one is not None]
    naive = sum(one.naive_probability > 1.0 - SIGNIFICANCE for one in judged)
    return sum(one.is_significant for one in judged), naive


def edges_found(seeds: int) -> int:
    """How many planted edges win and are called good."""
    found = [deflated_sharpe(simulated_returns(0.0, FIRST_SEED + seed, EDGE)) for seed in range(seeds)]
    return sum(one is not None and one.is_significant and one.winner == 0 for one in found)


def overfitting(edge: float, seeds: int) -> float:
    """The mean probability of overfitting."""
    found = [probability_of_overfitting(simulated_returns(0.0, FIRST_SEED + seed, edge)) for seed in range(seeds)]
    return float(np.mean([one.probability for one in found if one is not None]))


def main(seeds: int = SEEDS) -> None:
    """Print it."""
    print(f"{TRIALS} trials, {DAYS} days; winners called good")
    for correlation in CORRELATIONS:
        good, naive = called_good(correlation, seeds)
        print(f"  correlation {correlation:4.2f}: deflated {good:3d} of {seeds}, naive {naive:3d}")
    quarter = max(1, seeds // 4)
    print(f"an edge of t = {EDGE:g} is found in {edges_found(quarter)} of {quarter}")
    noise, edge = overfitting(0.0, quarter), overfitting(EDGE, quarter)
    print(f"probability of overfitting {noise:.3f} on noise, {edge:.3f} with the edge")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
