"""Walk-forward: the strategy on successive windows, each after what it may have learned from, none of which it saw.

Every fold is a backtest of its own over the bars before its window and the window. Detector, calibration and alphas
learn from all of them; orders are sent, and figures counted, in the window alone, from the same cash and without a
position. Where there is a grid, each fold takes the values with which a backtest over the bars before its window did
best; nothing of a window, and nothing later, has a say in it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import DataError, OptionError
from data.market import Market
from sage.backtest import load_market, run_backtest
from sage.config import BacktestConfig, WalkForwardConfig, validate, with_keys
from sage.earnings import buy_and_hold
from sage.performance import (
    COST_MULTIPLES,
    at_multiple,
    break_even,
    daily_returns,
    max_drawdown,
    sharpe,
    until_ruin,
)
from sage.performance import sharpe_interval as interval_of
from sage.progress import Progress, Silent
from sage.results import determinism_hash, of_window, tables
from sage.run import BacktestRun

FloatArray = NDArray[np.float64]

WINDOW_BARS_MIN = 20
CANDIDATES_MAX = 64
FIXED = ("data", "model", "serving", "costs", "own", "walk_forward", "cash", "seed")
"""What no grid may choose: the question itself, what it costs, and what has no say in the result."""


@dataclass(frozen=True)
class Fold:
    """Rows of a market: a window from ``start`` to ``stop``, that one not included, after bars from ``first`` on."""

    number: int
    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class Candidate:
    """Values out of the grid, and the mean over the deviation of a bar's return that they had before the window."""

    values: dict[str, Any]
    score: float | None


@dataclass(frozen=True)
class FoldResult:
    """What came of one fold. ``equity`` are the rows of its window; ``figures`` are of the window alone."""

    fold: Fold
    chosen: dict[str, Any]
    candidates: list[Candidate]
    figures: dict[str, Any]
    equity: pd.DataFrame


@dataclass(frozen=True)
class WalkForward:
    """All folds, and the figures of their windows put one behind the other; ``last_run`` is the backtest of one."""

    config: BacktestConfig
    market: Market
    folds: list[FoldResult]
    equity: pd.DataFrame
    pooled: dict[str, Any]
    notes: list[str]
    last_run: BacktestRun


