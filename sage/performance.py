"""What an equity curve is worth: daily Sharpe with its interval, drawdown, and the same trades at other costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CONFIDENCE = 0.95
REPLICATIONS = 2_000
MIN_DAYS = 30
"""Fewer daily returns than this bear no interval."""

COST_MULTIPLES = (0.0, 1.0, 2.0)

_DAY_NS = 86_400 * 1_000_000_000
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A block bootstrap's percentile interval; ``block`` is the length of its blocks in observations."""

    low: float
    high: float
    block: int
    observations: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "low": self.low, "high": self.high, "confidence": CONFIDENCE, "block_days": self.block,
            "days": self.observations,
        }  # fmt: skip


def trading_days(ts_ns: IntArray, *, opens_on_sunday: bool) -> IntArray:
    """The day since the epoch, in UTC, for which each bar counts; shape as ``ts_ns``, the bars' closes.

    A bar that closes at midnight belongs to the day it ends. With ``opens_on_sunday`` a bar of the weekend counts for
    Monday: the week of FX begins on Sunday evening and has five days, not six.
    """
    day: IntArray = (ts_ns - 1) // _DAY_NS
    if not opens_on_sunday:
        return day
    weekday = (day + 3) % 7  # from Monday on; the epoch was a Thursday
    return day + np.where(weekday >= 5, 7 - weekday, 0)


def daily_returns(ts_ns: IntArray, equity: FloatArray, cash: float, *, opens_on_sunday: bool) -> FloatArray:
    """Returns from one day's last equity to the next one's, beginning with ``cash``; shape (days,).

    Days are those of :func:`trading_days`. After an equity of nothing there are no returns.
    """
    if len(equity) == 0:
        return np.empty(0)
    day = trading_days(ts_ns, opens_on_sunday=opens_on_sunday)
    daily = np.concatenate([[cash], equity[np.flatnonzero(np.diff(day, append=day[-1] + 1))]])
    ruined = np.flatnonzero(daily <= 0)
    if len(ruined):
        daily = np.append(daily[: ruined[0]], 0.0)
    return np.asarray(np.diff(daily) / daily[:-1])


def sharpe(returns: FloatArray, days_per_year: float) -> float | None:
    """Annualised Sharpe ratio of daily returns without a risk-free rate; None where they never differ."""
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    return float(returns.mean()) / deviation * math.sqrt(days_per_year) if deviation > 0 else None


def sharpe_interval(returns: FloatArray, days_per_year: float, seed: int) -> Interval | None:
    """Circular block bootstrap interval of the Sharpe ratio (Politis and Romano, 1992; Ledoit and Wolf, 2008).

    Days are drawn in blocks of :func:`block_days`, for returns and above all their squares depend on those before.
    None where there are fewer than MIN_DAYS returns, or they never differ.
    """
    if len(returns) < MIN_DAYS or sharpe(returns, days_per_year) is None:
        return None
    drawn = np.concatenate([_sharpes(returns[rows], days_per_year) for rows in resampled_rows(returns, seed)])
    return _percentiles(drawn, returns)


def sharpe_difference_interval(
    returns: FloatArray, others: FloatArray, days_per_year: int, seed: int
) -> Interval | None:
    """The same for the difference of two Sharpe ratios, from days of both drawn together; shapes (days,)."""
    if len(returns) < MIN_DAYS or None in (sharpe(returns, days_per_year), sharpe(others, days_per_year)):
        return None
    drawn = []
    for rows in resampled_rows(returns - others, seed):
        one, other = (_sharpes(values[rows], days_per_year) for values in (returns, others))
        neither = np.isnan(one) & np.isnan(other)
        drawn.append(np.where(neither, np.nan, np.nan_to_num(one) - np.nan_to_num(other)))
    return _percentiles(np.concatenate(drawn), returns - others)


def drawdown_interval(returns: FloatArray, seed: int) -> Interval | None:
    """The same for the deepest drawdown, from days put together in another order.

    Blocks are of :func:`block_days`. A longer run has deeper drawdowns: the interval is of a run as long as this one.
    """
    if len(returns) < MIN_DAYS or not float(returns.std()) > 0:
        return None
    found = []
    for rows in resampled_rows(returns, seed):
        worth = np.cumprod(1.0 + returns[rows], axis=1)
        peak = np.maximum(np.maximum.accumulate(worth, axis=1), 1.0)
        found.append((worth / peak - 1.0).min(axis=1))
    return _percentiles(np.concatenate(found), returns)


