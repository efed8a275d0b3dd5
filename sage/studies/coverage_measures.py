"""What is measured of intervals: coverage on the whole and by group, and the Winkler score."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regime.signal import Level
from regime.window import FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

HOUR_BARS_MIN = 300
"""Hours of the day with fewer bars are not looked at: their coverage is chance."""

EX_POST_BARS = 10
STATIC_BARS = 1_000

_HOUR_NS = 3600 * 1_000_000_000


@dataclass(frozen=True)
class Walk:
    """What the detector said, a row for each accepted bar.

    ``lows`` and ``highs`` have shape (bars, horizon_bars + 1): intervals of the log return of each bar ahead and of
    all together, NaN for the steps in between where no calibrated level answered. ``returns`` are NaN at the first bar
    after a gap, ``volatility`` is EWMA(0.94) with the bar's own return, known when the intervals are said.
    """

    ts_ns: IntArray
    returns: FloatArray
    lows: FloatArray
    highs: FloatArray
    levels: IntArray
    volatility: FloatArray


def covered(walk: Walk, ahead: int) -> tuple[BoolArray, BoolArray]:
    """Whether each bar's interval for the bar ``ahead`` of it held (0: for the whole horizon), and where that is known.

    Both have shape (bars,). An interval without end holds nothing; one that spans a gap is not judged.
    """
    bars, horizon = len(walk.returns), walk.lows.shape[1] - 1
    row, steps = (horizon, horizon) if ahead == 0 else (ahead - 1, ahead)
    outcome = np.full(bars, np.nan)
    if bars > steps:
        if ahead == 0:
            # NaN, where there was a gap, stays in every sum that it is part of and in no other.
            windows = np.lib.stride_tricks.sliding_window_view(walk.returns[1:], steps)
            outcome[: bars - steps] = windows.sum(axis=1)
        else:
            whole = np.lib.stride_tricks.sliding_window_view(np.isfinite(walk.returns[1:]), steps).all(axis=1)
            outcome[: bars - steps] = np.where(whole, walk.returns[steps:], np.nan)
    low, high = walk.lows[:, row], walk.highs[:, row]
    bounded = np.isfinite(low) & np.isfinite(high)
    return bounded & (low <= outcome) & (outcome <= high), np.isfinite(outcome)


def winkler(outcomes: FloatArray, lows: FloatArray, highs: FloatArray, miscoverage: float) -> FloatArray:
    """Width, and 2 / miscoverage times what an outcome lies outside. Source: Winkler (1972)."""
    outside = np.maximum(lows - outcomes, 0.0) + np.maximum(outcomes - highs, 0.0)
    return np.asarray(highs - lows + 2.0 / miscoverage * outside)


def thirds(values: FloatArray) -> IntArray:
    """Which third of them each value belongs to, in order of size; none is ever empty."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks * 3 // len(values)


def ex_post_volatility(returns: FloatArray) -> FloatArray:
    """Mean absolute return of the bars around each, its own and those to come included."""
    sizes = np.nan_to_num(np.abs(returns))
    kernel = np.ones(2 * EX_POST_BARS + 1)
    return np.asarray(np.convolve(sizes, kernel, "same") / np.convolve(np.ones(len(sizes)), kernel, "same"))


def measures(walk: Walk, warm_up_bars: int, miscoverage: float, *, intraday: bool) -> dict[str, Any]:
    """Everything that is told of one series, plain enough for JSON."""
    held, known = covered(walk, 1)
    judged = known & (np.arange(len(known)) >= warm_up_bars - 1)
    at = np.flatnonzero(judged)
    inside = held[at]
    outcomes, volatility = walk.returns[at + 1], walk.volatility[at]
    lows, highs = walk.lows[at, 0], walk.highs[at, 0]
    scores = winkler(outcomes, lows, highs, miscoverage)
    half = static_quantile(walk, warm_up_bars, miscoverage) * volatility
    static = winkler(outcomes, -half, half, miscoverage)
    by_third, afterwards = thirds(volatility), thirds(ex_post_volatility(walk.returns)[at + 1])
    steps = walk.lows.shape[1] - 1
    return {
        "first_ts_ns": int(walk.ts_ns[at[0] + 1]),
        "last_ts_ns": int(walk.ts_ns[at[-1] + 1]),
        "judged": len(at),
        "coverage": float(inside.mean()),
        "unbounded": int((~np.isfinite(highs - lows)).sum()),
        "levels": {Level(level).name: count for level, count in sorted(Counter(walk.levels[at].tolist()).items())},
        "width": float(np.mean(highs - lows)),
        "winkler": float(scores.mean()),
        "static_winkler": float(static.mean()),
        "static_coverage": float((np.abs(outcomes) <= half).mean()),
        "thirds": [float(inside[by_third == third].mean()) for third in range(3)],
        "ex_post_thirds": [float(inside[afterwards == third].mean()) for third in range(3)],
        "hours": _by_hour(walk.ts_ns[at + 1], inside) if intraday else [],
        "steps": [_mean_from(walk, ahead, warm_up_bars) for ahead in range(1, steps + 1)],
        "horizon_coverage": _mean_from(walk, 0, warm_up_bars),
    }


def static_quantile(walk: Walk, warm_up_bars: int, miscoverage: float) -> float:
    """The quantile of absolute returns over EWMA volatility in the ``STATIC_BARS`` before the first bar judged."""
    begin = max(0, warm_up_bars - STATIC_BARS)
    ratios = np.abs(walk.returns[begin + 1 : warm_up_bars]) / np.maximum(
        walk.volatility[begin : warm_up_bars - 1], 1e-12
    )
    return float(np.quantile(ratios[np.isfinite(ratios)], 1.0 - miscoverage))


def _by_hour(ts_ns: IntArray, inside: BoolArray) -> list[tuple[int, int, float]]:
    """Hour of the day (UTC) in which a bar closes, bars, coverage."""
    # A bar that closes at the full hour belongs to the hour that ends there.
    hours = (ts_ns - 1) // _HOUR_NS % 24
    counts = np.bincount(hours, minlength=24)
    return [
        (hour, int(counts[hour]), float(inside[hours == hour].mean()))
        for hour in range(24)
        if counts[hour] >= HOUR_BARS_MIN
    ]


def _mean_from(walk: Walk, ahead: int, warm_up_bars: int) -> float:
    held, known = covered(walk, ahead)
    judged = held[warm_up_bars - 1 :][known[warm_up_bars - 1 :]]
    return float(judged.mean()) if len(judged) else math.nan
