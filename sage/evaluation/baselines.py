"""What a forecaster has to beat: historical quantiles, EWMA, and GJR-GARCH(1,1)-t, each on past returns only.

Parameters, residual quantiles and seasons are estimated every ``refit_bars`` returns, counted from the warm-up on, so
that a forecast does not depend on where an evaluation begins or ends. In between, variances are filtered forward
bar by bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from data.errors import DataError
from regime.forecast import QUANTILE_LEVELS
from sage.evaluation.garch import PERSISTENCE_MAX, Gjr, fit_gjr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BURN_IN_BARS = 100
"""The first variances of a filter rest on its start more than on returns; their residuals are left out."""

_SEASON_WINDOWS = 5
"""A season is estimated from so many times the window: it changes slowly, and each slot has few bars."""

_SEASON_PRIOR_BARS = 10.0
"""A slot's level counts as if so many bars of average level had been seen in it."""

_CHUNK_ROWS = 256


@dataclass(frozen=True)
class Past:
    """Returns without their gaps, and what each forecast may know of them.

    Parameters
    ----------
    returns
        Log returns, shape (returns,).
    slots
        The place in the season of each, shape (returns,), or None where bars know no time of day. Times of bars to
        come are taken as known, as a calendar makes them.
    known
        Returns known to each forecast, shape (rows,), ascending: those from ``returns[known[row]]`` on are future.
    horizon_bars
        Bars to forecast.
    warm_up_bars, window_bars, refit_bars
        Returns before the first fit, those that a fit looks at, and those between two fits.
    """

    returns: FloatArray
    slots: IntArray | None
    known: IntArray
    horizon_bars: int
    warm_up_bars: int
    window_bars: int
    refit_bars: int

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """Rows that share a fit, and the number of returns that it may look at."""
        fitted_at = self.known - (self.known - self.warm_up_bars) % self.refit_bars
        starts = np.flatnonzero(np.diff(fitted_at, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(fitted_at)], strict=True):
            yield slice(int(start), int(end)), int(fitted_at[start])


@dataclass
class Forecasts:
    """Quantiles of shape (rows, horizon_bars, 9) and variances of shape (rows, horizon_bars), of log returns.

    ``refits`` counts the fits, ``failures`` says what went wrong with those whose parameters are an earlier one's.
    """

    quantiles: FloatArray
    variance: FloatArray
    refits: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, past: Past) -> Forecasts:
        """Room for all rows, to be filled."""
        shape = (len(past.known), past.horizon_bars)
        return cls(np.full((*shape, len(QUANTILE_LEVELS)), np.nan), np.full(shape, np.nan))


class Baseline(Protocol):
    """A forecaster on past returns; ``advance`` hears of rows as they are done."""

    def __call__(self, past: Past, advance: Callable[[int], None], /) -> Forecasts:
        """Forecasts of all rows."""


def historical(past: Past, advance: Callable[[int], None]) -> Forecasts:
    """Unconditional quantiles of the last ``window_bars`` returns, taken anew at every bar."""
    out = Forecasts.empty(past)
    for begin in range(0, len(past.known), _CHUNK_ROWS):
        rows = slice(begin, begin + _CHUNK_ROWS)
        for width in np.unique(np.minimum(past.known[rows], past.window_bars)):
            chosen = np.flatnonzero(np.minimum(past.known[rows], past.window_bars) == width) + begin
            views = np.lib.stride_tricks.sliding_window_view(past.returns, width)[past.known[chosen] - width]
            out.quantiles[chosen] = np.quantile(views, QUANTILE_LEVELS, axis=1).T[:, None, :]
            out.variance[chosen] = (views * views).mean(axis=1)[:, None]
        advance(len(past.known[rows]))
    return out


def ewma(decay: float) -> Baseline:
    """RiskMetrics' (1996) moving variance, flat over the horizon, with quantiles of past standardised returns."""

    def forecast(past: Past, advance: Callable[[int], None]) -> Forecasts:
        out = Forecasts.empty(past)
        variances = ewma_variances(past.returns, decay)
        for rows, at in past.blocks():
            low = max(0, at - past.window_bars)
            # Prices that stand still for long would leave no variance to divide by.
            floor = 1e-6 * _moving_variance(past.returns[low:at])
            path = _Path(np.maximum(variances[low:], floor), mean=0.0, long_run=0.0, persistence=1.0)
            _fill(out, rows, past.returns[low:], path, past.known[rows] - low, at - low)
            advance(rows.stop - rows.start)
        return out

    return forecast


def gjr_garch(past: Past, advance: Callable[[int], None]) -> Forecasts:
    """GJR-GARCH(1,1)-t: see :func:`_gjr`."""
    return _gjr(past, advance, None)


