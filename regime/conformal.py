"""Adaptive conformal inference: how many scales wide an interval must be to cover what it promises.

A score is an absolute forecast error over the forecast's own scale. The interval covers the past scores up to a level
that moves with each outcome: down when the interval missed, up when it did not.

Source: Gibbs and Candes (2021), "Adaptive Conformal Inference Under Distribution Shift", equation 2. Their proposition
4.1 bounds the share of misses whatever the scores are: after T outcomes it is within (max(a, 1 - a) + g) / (T g) of
the miscoverage, with the first level a and the step g. An outcome that comes d bars late lets the level overshoot by d
steps instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

REFRESH_SHARE = 0.05
"""Scores are put in order anew after this share of new ones: sorting is what costs time here."""


class AdaptiveConformal:
    """Several series of scores at once, a row each; all arrays below have a value for each row.

    ``levels`` are the miscoverages aimed at for now. They leave [0, 1] where they must: the interval is then unbounded
    or empty, which is what the bound on the share of misses rests on.

    Parameters
    ----------
    miscoverage
        Target share of outcomes outside the interval.
    step_sizes
        How far an outcome moves the level.
    window_scores
        The newest scores that count.
    """

    def __init__(self, miscoverage: float, step_sizes: Sequence[float] | FloatArray, window_scores: int) -> None:
        rows = len(step_sizes)
        self._miscoverage = miscoverage
        self._step_sizes = np.array(step_sizes)
        self._every = max(1, round(REFRESH_SHARE * window_scores))
        self._rows = np.arange(rows)
        # An outcome can move a level out of [0, 1] by the steps that were on their way, and no further.
        self._reach = 0.5 + self._step_sizes * (rows + 1)
        self.levels = np.full(rows, miscoverage)
        self.counts = np.zeros(rows, dtype=np.int64)
        # Infinity stands where there is no score yet, and goes to the end when they are put in order.
        self._scores = np.full((rows, window_scores), np.inf)
        self._next = np.zeros(rows, dtype=np.int64)
        self._ordered = np.full((rows, window_scores), np.inf)
        self._ordered_counts = np.zeros(rows, dtype=np.int64)
        self._observed = 0

    @property
    def is_sound(self) -> bool:
        """False where what is remembered cannot have come of scores."""
        finite = int(np.isfinite(self._scores).sum()) == int(self.counts.sum())
        return finite and bool((np.abs(self.levels - 0.5) <= self._reach).all())

    def factors(self) -> FloatArray:
        """The conformal quantile of the scores at 1 - level, with the finite-sample correction.

        Where more scores would be needed for the level, the largest one stands in. Infinity (everything is covered)
        for levels of 0 and below and where there are no scores, minus infinity (nothing is) for 1 and above.
        """
        counts = self._ordered_counts
        ranks = np.minimum(np.ceil((1.0 - self.levels) * (counts + 1)).astype(np.int64), counts)
        found = self._ordered[self._rows, np.maximum(ranks, 1) - 1]
        return np.where(self.levels <= 0.0, np.inf, np.where(self.levels >= 1.0, -np.inf, found))

    def observe(self, scores: FloatArray, missed: FloatArray) -> None:
        """Take in matured scores (NaN for none) and whether each outcome was missed (NaN where nothing was claimed)."""
        present = np.flatnonzero(np.isfinite(scores))
        if not len(present):
            return
        window = self._scores.shape[1]
        self._scores[present, self._next[present]] = scores[present]
        self._next[present] = (self._next[present] + 1) % window
        self.counts[present] = np.minimum(self.counts[present] + 1, window)
        self.levels += np.where(np.isnan(missed), 0.0, self._step_sizes * (self._miscoverage - missed))
        self._observed += 1
        if self._observed % max(1, min(self._every, int(REFRESH_SHARE * self.counts.min()))) == 0:
            held = int(self.counts.max())
            self._ordered[:, :held] = np.sort(self._scores[:, :held], axis=1)
            self._ordered_counts[:] = self.counts
