"""No order takes more than its share of a bar's volume, where that is known."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.instruments import Kind
from data.market import Market
from regime.signal import BarRejected, Level, Reason, Signal
from sage import rundir
from sage.backtest import run_backtest
from sage.liquidity import VolumeLimit
from sage.rig import Rig
from sage.run import BacktestRun
from sage.sizing import Move
from tests.sage.markets import market_of, without_model


def run_of(market: Market, rig: Rig | None = None, **costs: float | None) -> BacktestRun:
    return run_backtest(without_model(**costs), market=market, rig=rig)


def volume_at(run: BacktestRun, ts_ns: int) -> float:
    bars = run.market.bars
    return float(bars.volume[np.searchsorted(bars.ts_close_ns, ts_ns)])


@pytest.mark.parametrize("kind", [Kind.CRYPTO, Kind.PERPETUAL, Kind.EQUITY])
@pytest.mark.parametrize("share", [0.01, 0.10])
def test_orders_decided_at_a_bar_take_their_share_of_its_volume_at_most(kind: Kind, share: float) -> None:
    # Nothing like enough for the 100,000 that a run begins with.
    volume = np.random.default_rng(5).uniform(200.0, 5_000.0, size=400)
    run = run_of(market_of(kind, volume=volume), participation=share)
    together: dict[int, float] = {}
    for order in run.sent_orders:
        together[order.ts_ns] = together.get(order.ts_ns, 0.0) + abs(order.quantity)
    assert len(together) > 30
    for ts_ns, quantity in together.items():
        assert quantity <= share * volume_at(run, ts_ns) + 1e-9
    assert run.volume_limit.orders_cut > 10
    assert run.volume_limit.value_cut > 0
    assert not run.refused_orders


def test_what_was_cut_is_told_in_the_summary_and_the_report(tmp_path: Path) -> None:
    run = run_of(market_of(volume=500.0))
    rundir.write(run, tmp_path / "run")
    figures = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert figures["participation"] == 0.01
    assert figures["orders_cut"] == run.volume_limit.orders_cut > 0
    assert f"{figures['orders_cut']:,} decisions cut" in (tmp_path / "run" / "report.html").read_text()


def same_orders(one: BacktestRun, other: BacktestRun) -> bool:
    return [order.quantity for order in one.sent_orders] == [order.quantity for order in other.sent_orders]


def test_ticks_and_volumes_that_nobody_knows_limit_nothing() -> None:
    # A volume of 0 makes NT fill one tick worse, so runs are compared with others of their own volume.
    for kind, volume in ((Kind.FX, 3.0), (Kind.CRYPTO, 0.0)):
        market = market_of(kind, volume=volume)
        run = run_of(market)
        assert run.volume_limit.orders_cut == 0
        assert run.sent_orders
        assert same_orders(run, run_of(market, participation=0.0))


def test_a_share_of_nothing_sets_no_limit() -> None:
    run = run_of(market_of(volume=500.0), participation=0.0)
    assert run.volume_limit.orders_cut == 0
    assert max(abs(entry.exposure) for entry in run.book) > 0.3


def test_nothing_is_traded_at_a_bar_in_which_nothing_was_once_volume_is_known() -> None:
    volume = np.full(400, 1e9)
    volume[::2] = 0.0
    run = run_of(market_of(volume=volume))
    assert run.sent_orders
    assert all(volume_at(run, order.ts_ns) > 0 for order in run.sent_orders if order.ts_ns > run.signals[1].ts_event)


class Falling(Rig):
    """Lets the strategy hear of SMART answers up to a bar, and of poorer ones from then on."""

    def __init__(self, at: int, level: Level) -> None:
        self.at, self.level, self.seen = at, level, 0

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        self.seen += 1
        if self.seen < self.at or not isinstance(answer, Signal):
            return answer
        reasons = (*answer.reasons, *[Reason.TIMEOUT] * int(self.level))[: int(self.level)]
        return dataclasses.replace(answer, level=self.level, reasons=reasons)


@pytest.mark.parametrize(("level", "move"), [(Level.HISTORICAL, Move.FORCED), (Level.EMERGENCY, Move.FLATTEN)])
def test_a_forced_reduction_takes_as_many_bars_as_the_volume_asks_for_and_goes_on_to_its_end(
    level: Level, move: Move
) -> None:
    # Long before it grew, for lack of volume, so slowly that it is far beyond the poorer cap when the level falls.
    volume = np.full(400, 1e9)
    fall = next(
        number
        for number, entry in enumerate(run_of(market_of(volume=volume)).book, start=1)
        if number > 60 and abs(entry.exposure) > 0.4
    )
    volume[fall:] = 3_000.0
    run = run_of(market_of(volume=volume), rig=Falling(fall, level))
    forced = [order for order in run.sent_orders if order.move is move]
    assert len(forced) > 3
    sizes = [abs(order.exposure_after) for order in forced]
    assert sizes == sorted(sizes, reverse=True)
    assert all(order.reduce_only and abs(order.quantity) <= 30.0 for order in forced)
    # One order at a time: each waits for the one before it to fill, and no longer.
    assert {after.ts_ns - before.ts_ns for before, after in itertools.pairwise(forced)} == {2 * 3_600_000_000_000}
    end = abs(run.book[-1].exposure)
    assert end == 0.0 if level is Level.EMERGENCY else end <= 0.2 + run.config.sizing.rebalance_band / 2


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e9)), min_size=1, max_size=20), st.floats(0.001, 1.0))
def test_zero_says_nothing_before_another_volume_and_everything_after_it(volumes: list[float], share: float) -> None:
    limit = VolumeLimit(share)
    known = False
    for volume in volumes:
        known = known or volume > 0
        assert limit.at(volume) == (share * volume if known else None)
    assert VolumeLimit(0.0).at(volumes[0]) is None