def resampled_rows(returns: FloatArray, seed: int) -> list[IntArray]:
    """Rows of a circular block bootstrap's samples, several arrays of shape (some replications, days)."""
    days, block = len(returns), block_days(returns)
    rng = np.random.default_rng(seed)
    blocks = math.ceil(days / block)
    batch = max(1, _DRAWN_AT_ONCE // days)
    samples = []
    for begun in range(0, REPLICATIONS, batch):
        count = min(batch, REPLICATIONS - begun)
        starts = rng.integers(0, days, size=(count, blocks, 1))
        rows = ((starts + np.arange(block)) % days).reshape(count, -1)[:, :days]
        samples.append(rows)
    return samples


def block_days(returns: FloatArray) -> int:
    """Days of a bootstrap's block: what Politis and White's rule asks for the returns or their squares, the longer one.

    A tenth of the days at most: fewer blocks than ten would be no bootstrap.
    """
    wanted = max(politis_white(returns), politis_white(returns**2))
    return int(np.clip(math.ceil(wanted), 1, max(1, len(returns) // 10)))


def politis_white(values: FloatArray) -> float:
    """Optimal block length of the circular bootstrap by Politis and White (2004), as corrected in 2009.

    The autocovariances that count reach to twice the lag where a run of insignificant ones begins; a flat-top window
    weighs them.
    """
    rows = len(values)
    centred = values - values.mean()
    if rows < 10 or not float(centred @ centred) > 0:
        return 1.0
    run = max(5, int(math.log10(rows)))
    most = math.ceil(math.sqrt(rows)) + run
    covariance = np.array(
        [centred[lag:] @ centred[: rows - lag] / rows for lag in range(min(most + run, rows - 1) + 1)]
    )
    small = np.abs(covariance[1:] / covariance[0]) < 2.0 * math.sqrt(math.log10(rows) / rows)
    runs = np.lib.stride_tricks.sliding_window_view(small, run).all(axis=1) if len(small) >= run else np.zeros(1, bool)
    last = int(np.argmax(runs)) + 1 if runs.any() else most
    lags = np.arange(1, min(2 * last, most, len(covariance) - 1) + 1)
    weight = np.minimum(1.0, 2.0 * (1.0 - lags / lags[-1]))
    spread = 2.0 * float(weight @ (lags * covariance[lags]))
    variance = float(covariance[0] + 2.0 * weight @ covariance[lags])
    if variance == 0:
        return 1.0
    longest = math.ceil(min(3.0 * math.sqrt(rows), rows / 3.0))
    return float(min((1.5 * (spread / variance) ** 2 * rows) ** (1 / 3), longest))


def _sharpes(samples: FloatArray, days_per_year: float) -> FloatArray:
    deviation = samples.std(axis=1, ddof=1)
    found = np.full(len(samples), np.nan)
    np.divide(samples.mean(axis=1), deviation, out=found, where=deviation > 0)
    return found * math.sqrt(days_per_year)


def _percentiles(drawn: FloatArray, returns: FloatArray) -> Interval | None:
    known = np.isfinite(drawn)
    if known.mean() < 0.5:
        return None  # a few days of trading: most samples hold none of them
    # What holds none of them has earned nothing. Left out, those would be left that hold the one good day.
    low, high = np.quantile(np.where(known, drawn, 0.0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), block_days(returns), len(returns))


def until_ruin(equity: FloatArray) -> FloatArray:
    """The equity with nothing from the first time on that there was none: no broker lets a dead account trade on."""
    ruined = np.flatnonzero(equity <= 0)
    if not len(ruined):
        return equity
    return np.concatenate([equity[: ruined[0]], np.zeros(len(equity) - ruined[0])])


def max_drawdown(equity: FloatArray, cash: float) -> float:
    """The deepest fall below an earlier height, as a share of it, zero or negative; ``cash`` is the first height."""
    if len(equity) == 0:
        return 0.0
    peak = np.maximum.accumulate(np.concatenate([[cash], equity]))[1:]
    return float((equity / peak - 1.0).min())


def at_multiple(equity: FloatArray, costs: FloatArray, multiple: float) -> FloatArray:
    """The equity of the very same trades, had they cost ``multiple`` times as much; ``costs`` is what was paid so far.

    Not another backtest: sizes would have differed, and a strategy that knew of its costs might have traded less.
    """
    return np.asarray(equity + (1.0 - multiple) * costs)


@dataclass(frozen=True)
class BreakEven:
    """``bps`` a trade at which the total return would be nothing; None where there is no such figure, ``told`` why."""

    bps: float | None
    told: str


def break_even(gain: float, trading_costs: float, traded: float, *, is_ruined: bool) -> BreakEven:
    """What a trade may cost, of its value and all in, before the same trades earn nothing.

    ``gain`` is what they earned. ``trading_costs`` is what was charged on fills and ``traded`` their value; what
    holding costs stays as it is.
    """
    if is_ruined:
        return BreakEven(None, "none: the account was ruined")
    if not traded > 0:
        return BreakEven(None, "none: nothing was traded")
    if gain + trading_costs < 0:
        return BreakEven(None, "none: the same trades lose without trading costs, too")
    bps = 1e4 * (gain + trading_costs) / traded
    return BreakEven(bps, f"{bps:.1f} bps a trade (charged: {1e4 * trading_costs / traded:.1f})")
