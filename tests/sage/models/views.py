"""Bars to show to alphas, and votes bar by bar."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from data.bars import Bars
from data.synthetic import SyntheticConfig, simulate
from regime.window import BarInput
from sage.ensemble import Ensemble, EnsembleSettings
from sage.models.alpha import AlphaModel
from sage.weights import WeightsConfig
from tests.sage.test_sizing import signal

SETTINGS = EnsembleSettings(horizon_bars=16, fill_bars=1, trade_rate=lambda ts_ns: 6e-4, weights=WeightsConfig())


def market(bars: int, seed: int = 3) -> Bars:
    return simulate(SyntheticConfig(bars=bars, seed=seed)).bars


def scaled(bars: Bars, factor: float) -> Bars:
    return dataclasses.replace(
        bars, **{name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    )  # fmt: skip


def polled(alphas: list[AlphaModel], bars: Bars, settings: EnsembleSettings = SETTINGS) -> Ensemble:
    """An ensemble that has seen all bars, each with the same signal but for its time."""
    ensemble = Ensemble(alphas, settings, lambda: 0.0)
    told = signal()
    for row in zip(*(column.tolist() for column in bars.columns()), strict=True):
        ensemble.step(BarInput(*row), dataclasses.replace(told, ts_event=row[0]))
    return ensemble


def votes(alphas: list[AlphaModel], bars: Bars) -> NDArray[np.float64]:
    """Shape (bars, alphas), NaN where an alpha had too few bars."""
    return np.array([poll.votes for poll in polled(alphas, bars).polls])
