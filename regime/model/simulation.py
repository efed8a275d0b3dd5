"""Simulated series on which the compact checkpoint is trained: returns, and what else is asked of a forecaster.

Three families of returns, mixed in equal parts, then dressed as real bars are: seasonality within a day or week
(`regime.model.seasons`), a little serial correlation, stretches without trading, and prices rounded to a tick. Some
are then turned into absolute returns or into prices.

Sources: GJR-GARCH, Glosten, Jagannathan and Runkle (1993); stochastic volatility with leverage, Taylor
(1986) and Harvey and Shephard (1996); Markov switching, Hamilton (1989). No real series is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regime.model.seasons import seasonality

FloatArray = NDArray[np.float64]

BURN_IN_BARS = 200

RECIPE = {
    "families": ["GJR-GARCH(1,1)-t", "stochastic volatility with leverage-t", "Markov switching (2 or 3 states)-t"],
    "share_each": "1/3",
    "seasonality": "70 % of series, periods 3 to 288 bars; harmonics, slots, spikes or sessions; 20 % with weekdays",
    "serial_correlation": "40 % of series, AR(1) coefficient from -0.2 to 0.1",
    "tick_rounding": "50 % of series, tick from 0.01 to 1 standard deviation of a bar",
    "idle_bars": "15 % of series, up to 30 % of bars without a trade",
    "degrees_of_freedom": "3 to 30",
    "left_truncation": "40 % of series",
    "kinds": "86 % returns, 7 % absolute returns, 7 % log prices",
    "contiguous_patch_masking": "half of the series, spans of 1 to 3 patches, up to 25 % of patches",
}

_ABSOLUTE_SHARE, _PRICE_SHARE = 0.07, 0.07


def simulate_returns(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    """Simulate ``count`` log-return series of ``bars`` bars each; shape (count, bars), any scale."""
    family = rng.integers(0, 3, size=count)
    total = bars + BURN_IN_BARS
    returns = np.empty((count, total))
    for index, simulate in enumerate((_gjr_garch, _stochastic_volatility, _markov_switching)):
        chosen = family == index
        if chosen.any():
            returns[chosen] = simulate(rng, int(chosen.sum()), total)
    returns = returns[:, BURN_IN_BARS:]
    returns = returns / returns.std(axis=1, keepdims=True)
    returns *= seasonality(rng, count, bars)
    returns = _serial_correlation(rng, returns)
    returns = _rounded_to_ticks(rng, returns)
    return returns * np.exp(rng.uniform(np.log(1e-4), np.log(3e-2), size=(count, 1)))


def simulate_series(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    """Series of all kinds: returns, absolute returns and log prices; shape (count, bars)."""
    series = simulate_returns(rng, count, bars)
    kind = rng.random(count)
    absolute, price = kind < _ABSOLUTE_SHARE, kind > 1.0 - _PRICE_SHARE
    series[absolute] = np.abs(series[absolute])
    series[price] = np.cumsum(series[price], axis=1)
    return series


def mask_patches(rng: np.random.Generator, count: int, patches: int) -> NDArray[np.bool_]:
    """Which patches a model is not shown, shape (count, patches); spans, as a forecast over several patches meets them.

    Contiguous patch masking (Auer et al., 2025, arXiv 2505.23719). The first two patches are always shown.
    """
    hidden = np.zeros((count, patches), dtype=bool)
    spans = np.where(rng.random(count) < 0.5, rng.integers(1, max(2, patches // 10), size=count), 0)
    for row, number in enumerate(spans):
        for _ in range(number):
            length = int(rng.integers(1, 4))
            first = int(rng.integers(2, max(3, patches - length + 1)))
            hidden[row, first : first + length] = True
    return hidden


def truncate_left(rng: np.random.Generator, returns: FloatArray, patch: int, max_patches: int) -> NDArray[np.int64]:
    """Blank the beginning of 40 % of the series with NaN, in place; returns the first whole patch left."""
    count = returns.shape[0]
    first = np.where(rng.random(count) < 0.4, rng.integers(0, max_patches * patch, size=count), 0)
    for row, bars in enumerate(first):
        returns[row, :bars] = np.nan
    return -(-first // patch)


def _student_t(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    """Student-t noise with unit variance, one number of degrees of freedom per series."""
    nu = np.exp(rng.uniform(np.log(3.0), np.log(30.0), size=(count, 1)))
    noise = rng.standard_normal((count, bars)) / np.sqrt(rng.chisquare(nu, size=(count, bars)) / nu)
    return noise * np.sqrt((nu - 2.0) / nu)


def _drift(rng: np.random.Generator, count: int) -> FloatArray:
    return rng.normal(0.0, 0.03, size=(count, 1))


def _gjr_garch(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    alpha = rng.uniform(0.01, 0.15, size=count)
    gamma = rng.uniform(0.0, 0.15, size=count) * (rng.random(count) < 0.6)
    persistence = 1.0 - np.exp(rng.uniform(np.log(0.002), np.log(0.15), size=count))
    beta = np.maximum(persistence - alpha - gamma / 2, 0.0)
    omega = 1.0 - np.minimum(alpha + beta + gamma / 2, 0.999)
    noise = _student_t(rng, count, bars)
    variance = np.ones(count)
    out = np.empty((count, bars))
    for bar in range(bars):
        out[:, bar] = np.sqrt(variance) * noise[:, bar]
        shock = out[:, bar] ** 2
        variance = omega + (alpha + gamma * (out[:, bar] < 0)) * shock + beta * variance
        np.minimum(variance, 400.0, out=variance)
    return out + _drift(rng, count)


def _stochastic_volatility(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    phi = 1.0 - np.exp(rng.uniform(np.log(0.002), np.log(0.15), size=count))
    log_sd = rng.uniform(0.2, 0.9, size=count)
    step = log_sd * np.sqrt(1.0 - phi**2)
    leverage = rng.uniform(-0.7, 0.1, size=count)
    noise = _student_t(rng, count, bars)
    innovation = rng.standard_normal((count, bars))
    log_vol = np.zeros(count)
    out = np.empty((count, bars))
    for bar in range(bars):
        out[:, bar] = np.exp(log_vol) * noise[:, bar]
        kick = leverage * np.clip(noise[:, bar], -4.0, 4.0) + np.sqrt(1.0 - leverage**2) * innovation[:, bar]
        log_vol = phi * log_vol + step * kick
    return out + _drift(rng, count)


def _markov_switching(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    states = 3
    volatility = np.exp(rng.uniform(0.0, 1.6, size=(count, states)))
    volatility[:, 0] = 1.0
    drift = rng.normal(0.0, 0.08, size=(count, states)) * volatility
    stay = 1.0 - np.exp(rng.uniform(np.log(0.002), np.log(0.05), size=(count, states)))
    two_states = rng.random(count) < 0.5
    noise = _student_t(rng, count, bars)
    leaving = rng.random((count, bars))
    jump = rng.integers(1, states, size=(count, bars))
    state = rng.integers(0, 2, size=count)
    rows = np.arange(count)
    out = np.empty((count, bars))
    for bar in range(bars):
        out[:, bar] = drift[rows, state] + volatility[rows, state] * noise[:, bar]
        moved = np.where(two_states, 1 - np.minimum(state, 1), (state + jump[:, bar]) % states)
        state = np.where(leaving[:, bar] > stay[rows, state], moved, state)
    return out


def _serial_correlation(rng: np.random.Generator, returns: FloatArray) -> FloatArray:
    count = returns.shape[0]
    coefficient = rng.uniform(-0.2, 0.1, size=(count, 1)) * (rng.random((count, 1)) < 0.4)
    out = returns.copy()
    out[:, 1:] += coefficient * returns[:, :-1]
    return out


def _rounded_to_ticks(rng: np.random.Generator, returns: FloatArray) -> FloatArray:
    """Round the price path to a grid and hold it still in idle bars; returns keep their unit."""
    count, bars = returns.shape
    path = np.cumsum(returns, axis=1)
    idle_share = rng.uniform(0.0, 0.3, size=(count, 1)) * (rng.random((count, 1)) < 0.15)
    idle = rng.random((count, bars)) < idle_share
    idle[:, 0] = False
    last_traded = np.maximum.accumulate(np.where(idle, 0, np.arange(bars)[None, :]), axis=1)
    path = np.take_along_axis(path, last_traded, axis=1)
    scale = returns.std(axis=1, keepdims=True)
    tick = scale * np.exp(rng.uniform(np.log(0.01), 0.0, size=(count, 1)))
    rounded = np.where(rng.random((count, 1)) < 0.5, np.round(path / tick) * tick, path)
    return np.diff(rounded, axis=1, prepend=0.0)
