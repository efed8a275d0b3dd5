"""What positions would have earned at other times: the luck of a strategy whose signals know nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sage.performance import trading_days

FloatArray = NDArray[np.float64]

SHIFTS = 200
_SEED = 20_140


@dataclass(frozen=True)
class Moments:
    """Days, sum and sum of squares of daily returns, shape (1 + SHIFTS, 3); the first row is of the true times.

    Those of two windows add up, and their Sharpe ratio is that of all days.
    """

    sums: FloatArray

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.sums + other.sums)

    def sharpes(self) -> FloatArray:
        """Sharpe ratios of a day, shape (1 + SHIFTS,); 0 where returns never differ."""
        days, total, squares = self.sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / days
            variance = np.maximum(squares / days - mean**2, 0.0) * days / (days - 1.0)
            found = mean / np.sqrt(variance)
        return np.where(np.isfinite(found), found, 0.0)


def shuffled_moments(equity: pd.DataFrame, rate: Callable[[int], float], *, opens_on_sunday: bool) -> Moments:
    """Daily returns of a run's exposures, at their times and moved round the window by SHIFTS random shares of it.

    Moved as a whole, exposures keep their sizes, their runs and their turnover, and lose what they know of the bars
    they stand at. The shifts are the same shares for every run, so that all trials can be moved together. Returns are
    exposure times the market's, less ``rate`` (of value, at a time) for what is traded: an account without cash limits,
    for true and moved times alike.

    Parameters
    ----------
    equity
        Rows of a run's equity table, with ``ts_ns``, ``close`` and ``exposure``.
    rate
        What a trade costs of its value at a time, in nanoseconds.
    opens_on_sunday
        Whether the market does; see :func:`~sage.performance.trading_days`.
    """
    close, held = equity["close"].to_numpy(), equity["exposure"].to_numpy()
    stamps = equity["ts_ns"].to_numpy()
    if len(close) < 3:
        return Moments(np.zeros((1 + SHIFTS, 3)))
    market = close[1:] / close[:-1] - 1.0
    held = held[:-1]
    day = trading_days(stamps[1:], opens_on_sunday=opens_on_sunday)
    begins = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    cost = float(np.mean([rate(int(stamp)) for stamp in stamps[:: max(1, len(stamps) // 100)]]))
    shares = np.concatenate([[0.0], np.random.default_rng(_SEED).uniform(0.02, 0.98, SHIFTS)])
    sums = np.empty((1 + SHIFTS, 3))
    for row, share in enumerate(shares):
        # By a bar at least, and never all the way round: that would be the truth.
        moved = np.roll(held, min(max(1, int(share * len(held))), len(held) - 1) if share else 0)
        traded = np.abs(np.diff(moved, prepend=0.0))
        daily = np.add.reduceat(moved * market - cost * traded, begins)
        sums[row] = len(daily), daily.sum(), daily @ daily
    return Moments(sums)
