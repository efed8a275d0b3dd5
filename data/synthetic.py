"""A simulated market with known regimes: what the default backtest runs on, and what detection is scored against.

Direction and volatility switch as two Markov chains. Returns are Student-t around the direction's drift; volatility
follows its state with a smooth daily season. All of it comes from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.bars import Bars, BarSize, FloatArray

DIRECTIONS = ("SIDEWAYS", "BULL", "BEAR")
VOLATILITIES = ("LOW", "HIGH")

START_NS = 1_704_067_200_000_000_000
"""2024-01-01T00:00:00Z, when the first bar opens."""

_STEPS_PER_BAR = 8


@dataclass(frozen=True)
class SyntheticConfig:
    """A regime-switching market. Drift is in standard deviations of a bar, volatility per bar."""

    bars: int = 8_000
    bar_seconds: int = 3600
    seed: int = 7
    start_price: float = 40_000.0
    volatility_low: float = 0.0030
    volatility_high: float = 0.0075
    drift: float = 0.12
    mean_direction_bars: float = 250.0
    mean_low_volatility_bars: float = 400.0
    mean_high_volatility_bars: float = 150.0
    degrees_of_freedom: float = 5.0
    daily_season: float = 0.25
    price_decimals: int = 2
    volume_decimals: int = 5


@dataclass(frozen=True)
class SyntheticMarket:
    """Bars and the true regime of each: names out of DIRECTIONS and VOLATILITIES, one per bar."""

    bars: Bars
    direction: NDArray[np.str_]
    volatility: NDArray[np.str_]


def simulate(config: SyntheticConfig) -> SyntheticMarket:
    """Simulate a market. Equal configurations give equal bars, and more bars only add to the end of fewer."""
    # One stream of random numbers for each purpose: how far one is drawn does not move the others.
    streams = [np.random.default_rng([config.seed, purpose]) for purpose in range(7)]
    size = BarSize(config.bar_seconds)
    direction = _chain(streams[0], streams[1], config.bars, [config.mean_direction_bars] * len(DIRECTIONS))
    mean_stays = [config.mean_low_volatility_bars, config.mean_high_volatility_bars]
    turbulent = _chain(streams[2], streams[3], config.bars, mean_stays)
    ts_close = START_NS + size.nanos * np.arange(1, config.bars + 1, dtype=np.int64)

    hour = (ts_close // 1_000_000_000 % 86_400) / 3600.0
    season = np.exp(config.daily_season * np.sin(2 * np.pi * (hour - 9.0) / 24.0))
    scale = np.where(turbulent == 1, config.volatility_high, config.volatility_low) * season
    drift = np.array([0.0, config.drift, -config.drift])[direction]
    nu = config.degrees_of_freedom
    shock = streams[4].standard_t(nu, size=config.bars) * np.sqrt((nu - 2.0) / nu)
    returns = scale * (drift + shock)

    log_close = np.log(config.start_price) + np.cumsum(returns)
    log_open = np.concatenate([[np.log(config.start_price)], log_close[:-1]])
    # A Brownian bridge between open and close gives high and low the spread that such a bar has.
    steps = streams[5].standard_normal((config.bars, _STEPS_PER_BAR)) * (scale / np.sqrt(_STEPS_PER_BAR))[:, None]
    walk = np.cumsum(steps, axis=1)
    fraction = np.arange(1, _STEPS_PER_BAR + 1) / _STEPS_PER_BAR
    path = log_open[:, None] + returns[:, None] * fraction + walk - walk[:, -1:] * fraction
    close, opened = np.exp(log_close), np.exp(log_open)
    high = np.maximum(np.exp(path.max(axis=1)), np.maximum(opened, close))
    low = np.minimum(np.exp(path.min(axis=1)), np.minimum(opened, close))
    activity = np.exp(0.5 * streams[6].standard_normal(config.bars)) * (0.5 + np.abs(shock))
    volume = 900.0 * activity * scale / config.volatility_low

    def to_tick(values: FloatArray) -> FloatArray:
        return np.maximum(np.round(values, config.price_decimals), 10.0**-config.price_decimals)

    bars = Bars(
        ts_close, to_tick(opened), to_tick(high), to_tick(low), to_tick(close),
        np.round(volume, config.volume_decimals),
    )  # fmt: skip
    return SyntheticMarket(bars, np.array(DIRECTIONS)[direction], np.array(VOLATILITIES)[turbulent])


def _chain(
    leaving: np.random.Generator, jumping: np.random.Generator, bars: int, mean_stay_bars: list[float]
) -> NDArray[np.int64]:
    """A Markov chain that starts in state 0 and leaves each state for any other with equal probability."""
    states = len(mean_stay_bars)
    leave = leaving.random(bars)
    jump = jumping.integers(1, states, size=bars)
    out = np.empty(bars, dtype=np.int64)
    state = 0
    for bar in range(bars):
        out[bar] = state
        if leave[bar] < 1.0 / mean_stay_bars[state]:
            state = (state + int(jump[bar])) % states
    return out
