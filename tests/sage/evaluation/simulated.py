"""Returns whose law is known, and markets made of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.bars import Bars, BarSize
from data.catalog import rounded, to_nautilus
from data.market import Market, synthetic_market
from data.synthetic import START_NS, SyntheticConfig
from regime.forecast import FloatArray
from sage.evaluation.garch import Gjr
from sage.evaluation.settings import EvaluationConfig

TRUE = Gjr(mean=0.0, omega=2e-7, alpha=0.05, gamma=0.08, beta=0.88)

SMALL = EvaluationConfig(
    forecasts=2_000, context_bars=128, horizon_bars=4, warm_up_bars=600, window_bars=800, refit_bars=500,
    replications=100,
)  # fmt: skip
"""An evaluation of a second or so."""


def gjr_returns(bars: int, seed: int, parameters: Gjr = TRUE) -> FloatArray:
    """Returns of a GJR-GARCH(1,1) with unit-variance Student-t(6) innovations."""
    shocks = np.random.default_rng(seed).standard_t(6.0, bars) * np.sqrt(4.0 / 6.0)
    out = np.empty(bars)
    variance = parameters.omega / (1.0 - parameters.persistence)
    for bar in range(bars):
        out[bar] = surprise = np.sqrt(variance) * shocks[bar]
        news = parameters.alpha + parameters.gamma * (surprise < 0.0)
        variance = parameters.omega + news * surprise**2 + parameters.beta * variance
    return out + parameters.mean


def bars_of(returns: FloatArray, seconds: int = 3600) -> Bars:
    """Bars whose closes have these log returns, the first against an open of 100."""
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]])
    stamps = START_NS + BarSize(seconds).nanos * np.arange(1, len(close) + 1, dtype=np.int64)
    return Bars(stamps, opened, np.maximum(opened, close), np.minimum(opened, close), close, np.ones(len(close)))


def market_of(bars: Bars, seconds: int = 3600) -> Market:
    """A market of these bars, under the simulated market's instrument."""
    instrument = synthetic_market(SyntheticConfig(bars=2)).instrument
    size = BarSize(seconds)
    kind = synthetic_market(SyntheticConfig(bars=2)).kind
    kept = rounded(bars, instrument)
    return Market("simulated", instrument, kind, size, kept, to_nautilus(kept, instrument, size))


def without(bars: Bars, start: int, end: int) -> Bars:
    """The bars but for those from ``start`` to ``end``: a gap."""
    keep = np.ones(len(bars), dtype=np.bool_)
    keep[start:end] = False
    return bars[keep]


def changed_after(bars: Bars, last_kept: int, seed: int) -> Bars:
    """Other prices after a bar, at the same times."""
    rng = np.random.default_rng(seed)
    factor = np.ones(len(bars))
    factor[last_kept + 1 :] = np.exp(rng.normal(0.0, 0.05, len(bars) - last_kept - 1))
    open_, close = bars.open * factor, bars.close * factor
    return dataclasses.replace(
        bars, open=open_, close=close, high=np.maximum(open_, close), low=np.minimum(open_, close)
    )
