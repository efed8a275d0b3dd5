"""A forecaster of your own: the volatility of the last bars, fat-tailed, around a little of their drift.

    sage backtest --forecaster examples.own_forecaster:RecentVolatility

It takes TiRex's place: SAGE calibrates its quantiles, classifies them, trades on them and falls back without them. It
runs in a process of its own, so that it may hang or die without taking the run with it. It needs no base class.
"""

from __future__ import annotations

import numpy as np

# The quantiles 0.1 to 0.9 of Student's t with 5 degrees of freedom, scaled to a standard deviation of 1.
QUANTILES = np.array([-1.1432, -0.7123, -0.4333, -0.2070, 0.0, 0.2070, 0.4333, 0.7123, 1.1432])
DECAY = 0.94
SHRINKAGE = 0.2


class RecentVolatility:
    """Exponentially weighted volatility, the same for each bar of the horizon."""

    checkpoint_id = "recent-volatility-0.94"

    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> np.ndarray:  # noqa: ARG002
        """Quantiles of the log return of each bar to come, shape (rows, horizon_bars, 9).

        ``contexts`` holds log returns, shape (rows, context_bars), oldest first, NaN where there was no bar yet.
        """
        weights = DECAY ** np.arange(contexts.shape[1])[::-1]
        known = np.isfinite(contexts)
        returns = np.where(known, contexts, 0.0)
        total = (known * weights).sum(axis=1, keepdims=True)
        volatility = np.sqrt((returns**2 * weights).sum(axis=1, keepdims=True) / total)
        drift = SHRINKAGE * (returns * weights).sum(axis=1, keepdims=True) / total
        return np.tile((drift + volatility * QUANTILES)[:, None, :], (1, horizon_bars, 1))
