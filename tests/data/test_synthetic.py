"""The simulated market: reproducible, consistent, and as its configuration says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.bars import BarSize
from data.quality import check
from data.reading import RawBars
from data.synthetic import DIRECTIONS, START_NS, VOLATILITIES, Simulation, SyntheticConfig, SyntheticMarket, simulate


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return simulate(SyntheticConfig(bars=20_000))


def test_equal_seeds_give_equal_bars_and_others_do_not() -> None:
    config = SyntheticConfig(bars=200)
    assert simulate(config).bars.sha256() == simulate(config).bars.sha256()
    assert simulate(config).bars.sha256() != simulate(dataclasses.replace(config, seed=8)).bars.sha256()


def test_every_bar_has_its_labels(market: SyntheticMarket) -> None:
    assert len(market.bars) == len(market.direction) == len(market.volatility) == 20_000
    assert set(market.direction) == set(DIRECTIONS)
    assert set(market.volatility) == set(VOLATILITIES)


def test_no_bar_would_be_rejected(market: SyntheticMarket) -> None:
    bars, size = market.bars, BarSize(3600)
    raw = RawBars(
        path=Path("simulated"),
        layout="ohlcv",
        stamp="close",
        stamp_ns=bars.ts_close_ns,
        wall_ns=bars.ts_close_ns,
        values=dict(zip(("open", "high", "low", "close", "volume"), bars.columns()[1:], strict=True)),
        row=np.arange(len(bars)),
        original=pd.DataFrame(index=range(len(bars))),
        broken_rows=[],
        notes=[],
    )
    _, report, _ = check([raw], size)
    assert (report.rows_accepted, report.gaps.count) == (20_000, 0)


def test_the_first_bar_closes_one_bar_after_the_start(market: SyntheticMarket) -> None:
    assert market.bars.ts_close_ns[0] == START_NS + 3600 * 10**9


def test_each_bar_opens_where_the_last_one_closed(market: SyntheticMarket) -> None:
    assert (market.bars.open[1:] == market.bars.close[:-1]).all()


def test_prices_lie_on_the_tick(market: SyntheticMarket) -> None:
    assert (np.round(market.bars.close, 2) == market.bars.close).all()
    cheap = simulate(SyntheticConfig(bars=500, start_price=0.02, volatility_high=0.05, price_decimals=3)).bars
    assert cheap.low.min() >= 0.001


def test_regimes_differ_as_configured(market: SyntheticMarket) -> None:
    config = SyntheticConfig()
    returns = np.log(market.bars.close / market.bars.open)
    spread = {state: returns[market.volatility == state].std() for state in VOLATILITIES}
    drift = {state: returns[market.direction == state].mean() for state in DIRECTIONS}
    ratio = config.volatility_high / config.volatility_low
    assert spread["HIGH"] / spread["LOW"] == pytest.approx(ratio, rel=0.15)
    assert drift["BULL"] > 2e-4 > abs(drift["SIDEWAYS"])
    assert drift["BEAR"] < -2e-4


def test_regimes_last_as_long_as_configured(market: SyntheticMarket) -> None:
    changes = int((market.direction[1:] != market.direction[:-1]).sum())
    assert 20_000 / (changes + 1) == pytest.approx(SyntheticConfig().mean_direction_bars, rel=0.35)


def test_returns_have_heavy_tails() -> None:
    calm = SyntheticConfig(bars=20_000, volatility_high=0.003, daily_season=0.0, drift=0.0)
    returns = np.diff(np.log(simulate(calm).bars.close))
    standard = (returns - returns.mean()) / returns.std()
    assert (standard**4).mean() > 4.0


@settings(max_examples=20)
@given(parts=st.lists(st.integers(1, 120), min_size=1, max_size=5), seed=st.integers(0, 50))
def test_a_market_some_bars_at_a_time_is_the_same_market(parts: list[int], seed: int) -> None:
    config = SyntheticConfig(bars=sum(parts), seed=seed)
    whole, simulation = simulate(config), Simulation(config)
    found = [simulation.go_on(part) for part in parts]
    assert np.concatenate([one.direction for one in found]).tolist() == whole.direction.tolist()
    assert np.concatenate([one.volatility for one in found]).tolist() == whole.volatility.tolist()
    for number, column in enumerate(whole.bars.columns()):
        pieces = np.concatenate([one.bars.columns()[number] for one in found])
        assert pieces == pytest.approx(column, rel=1e-9, abs=0.011)
