"""Figures come from our own books and add up."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.ledger import Fill, Ledger
from sage.results import balanced_accuracy, coverage, determinism_hash, round_trips, summary, tables
from sage.run import BacktestRun


@given(
    st.lists(
        st.tuples(st.sampled_from([-1, 1]), st.integers(1, 10**6), st.floats(0.01, 1e5), st.floats(0, 100)), max_size=40
    )
)
def test_equity_is_cash_plus_position_less_costs(raw: list[tuple[int, int, float, float]]) -> None:
    ledger = Ledger(1_000.0)
    for side, quantity, price, commission in raw:
        ledger.book(Fill(0, "x", side, quantity / 1000, price, commission))
    spent = sum(side * quantity / 1000 * price for side, quantity, price, _ in raw)
    position = sum(side * quantity for side, quantity, _, _ in raw) / 1000
    assert ledger.position == pytest.approx(position, abs=1e-6)
    expected = 1_000.0 - spent - sum(commission for *_, commission in raw) + position * 7.0
    assert ledger.equity(7.0) == pytest.approx(expected, rel=1e-9, abs=1e-5)


def test_a_closed_position_leaves_no_dust() -> None:
    ledger = Ledger(0.0)
    for side, quantity in ((1, 0.1), (1, 0.2), (-1, 0.3)):
        ledger.book(Fill(0, "x", side, quantity, 1.0, 0.0))
    assert ledger.position == 0.0


def test_round_trips_run_from_flat_to_flat() -> None:
    fills = [
        Fill(1, "a", 1, 2.0, 10.0, 0.1),
        Fill(2, "b", 1, 2.0, 12.0, 0.1),
        Fill(3, "c", -1, 4.0, 15.0, 0.2),
        Fill(4, "d", -1, 1.0, 15.0, 0.1),
    ]
    trips = round_trips(fills)
    assert list(trips["closed"]) == [True, False]
    assert list(trips["side"]) == [1, -1]
    assert trips["average_open"][0] == 11.0
    assert trips["realised_pnl"][0] == pytest.approx(4 * (15 - 11) - 0.4)
    assert math.isnan(trips["average_close"][1])


def test_balanced_accuracy_is_the_mean_recall() -> None:
    truth = np.array(["A"] * 8 + ["B"] * 2)
    assert balanced_accuracy(truth, np.array(["A"] * 10)) == 0.5
    assert balanced_accuracy(truth, truth) == 1.0


def test_the_summary_has_every_promised_figure(short_run: BacktestRun) -> None:
    promised = {
        "bars", "signals", "rejected_bars", "levels", "regimes", "orders", "rejected_orders", "fills", "total_return",
        "sharpe", "max_drawdown", "turnover", "warm_up_bars", "buy_and_hold_return", "coverage", "latency_ms",
        "bars_per_second", "peak_rss_mb", "regime_accuracy", "determinism_hash",
    }  # fmt: skip
    figures = summary(short_run, tables(short_run))
    assert promised <= set(figures)
    assert set(figures["latency_ms"]) >= {"p50", "p99", "max", "source"}  # type: ignore[arg-type]
    assert set(figures["coverage"]) >= {"nominal", "realised"}  # type: ignore[arg-type]


def test_coverage_counts_what_came_true(short_run: BacktestRun) -> None:
    signals = tables(short_run).signals
    everything = signals.assign(interval_low=-10.0, interval_high=10.0)
    nothing = signals.assign(interval_low=9.0, interval_high=10.0)
    unbounded = signals.assign(interval_low=-math.inf, interval_high=math.inf)
    assert coverage(short_run, everything)["realised_all_levels"] == 1.0
    assert coverage(short_run, nothing)["realised"] == 0.0
    assert coverage(short_run, unbounded)["realised_all_levels"] == 0.0


def test_our_books_agree_with_nautilus(short_run: BacktestRun) -> None:
    figures = summary(short_run, tables(short_run))
    assert short_run.ledger.fills
    # NT rounds every commission to the currency's decimals.
    assert figures["final_equity"] == pytest.approx(short_run.nautilus_equity, abs=1e-4)


def test_the_hash_moves_with_signals_and_fills_and_with_nothing_else(short_run: BacktestRun) -> None:
    base = determinism_hash(tables(short_run))
    slower = dataclasses.replace(
        short_run, timings=[dataclasses.replace(timing, total_ms=9.0) for timing in short_run.timings]
    )
    assert determinism_hash(tables(slower)) == base
    signals = list(short_run.signals)
    signals[300] = dataclasses.replace(signals[300], confidence=math.nextafter(signals[300].confidence, 2.0))
    assert determinism_hash(tables(dataclasses.replace(short_run, signals=signals))) != base


def test_drawdown_counts_from_the_starting_cash(short_run: BacktestRun) -> None:
    ledger = Ledger(short_run.config.cash)
    ledger.book(Fill(short_run.signals[0].ts_event, "x", 1, 1e-9, 1.0, short_run.config.cash / 2))
    equity = tables(dataclasses.replace(short_run, ledger=ledger)).equity
    assert equity["drawdown"].min() == pytest.approx(-0.5, abs=1e-4)


def test_a_fill_at_the_last_close_is_in_the_final_equity(short_run: BacktestRun) -> None:
    last = short_run.signals[-1].ts_event
    ledger = Ledger(short_run.config.cash)
    ledger.book(Fill(last, "x", 1, 0.001, short_run.market.bars.close[-1], 123.0))
    run = dataclasses.replace(short_run, ledger=ledger)
    figures = summary(run, tables(run))
    assert figures["final_equity"] == pytest.approx(short_run.config.cash - 123.0)
    assert tables(run).equity["costs"].iloc[-1] == 123.0
    assert tables(run).equity["costs"].iloc[-2] == 0.0
