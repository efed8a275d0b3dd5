"""What trading and holding cost in real runs, and what is said not to be modelled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.instruments import Kind
from data.spreads import HourlySpreads, hour_of
from regime.signal import Level
from sage.backtest import run_backtest
from sage.costs import Charge, CostRates
from sage.ledger import CarryRates, Fill, Ledger
from sage.results import summary, tables
from sage.run import BacktestRun
from tests.sage.markets import market_of, without_model


def trading_run(kind: Kind, **costs: float | None) -> BacktestRun:
    # These markets are thin; what they bear is another test's matter.
    return run_backtest(without_model(participation=0.0, **costs), market=market_of(kind))


def test_a_cost_that_is_not_configured_is_said_not_to_be_modelled() -> None:
    expected = {
        Kind.CRYPTO: ["slippage", "borrowing", "market impact"],
        Kind.PERPETUAL: ["slippage", "funding", "market impact"],
        Kind.FX: ["slippage", "overnight interest", "market impact"],
        Kind.EQUITY: ["slippage", "borrowing", "market impact"],
    }
    for kind, names in expected.items():
        rates = CostRates.of(without_model().costs, market_of(kind, 10), allow_short=True)
        lines = rates.lines(Ledger(1.0))
        assert [line.name for line in lines if line.charge is Charge.NOT_MODELLED] == names
        assert all(line.paid is None for line in lines if line.charge is not Charge.CHARGED)
    long_only = CostRates.of(without_model().costs, market_of(Kind.EQUITY, 10), allow_short=False)
    assert {line.name: line.charge for line in long_only.lines(Ledger(1.0))}["borrowing"] is Charge.NONE


def test_what_is_configured_is_charged_and_adds_up() -> None:
    run = trading_run(Kind.CRYPTO, slippage_bps=3.0, borrow_bps_year=400.0)
    figures = summary(run, tables(run))
    lines = figures["costs"]
    assert isinstance(lines, dict)
    paid = {name: line["paid"] for name, line in lines.items() if line["paid"] is not None}
    assert set(paid) == {"fee", "half-spread", "slippage", "borrowing"}
    assert paid["slippage"] == pytest.approx(run.ledger.traded_notional * 3e-4)
    assert paid["half-spread"] == pytest.approx(run.ledger.traded_notional * 1e-4, rel=1e-6)
    assert sum(paid.values()) == pytest.approx(figures["costs_paid"])
    assert paid["borrowing"] > 0
    assert figures["not_modelled"] == ["market impact"]


@pytest.mark.parametrize(
    ("kind", "costs"),
    [
        (Kind.PERPETUAL, {"funding_bps_8h": 5.0}),
        (Kind.PERPETUAL, {"funding_bps_8h": -5.0}),
        (Kind.EQUITY, {"borrow_bps_year": 900.0}),
    ],
)
def test_books_with_holding_costs_agree_with_nautilus_and_with_themselves(kind: Kind, costs: dict[str, float]) -> None:
    run = trading_run(kind, **costs)
    assert run.ledger.carries
    table = tables(run).equity
    final = table["equity"].iloc[-1]
    assert final == pytest.approx(run.ledger.equity(run.market.bars.close[-1]), abs=1e-6)
    # NT rounds every commission to the currency's decimals.
    assert final == pytest.approx(run.nautilus_equity, abs=0.005 * len(run.ledger.fills) + 1e-4)
    assert (table["funding"] + table["borrowing"]).iloc[-1] == pytest.approx(run.ledger.carried)
    # What a decision sees is what the table says, up to the fills at that close.
    decided = np.array([entry.equity for entry in run.book])
    assert decided == pytest.approx(table["equity"].to_numpy(), rel=2e-3)


def test_funding_follows_the_sign_of_the_position() -> None:
    run = trading_run(Kind.PERPETUAL, funding_bps_8h=5.0)
    table = tables(run).equity
    held, close = table["position"].to_numpy()[:-1], table["close"].to_numpy()[1:]
    expected = held * close * 5e-4 / 8.0
    assert (held > 0).any()
    assert (held < 0).any()
    assert np.diff(table["funding"].to_numpy()) == pytest.approx(expected)


def test_shorts_in_perpetuals_and_currencies_borrow_nothing() -> None:
    for kind in (Kind.PERPETUAL, Kind.FX):
        run = trading_run(kind, borrow_bps_year=900.0)
        assert tables(run).equity["position"].min() < 0
        assert not run.ledger.carries


@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.floats(1.0, 100.0), st.integers(-5, 5), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.floats(-1e-7, 1e-7),
    st.floats(0.0, 1e-7),
)
def test_holding_costs_are_those_of_each_stretch_of_time(
    steps: list[tuple[int, float, int, bool]], funding: float, borrowing: float
) -> None:
    ledger = Ledger(1_000.0, CarryRates(funding, borrowing))
    position, now, expected, last = 0.0, 10**18, 0.0, 10**18
    ledger.accrue(now, 1.0)
    for hours, price, side, looked in steps:
        now += hours * 3600 * 10**9
        if looked:
            # Looking at the books does not change what is owed.
            ledger.accrue(now, price)
        ledger.book(Fill(now, "x", 1 if side >= 0 else -1, abs(side), price, 0.0))
        seconds = (now - last) / 1e9
        expected += seconds * price * (position * funding + max(-position, 0.0) * borrowing)
        position, last = position + side, now
    assert ledger.carried == pytest.approx(expected, rel=1e-9, abs=1e-9)
    traded = sum(fill.side * fill.quantity * fill.price for fill in ledger.fills)
    assert ledger.cash == pytest.approx(1_000.0 - traded - expected, rel=1e-9, abs=1e-6)


def test_each_fill_pays_the_spread_of_its_own_hour_as_known_before() -> None:
    plain = market_of(bars=300)
    hours = np.unique(hour_of(plain.bars.ts_close_ns))
    spreads = HourlySpreads(hours, 1.0 + (hours % 24), np.ones(len(hours), dtype=np.int64))
    run = run_backtest(without_model(fee_bps=0.0), market=dataclasses.replace(plain, spreads=spreads))
    charged = [fill for fill in run.ledger.fills if fill.ts_ns > plain.bars.ts_close_ns[24]]
    assert len(charged) > 10
    for fill in charged:
        hour = int(hour_of(np.array([fill.ts_ns]))[0]) % 24
        assert fill.commission == pytest.approx((1.0 + hour) * 1e-4 * fill.quantity * fill.price, abs=1e-6)
    told = summary(run, tables(run))["costs"]
    assert isinstance(told, dict)
    assert "1.00 to 24.00 bps" in told["half-spread"]["told"]


def test_a_spread_that_is_configured_wins_over_what_was_measured() -> None:
    market = market_of(spreads=HourlySpreads(np.array([0]), np.array([50.0]), np.array([1])))
    measured = CostRates.of(without_model().costs, market, allow_short=False)
    configured = CostRates.of(without_model(spread_bps=1.0).costs, market, allow_short=False)
    now = int(market.bars.ts_close_ns[0])
    assert (measured.half_spread_bps(now), configured.half_spread_bps(now)) == (50.0, 0.5)


def test_the_same_trades_at_other_costs() -> None:
    run = trading_run(Kind.CRYPTO, borrow_bps_year=400.0)
    table = tables(run)
    figures = summary(run, table)
    at = figures["at_cost_multiples"]
    assert isinstance(at, dict)
    none, once, twice = (at[name]["final_equity"] for name in ("0", "1", "2"))
    assert once == figures["final_equity"]
    assert once - twice == pytest.approx(none - once)
    assert none - once == pytest.approx(figures["costs_paid"])
    assert at["1"]["sharpe"] == figures["sharpe"]
    assert at["1"]["max_drawdown"] == figures["max_drawdown"] == table.equity["drawdown"].min()


def test_charging_the_break_even_cost_leaves_the_cash() -> None:
    run = trading_run(Kind.CRYPTO)
    bps = summary(run, tables(run))["break_even_bps"]
    if bps is None:
        pytest.fail("this market is one in which the trades gain before costs")
    assert isinstance(bps, float)
    gross = tables(run).equity["equity"].iloc[-1] + run.ledger.costs
    assert gross - bps * 1e-4 * run.ledger.traded_notional == pytest.approx(run.config.cash)


def test_a_run_that_holds_nothing_says_why_there_is_no_break_even_cost() -> None:
    config = without_model()
    config = dataclasses.replace(config, regime=dataclasses.replace(config.regime, pinned_level=Level.EMERGENCY))
    run = run_backtest(config, market=market_of(bars=100))
    figures = summary(run, tables(run))
    assert figures["break_even_bps"] is None
    assert "nothing was traded" in str(figures["break_even"])
    assert figures["sharpe_interval"] is None
    assert figures["costs_paid"] == 0.0