def folds_of(bars: int, config: WalkForwardConfig) -> list[Fold]:
    """The folds of so many bars: windows side by side from ``train_bars`` to the last bar.

    A rest shorter than half of ``fold_bars`` goes to the last window, a longer one is a window of its own.

    Raises
    ------
    DataError
        If there are too few bars.
    """
    open_bars = bars - config.train_bars
    if config.fold_bars is not None:
        if config.fold_bars > open_bars:
            raise DataError(
                f"{bars:,} bars are too few: after {config.train_bars:,} to learn from, no window of "
                f"{config.fold_bars:,} fits; take fewer --fold-bars or --train-bars, or more bars"
            )
        count = max(1, math.floor(open_bars / config.fold_bars + 0.5))
        edges = [config.train_bars + number * config.fold_bars for number in range(count)] + [bars]
    else:
        edges = [config.train_bars + open_bars * number // config.folds for number in range(config.folds + 1)]
    shortest = min(stop - start for start, stop in itertools.pairwise(edges))
    if shortest < WINDOW_BARS_MIN:
        raise DataError(
            f"{bars:,} bars are too few: {config.train_bars:,} come before the first of {len(edges) - 1} windows, and "
            f"each needs {WINDOW_BARS_MIN}; take fewer --folds or --train-bars, or more bars"
        )
    return [
        Fold(number, max(0, start - config.train_bars) if config.rolling else 0, start, stop)
        for number, (start, stop) in enumerate(itertools.pairwise(edges), start=1)
    ]


def candidates_of(config: BacktestConfig) -> list[dict[str, Any]]:
    """Every combination of the grid's values; a single empty one without a grid.

    Raises
    ------
    OptionError
        For keys that are unknown or not for a grid to choose, values that make no sense, and too many combinations.
    """
    grid = config.walk_forward.grid
    for key in grid:
        if key.split(".")[0] in FIXED:
            raise OptionError(f"walk_forward.grid: {key} is not for a grid to choose")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len(combinations) > CANDIDATES_MAX:
        raise OptionError(f"walk_forward.grid: {len(combinations)} combinations; {CANDIDATES_MAX} is the most")
    for values in combinations:
        validate(with_keys(config, values))
    return combinations


def walk_forward(config: BacktestConfig, progress: Progress | None = None, market: Market | None = None) -> WalkForward:
    """Walk a strategy forward as ``config.walk_forward`` says.

    Parameters
    ----------
    config
        All of it.
    progress
        Hears how far it is.
    market
        The market that ``config.data`` names, where the caller has loaded it already.

    Raises
    ------
    OptionError, DataError, ModelUnavailable, BacktestFailed
        As :func:`sage.backtest.run_backtest`; and where there are too few bars, or the grid makes no sense.
    """
    validate(config)
    if config.own.strategy is not None:
        raise OptionError("--walk-forward goes with SAGE's strategy: one of your own cannot be kept from trading early")
    candidates = candidates_of(config)
    show = progress or Silent()
    market = market or load_market(config)
    folds = folds_of(len(market.bars), config.walk_forward)
    show.stage("walking forward", sum(fold.stop - fold.first for fold in folds))
    results: list[FoldResult] = []
    notes: list[str] = []
    # The last one first: where folds begin at one bar it makes the forecasts of all others.
    for fold in reversed(folds):
        result, run = _walk(fold, config, market, candidates)
        notes += run.notes
        if run.model_error:
            notes.append(f"no model, degraded from the first bar on: {run.model_error}")
        show.advance(fold.stop - fold.first, f"{len(results) + 1} of {len(folds)} folds")
        results.insert(0, result)
    equity = _chained(results, config.cash)
    return WalkForward(config, market, results, equity, _pooled(results, equity, run), list(dict.fromkeys(notes)), run)


def _walk(
    fold: Fold, config: BacktestConfig, market: Market, candidates: list[dict[str, Any]]
) -> tuple[FoldResult, BacktestRun]:
    scored = [Candidate(values, None) for values in candidates]
    if len(candidates) > 1:
        before = market.part(fold.first, fold.start)
        scored = [Candidate(values, _score(with_keys(config, values), before)) for values in candidates]
    chosen = max(scored, key=lambda one: -math.inf if one.score is None else one.score).values
    start_ns = int(market.bars.ts_close_ns[fold.start])
    part = market.part(fold.first, fold.stop)
    run = run_backtest(with_keys(config, chosen), market=part, trade_from_ns=start_ns)
    tabled = tables(run)
    window, figures = of_window(run, tabled, start_ns)
    figures["fills"] = len(run.ledger.fills)
    figures["traded"] = run.ledger.traded_notional
    figures["trading_costs"] = run.ledger.costs
    figures["determinism_hash"] = determinism_hash(tabled)
    return FoldResult(fold, chosen, scored, figures, window), run


def _score(config: BacktestConfig, before: Market) -> float | None:
    """How well values did on the bars before a window, by the bar: daily returns would be too few on minutes."""
    equity = tables(run_backtest(config, market=before)).equity["equity"].to_numpy()
    worth = np.concatenate([[config.cash], equity])
    if len(equity) < 2 or (worth <= 0).any():
        return None
    returns = np.diff(worth) / worth[:-1]
    deviation = float(returns.std(ddof=1))
    return float(returns.mean()) / deviation if deviation > 0 else None


def _chained(results: list[FoldResult], cash: float) -> pd.DataFrame:
    """The windows' equity one behind the other, as if each had begun with what the one before it left.

    Beside the times and the equity at each multiple of the costs it has the close and the fold.
    """
    worth = dict.fromkeys(COST_MULTIPLES, cash)
    parts = []
    for result in results:
        rows = result.equity
        paid = (rows["costs"] + rows["borrowing"]).to_numpy()
        columns: dict[str, Any] = {"ts_ns": rows["ts_ns"], "fold": result.fold.number, "close": rows["close"]}
        for multiple in COST_MULTIPLES:
            grown = worth[multiple] / cash * until_ruin(at_multiple(rows["equity"].to_numpy(), paid, multiple))
            columns[f"equity_{multiple:g}"] = grown
            worth[multiple] = float(grown[-1]) if len(grown) else worth[multiple]
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _pooled(results: list[FoldResult], equity: pd.DataFrame, run: BacktestRun) -> dict[str, Any]:
    """Figures of all windows together; ``run`` is any of their backtests."""
    cash, days, sunday = run.config.cash, run.market.kind.trading_days_per_year, run.market.kind.opens_on_sunday
    stamps = equity["ts_ns"].to_numpy()
    at: dict[str, dict[str, float | None]] = {}
    for multiple in COST_MULTIPLES:
        worth = equity[f"equity_{multiple:g}"].to_numpy()
        at[f"{multiple:g}"] = {
            "total_return": float(worth[-1]) / cash - 1.0,
            "sharpe": sharpe(daily_returns(stamps, worth, cash, opens_on_sunday=sunday), days),
            "max_drawdown": max_drawdown(worth, cash),
        }
    returns = daily_returns(stamps, equity["equity_1"].to_numpy(), cash, opens_on_sunday=sunday)
    interval = interval_of(returns, days, run.config.seed)
    hold = buy_and_hold(run, stamps, equity["close"].to_numpy())
    held = daily_returns(stamps, hold, cash, opens_on_sunday=sunday)
    figures = [result.figures for result in results]
    even = break_even(
        sum(one["final_equity"] - cash for one in figures),
        sum(one["trading_costs"] for one in figures),
        sum(one["traded"] for one in figures),
        is_ruined=any(one["ruined_at"] for one in figures),
    )
    turnover = sum(one["turnover"] for one in figures)
    forecasts = sum(one["coverage"]["forecasts"] for one in figures)
    inside = sum(one["coverage"]["forecasts"] * (one["coverage"]["realised"] or 0.0) for one in figures)
    return {
        **at["1"],
        "sharpe_interval": interval.as_dict() if interval is not None else None,
        "sharpe_basis": f"daily equity, {days} days a year",
        "days": len(returns),
        "buy_and_hold_return": float(hold[-1]) / cash - 1.0,
        "buy_and_hold_sharpe": sharpe(held, days),
        "folds_with_a_gain": sum(one["total_return"] > 0 for one in figures),
        "turnover": turnover,
        "turnover_per_year": turnover * days / len(returns) if len(returns) else 0.0,
        "costs_paid": sum(one["costs_paid"] for one in figures),
        "not_modelled": figures[0]["not_modelled"],
        "at_cost_multiples": at,
        "break_even_bps": even.bps,
        "break_even": even.told,
        "coverage": {
            "nominal": figures[0]["coverage"]["nominal"],
            "realised": inside / forecasts if forecasts else None,
            "forecasts": forecasts,
        },
    }
