"""Volatility profiles that repeat within a day or a week, as simulated series wear them.

Four shapes, as trading days have them: a few harmonics (round-the-clock markets), a factor of its own for each slot,
one or two slots that tower above the rest (an opening that holds the overnight gap, a scheduled release), and sessions
of constant activity. Each is log-volatility over one period; the period fits 512 bars at least once.

Source of the stylised facts: Andersen and Bollerslev (1997), Intraday periodicity and volatility persistence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SEASONAL_SHARE = 0.7
WEEKLY_SHARE = 0.2
SHIFTED_SHARE = 0.15
MAX_PERIOD_BARS = 288

_COMMON_PERIODS_BARS = (5, 6, 7, 7, 8, 13, 14, 23, 24, 24, 24, 26, 39, 48, 48, 65, 78, 96, 120, 144, 168, 288)


def seasonality(rng: np.random.Generator, count: int, bars: int) -> FloatArray:
    """A positive factor on volatility per bar, shape (count, bars); all ones for the series without a season."""
    period = _periods(rng, count)
    profile = _profiles(rng, count, period)
    seasonal = rng.random((count, 1)) < SEASONAL_SHARE
    start = rng.integers(0, MAX_PERIOD_BARS, size=(count, 1))
    time = np.arange(bars)[None, :] + start
    # A holiday, a summer time: from one bar on, the clock of the profile is another.
    moved_at = np.where(rng.random((count, 1)) < SHIFTED_SHARE, rng.integers(0, bars, size=(count, 1)), bars)
    moved_by = rng.integers(1, 4, size=(count, 1))
    time = time + np.where(np.arange(bars)[None, :] >= moved_at, moved_by, 0)
    rows = np.arange(count)[:, None]
    log_factor = profile[rows, time % period[:, None]]
    weekdays = rng.normal(0.0, rng.uniform(0.05, 0.4, size=(count, 1)), size=(count, 7))
    week = np.where(rng.random((count, 1)) < 0.6, 5, 7)
    weekly = weekdays[rows, (time // period[:, None]) % week]
    log_factor += np.where(rng.random((count, 1)) < WEEKLY_SHARE, weekly, 0.0)
    return np.asarray(np.exp(np.where(seasonal, log_factor, 0.0)))


def _periods(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    common = rng.choice(_COMMON_PERIODS_BARS, size=count)
    any_other = np.exp(rng.uniform(np.log(3.0), np.log(160.0), size=count)).astype(np.int64)
    return np.asarray(np.where(rng.random(count) < 0.7, common, any_other), dtype=np.int64)


def _profiles(rng: np.random.Generator, count: int, period: NDArray[np.int64]) -> FloatArray:
    """Log-volatility by slot of the period, shape (count, MAX_PERIOD_BARS); slots past the period mean nothing."""
    shape = rng.integers(0, 4, size=(count, 1))
    phase = np.arange(MAX_PERIOD_BARS)[None, :] / period[:, None]
    return np.select(
        [shape == 0, shape == 1, shape == 2],
        [_harmonics(rng, phase), _slots(rng, phase), _spikes(rng, period)],
        _sessions(rng, phase),
    )


def _harmonics(rng: np.random.Generator, phase: FloatArray) -> FloatArray:
    count = len(phase)
    profile = np.zeros_like(phase)
    for harmonic in (1, 2, 3, 4):
        weight = rng.normal(size=(count, 1)) / harmonic
        profile += weight * np.sin(2 * np.pi * (harmonic * phase + rng.random((count, 1))))
    profile /= np.abs(profile).max(axis=1, keepdims=True)
    return np.asarray(profile * rng.uniform(0.1, 1.2, size=(count, 1)))


def _slots(rng: np.random.Generator, phase: FloatArray) -> FloatArray:
    return rng.normal(size=phase.shape) * rng.uniform(0.1, 0.6, size=(len(phase), 1))


def _spikes(rng: np.random.Generator, period: NDArray[np.int64]) -> FloatArray:
    """One or two slots at up to five times the volatility of the others, and often an echo of half the log height."""
    count = len(period)
    rows = np.arange(count)
    profile = rng.normal(size=(count, MAX_PERIOD_BARS)) * 0.1
    for share in (1.0, 0.4):
        there = rng.random(count) < share
        slot = rng.integers(0, period)
        height = np.where(there, rng.uniform(0.3, 1.6, size=count), 0.0)
        profile[rows, slot] += height
        profile[rows, (slot + 1) % period] += np.where(rng.random(count) < 0.5, height / 2, 0.0)
    return profile


def _sessions(rng: np.random.Generator, phase: FloatArray) -> FloatArray:
    """Two to four sessions of constant activity, with edges anywhere."""
    count = len(phase)
    edges = np.sort(rng.random((count, 3)), axis=1)
    edges[:, 2] = np.where(rng.random(count) < 0.5, edges[:, 2], 1.0)
    level = rng.normal(size=(count, 4)) * rng.uniform(0.2, 0.9, size=(count, 1))
    session = (phase[:, :, None] >= edges[:, None, :]).sum(axis=2)
    return np.asarray(np.take_along_axis(level, session, axis=1))
