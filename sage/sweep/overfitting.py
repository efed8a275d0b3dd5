"""How likely the best trial of one half of the data is to be below the median of the other half."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BLOCKS = 16
_AT_ONCE = 2_000


@dataclass(frozen=True)
class Overfitting:
    """``probability`` of overfitting over ``splits``; ``logits`` of the winner's relative rank, one for each split."""

    probability: float
    splits: int
    blocks: int
    logits: FloatArray


def probability_of_overfitting(returns: FloatArray, blocks: int = BLOCKS) -> Overfitting | None:
    """Combinatorially symmetric cross-validation (Bailey et al., J. Computational Finance 20(4), 2017).

    The observations are cut into ``blocks``; for each choice of half of them the trial with the best Sharpe ratio there
    is ranked among all on the other half. A rank in the lower half is overfitting; ties take the middle rank.

    Parameters
    ----------
    returns
        Shape (observations, trials), all at the same times.
    blocks
        An even number of blocks; fewer are taken where each would have fewer than two observations.

    Returns
    -------
    None for fewer than two trials, for trials all alike, or fewer observations than four blocks of two take.
    """
    observations, trials = returns.shape
    blocks = min(blocks, observations // 2 // 2 * 2)
    if trials < 2 or blocks < 4 or not np.ptp(returns, axis=1).any():
        return None
    edges = np.linspace(0, observations, blocks + 1).astype(np.int64)
    count = np.diff(edges).astype(np.float64)
    # Around the mean of all: the variance from sums of squares would lose digits otherwise.
    centre = returns.mean(axis=0)
    total = np.add.reduceat(returns - centre, edges[:-1], axis=0)
    squares = np.add.reduceat((returns - centre) ** 2, edges[:-1], axis=0)
    chosen = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    taken = np.zeros((len(chosen), blocks))
    np.put_along_axis(taken, chosen, 1.0, axis=1)
    logits = np.concatenate(
        [
            _logits(taken[begin : begin + _AT_ONCE], count, total, squares, centre)
            for begin in range(0, len(taken), _AT_ONCE)
        ]
    )
    return Overfitting(float(np.mean(logits <= 0.0)), len(taken), blocks, logits)


def _logits(
    taken: FloatArray, count: FloatArray, total: FloatArray, squares: FloatArray, centre: FloatArray
) -> FloatArray:
    inside = _sharpes(taken, count, total, squares, centre)
    outside = _sharpes(1.0 - taken, count, total, squares, centre)
    best = outside[np.arange(len(taken)), np.argmax(inside, axis=1)][:, None]
    below = np.sum(outside < best, axis=1) + 0.5 * (np.sum(outside == best, axis=1) - 1)
    rank = (below + 1.0) / (outside.shape[1] + 1.0)
    return np.asarray(np.log(rank / (1.0 - rank)))


def _sharpes(
    taken: FloatArray, count: FloatArray, total: FloatArray, squares: FloatArray, centre: FloatArray
) -> FloatArray:
    """Sharpe ratio of each trial over the blocks that are taken, shape (splits, trials); 0 where it never moves."""
    rows = (taken @ count)[:, None]
    mean = taken @ total / rows
    variance = np.maximum((taken @ squares) / rows - mean**2, 0.0) * rows / (rows - 1.0)
    found = np.zeros_like(mean)
    np.divide(mean + centre, np.sqrt(variance), out=found, where=variance > 1e-24)
    return found
