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
    return Simulation(config).go_on(config.bars)


class Simulation:
    """A market that is simulated some bars at a time, so that no more of it need be held than is wanted.

    The same bars as at once, but for the rounding of a logarithm; ``config.bars`` is of no account.
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        # One stream of random numbers for each purpose: how far one is drawn does not move the others.
        self._streams = [np.random.default_rng([config.seed, purpose]) for purpose in range(7)]
        self._bars = 0
        self._log_price = float(np.log(config.start_price))
        self._direction = self._turbulence = 0

    def go_on(self, bars: int) -> SyntheticMarket:
        """So many bars more."""
        config, streams = self._config, self._streams
        size = BarSize(config.bar_seconds)
        stays = [config.mean_direction_bars] * len(DIRECTIONS)
        direction, self._direction = _chain(streams[0], streams[1], bars, stays, self._direction)
        stays = [config.mean_low_volatility_bars, config.mean_high_volatility_bars]
        turbulent, self._turbulence = _chain(streams[2], streams[3], bars, stays, self._turbulence)
        ts_close = START_NS + size.nanos * np.arange(self._bars + 1, self._bars + bars + 1, dtype=np.int64)

        hour = (ts_close // 1_000_000_000 % 86_400) / 3600.0
        season = np.exp(config.daily_season * np.sin(2 * np.pi * (hour - 9.0) / 24.0))
        scale = np.where(turbulent == 1, config.volatility_high, config.volatility_low) * season
        drift = np.array([0.0, config.drift, -config.drift])[direction]
        nu = config.degrees_of_freedom
        shock = streams[4].standard_t(nu, size=bars) * np.sqrt((nu - 2.0) / nu)
        returns = scale * (drift + shock)

        log_close = self._log_price + np.cumsum(returns)
        log_open = np.concatenate([[self._log_price], log_close[:-1]])
        # A Brownian bridge between open and close gives high and low the spread that such a bar has.
        steps = streams[5].standard_normal((bars, _STEPS_PER_BAR)) * (scale / np.sqrt(_STEPS_PER_BAR))[:, None]
        walk = np.cumsum(steps, axis=1)
        fraction = np.arange(1, _STEPS_PER_BAR + 1) / _STEPS_PER_BAR
        path = log_open[:, None] + returns[:, None] * fraction + walk - walk[:, -1:] * fraction
        close, opened = np.exp(log_close), np.exp(log_open)
        high = np.maximum(np.exp(path.max(axis=1)), np.maximum(opened, close))
        low = np.minimum(np.exp(path.min(axis=1)), np.minimum(opened, close))
        activity = np.exp(0.5 * streams[6].standard_normal(bars)) * (0.5 + np.abs(shock))
        volume = 900.0 * activity * scale / config.volatility_low
        self._bars += bars
        self._log_price = float(log_close[-1]) if bars else self._log_price

        def to_tick(values: FloatArray) -> FloatArray:
            return np.maximum(np.round(values, config.price_decimals), 10.0**-config.price_decimals)

        found = Bars(
            ts_close, to_tick(opened), to_tick(high), to_tick(low), to_tick(close),
            np.round(volume, config.volume_decimals),
        )  # fmt: skip
        return SyntheticMarket(found, np.array(DIRECTIONS)[direction], np.array(VOLATILITIES)[turbulent])


def _chain(
    leaving: np.random.Generator, jumping: np.random.Generator, bars: int, mean_stay_bars: list[float], state: int
) -> tuple[NDArray[np.int64], int]:
    """A Markov chain from a state on, which leaves each for any other with equal probability; and the next state."""
    states = len(mean_stay_bars)
    leave = leaving.random(bars)
    jump = jumping.integers(1, states, size=bars)
    out = np.empty(bars, dtype=np.int64)
    for bar in range(bars):
        out[bar] = state
        if leave[bar] < 1.0 / mean_stay_bars[state]:
            state = (state + int(jump[bar])) % states
    return out, state