def diurnal_gjr_garch(past: Past, advance: Callable[[int], None]) -> Forecasts:
    """GJR-GARCH(1,1)-t of returns divided by their season, whose forecasts are multiplied by it again.

    Andersen and Bollerslev (1997) in its simplest form: the season is the mean absolute return of a slot of the day.
    """
    if past.slots is None:
        raise ValueError("bars without a time of day have no diurnal season")
    return _gjr(past, advance, past.slots)


def _gjr(past: Past, advance: Callable[[int], None], slots: IntArray | None) -> Forecasts:
    """Over several steps the variance returns to that of the window, with a persistence of 0.995 at most."""
    out = Forecasts.empty(past)
    parameters: Gjr | None = None
    for rows, at in past.blocks():
        low, end = max(0, at - past.window_bars), int(past.known[rows].max())
        season = None if slots is None else season_of(past, slots, at)
        returns = past.returns[low:end] if season is None else past.returns[low:end] / season[low:end]
        trained = returns[: at - low]
        long_run = _moving_variance(trained)
        fit = fit_gjr(trained, parameters)
        parameters = fit.parameters
        out.refits += 1
        if fit.failure:
            out.failures.append(fit.failure)
        path = _Path(
            parameters.variances(returns, long_run),
            mean=parameters.mean,
            long_run=long_run,
            persistence=min(parameters.persistence, PERSISTENCE_MAX),
        )
        _fill(out, rows, returns, path, past.known[rows] - low, at - low)
        if season is not None:
            ahead = season[past.known[rows, None] + np.arange(past.horizon_bars)]
            out.quantiles[rows] *= ahead[:, :, None]
            out.variance[rows] *= ahead * ahead
        advance(rows.stop - rows.start)
    return out


def ewma_variances(returns: FloatArray, decay: float) -> FloatArray:
    """``h[i+1] = decay * h[i] + (1 - decay) * r[i]**2`` from ``h[0] = r[0]**2``: shape (returns + 1,)."""
    start = returns[0] ** 2
    filtered, _ = lfilter([1.0 - decay], [1.0, -decay], returns * returns, zi=[decay * start])
    return np.concatenate([[start], filtered])


def season_of(past: Past, slots: IntArray, at: int) -> FloatArray:
    """The season's level of each bar, shape (returns,), as the first ``at`` returns show it; 1 on average."""
    seen = slice(max(0, at - _SEASON_WINDOWS * past.window_bars), at)
    size = np.abs(past.returns[seen])
    level, places = size.mean(), int(slots.max()) + 1
    counts = np.bincount(slots[seen], minlength=places)
    sums = np.bincount(slots[seen], weights=size, minlength=places)
    profile = (sums + _SEASON_PRIOR_BARS * level) / ((counts + _SEASON_PRIOR_BARS) * level)
    return np.asarray(profile[slots])


@dataclass(frozen=True)
class _Path:
    """One-step variances of a filter, entry i resting on i returns, and how they go on over several steps."""

    one_step: FloatArray
    mean: float
    long_run: float
    persistence: float

    def over(self, known: IntArray | slice, steps: int) -> FloatArray:
        """Variances of the next ``steps`` bars, shape (rows, steps)."""
        kept = self.persistence ** np.arange(steps)
        return np.asarray(self.long_run + kept * (self.one_step[known][:, None] - self.long_run))


def _fill(out: Forecasts, rows: slice, returns: FloatArray, path: _Path, known: IntArray, trained: int) -> None:
    """Quantiles are those of the residuals that the same forecasts left in the window, step by step (filtered
    historical simulation; Barone-Adesi, Giannopoulos and Vosper, 1999). ``known`` and ``trained`` count returns."""
    steps = out.quantiles.shape[1]
    begins = slice(_BURN_IN_BARS, trained - steps + 1)
    future = np.lib.stride_tricks.sliding_window_view(returns[:trained], steps)[begins]
    residuals = (future - path.mean) / np.sqrt(path.over(begins, steps))
    shape = np.quantile(residuals, QUANTILE_LEVELS, axis=0).T
    out.variance[rows] = path.over(known, steps)
    out.quantiles[rows] = path.mean + np.sqrt(out.variance[rows])[:, :, None] * shape


def _moving_variance(returns: FloatArray) -> float:
    variance = float(returns.var())
    if not variance > 0.0:
        raise DataError(f"the price does not move at all over {len(returns):,} bars; there is nothing to forecast")
    return variance


BASELINES: dict[str, Baseline] = {
    "GJR-GARCH-t": gjr_garch,
    "diurnal GJR-GARCH-t": diurnal_gjr_garch,
    "EWMA 0.94": ewma(0.94),
    "EWMA 0.97": ewma(0.97),
    "historical": historical,
}
"""By the names they go under. The diurnal one is for bars that know a time of day."""

GJR = "GJR-GARCH-t"
DIURNAL = "diurnal GJR-GARCH-t"
HISTORICAL = "historical"
