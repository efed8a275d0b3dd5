"""What a run earned and what it paid for it, from its equity table; the same trades at other costs beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import iso
from sage.costs import Charge
from sage.performance import (
    COST_MULTIPLES,
    at_multiple,
    break_even,
    daily_returns,
    max_drawdown,
    sharpe,
    sharpe_interval,
    until_ruin,
)
from sage.run import BacktestRun

FloatArray = NDArray[np.float64]


def earnings(run: BacktestRun, equity: pd.DataFrame) -> dict[str, object]:
    """The figures of money, for JSON.

    Parameters
    ----------
    run
        All of whose trades fall into the rows of the table.
    equity
        Rows of the run's equity table, from its start or from a later bar before which nothing was traded.
    """
    cash, ledger = run.config.cash, run.ledger
    worth = until_ruin(equity["equity"].to_numpy())
    final = float(worth[-1]) if len(worth) else cash
    days, sunday = run.market.kind.trading_days_per_year, run.market.kind.opens_on_sunday
    returns = daily_returns(equity["ts_ns"].to_numpy(), worth, cash, opens_on_sunday=sunday)
    interval = sharpe_interval(returns, days, run.config.seed)
    mean_equity = float(np.mean(worth)) if len(worth) else cash
    turnover = ledger.traded_notional / mean_equity if mean_equity > 0 else 0.0
    lines = run.cost_rates.lines(ledger)
    even = break_even(final - cash, ledger.costs, ledger.traded_notional, is_ruined=final <= 0)
    hold = buy_and_hold(run, equity["ts_ns"].to_numpy(), equity["close"].to_numpy())
    ruined = np.flatnonzero(worth <= 0)
    return {
        "final_equity": final,
        "ruined_at": iso(int(equity["ts_ns"].iloc[ruined[0]])) if len(ruined) else None,
        "total_return": final / cash - 1.0,
        "buy_and_hold_return": float(hold[-1]) / cash - 1.0 if len(hold) else 0.0,
        "sharpe": sharpe(returns, days),
        "sharpe_interval": interval.as_dict() if interval is not None else None,
        "sharpe_basis": f"daily equity, {days} days a year",
        "max_drawdown": max_drawdown(worth, cash),
        "turnover": turnover,
        "turnover_per_year": turnover * days / len(returns) if len(returns) else 0.0,
        "costs_paid": ledger.costs + ledger.carried,
        "costs": {line.name: {"charge": str(line.charge), "told": line.told, "paid": line.paid} for line in lines},
        "not_modelled": [line.name for line in lines if line.charge is Charge.NOT_MODELLED],
        "at_cost_multiples": at_cost_multiples(run, equity),
        "break_even_bps": even.bps,
        "break_even": even.told,
        "participation": run.volume_limit.share or None,
        "orders_cut": run.volume_limit.orders_cut,
        "value_cut": run.volume_limit.value_cut,
    }


def at_cost_multiples(run: BacktestRun, equity: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Headline figures of the same trades at 0, 1 and 2 times their costs: fee, spread, slippage and borrowing.

    Funding stays as it is, for it may be income, which more of would flatter.
    """
    stamps, paid = equity["ts_ns"].to_numpy(), (equity["costs"] + equity["borrowing"]).to_numpy()
    cash, days, sunday = run.config.cash, run.market.kind.trading_days_per_year, run.market.kind.opens_on_sunday
    found: dict[str, dict[str, float | None]] = {}
    for multiple in COST_MULTIPLES:
        worth = until_ruin(at_multiple(equity["equity"].to_numpy(), paid, multiple))
        final = float(worth[-1]) if len(worth) else cash
        found[f"{multiple:g}"] = {
            "final_equity": final,
            "total_return": final / cash - 1.0,
            "sharpe": sharpe(daily_returns(stamps, worth, cash, opens_on_sunday=sunday), days),
            "max_drawdown": max_drawdown(worth, cash),
        }
    return found


def buy_and_hold(run: BacktestRun, stamps: NDArray[np.int64], closes: FloatArray) -> FloatArray:
    """Everything into the instrument at the first close, and never touched again; costs included, shape as closes."""
    if len(closes) == 0:
        return closes
    rates = run.cost_rates
    quantity = run.config.cash * (1.0 - rates.trade_rate(int(stamps[0]))) / closes[0]
    seconds = np.diff(stamps, prepend=stamps[0]) / 1e9
    held: FloatArray = quantity * (closes - np.cumsum(rates.carry.funding * seconds * closes))
    return held
