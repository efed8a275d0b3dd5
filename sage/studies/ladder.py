"""The degradation ladder: the same backtest with each level pinned, so that one sees what every level costs.

On simulated markets the true regimes are known; on a catalog's instruments, money and coverage alone. A pinned level
is the best that may answer: poorer ones still stand in for it, as while it warms up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import OptionError
from data.market import Market, catalog_market, synthetic_market
from regime.model.checkpoint import find_checkpoint
from regime.signal import EXPOSURE_CAP, Level
from sage.backtest import run_backtest
from sage.config import BacktestConfig, as_dict, validate
from sage.evaluation.settings import EvaluationConfig
from sage.evaluation.study import wanted_markets
from sage.performance import daily_returns, max_drawdown, sharpe
from sage.plugins import own_digests
from sage.progress import Progress, Silent
from sage.results import Tables, coverage, regime_accuracy, summary, tables
from sage.run import BacktestRun
from sage.studies.kept import KeptCells

WARM_UP_BARS = 500
"""Intervals are judged from this bar on, when level FULL has long been there."""

METHOD_VERSION = 1
_ROUNDING = 1e-9

Cell = dict[str, Any]


@dataclass(frozen=True)
class LadderConfig:
    """What is climbed down on.

    ``seeds`` simulated markets of ``bars`` bars, from the seed of ``base`` on, and the newest ``bars`` of each
    instrument of ``catalog`` (all where ``instruments`` is empty). ``base`` is the configuration of every run; its
    data and its pinned level do not count. ``out`` keeps finished runs for a rerun.
    """

    base: BacktestConfig = field(default_factory=BacktestConfig)
    seeds: int = 10
    bars: int = 4_000
    catalog: Path | None = None
    instruments: tuple[str, ...] = ()
    bar: str | None = None
    start: str | None = None
    end: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Rungs:
    """One market with a cell for each level, best first; simulated ones are told apart by their seed."""

    market: str
    simulated: bool
    days_per_year: int
    cells: list[Cell]


@dataclass(frozen=True)
class Ladder:
    """All markets; ``reused`` of the runs were found in ``config.out``."""

    config: LadderConfig
    markets: list[Rungs]
    reused: int


def climb(config: LadderConfig, progress: Progress | None = None) -> Ladder:
    """Run every market at every level.

    Raises
    ------
    OptionError, DataError, ModelUnavailable, BacktestFailed
        As :func:`sage.backtest.run_backtest`; and where nothing is asked for.
    """
    check(config)
    show = progress or Silent()
    checkpoint = find_checkpoint(config.base.model.name).digest
    settings = as_dict(config.base) | {
        "method": METHOD_VERSION,
        "bars": config.bars,
        "checkpoint": checkpoint,
        "sources": own_digests(config.base.own),
    }
    for name in ("data", "seed", "walk_forward"):
        del settings[name]
    kept = KeptCells(config.out, "ladder", settings)
    wanted = _wanted(config)
    show.stage("climbing down the ladder", len(wanted) * len(Level))
    markets = []
    for name, market in _markets(config, wanted):
        cells = []
        for level in Level:
            key = f"{name} {market.bars.sha256()[:16]} level {int(level)}"
            cell = kept.get(key)
            if cell is None:
                cell = _cell(run_backtest(_pinned(config, market, level), market=market), level)
                kept.put(key, cell)
            cells.append(cell)
            show.advance(1, f"{name}, {level.name}")
        markets.append(Rungs(name, market.labels is not None, market.kind.trading_days_per_year, cells))
    return Ladder(config, markets, kept.reused)


def check(config: LadderConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    validate(config.base)
    if config.base.own.strategy is not None:
        raise OptionError("the ladder is that of SAGE's strategy: leave --strategy out")
    if not 0 <= config.seeds <= 1_000:
        raise OptionError("--seeds must lie between 0 and 1000")
    if config.bars < WARM_UP_BARS + 100:
        raise OptionError(
            f"--bars must be {WARM_UP_BARS + 100:,} or more: intervals count from bar {WARM_UP_BARS:,} on"
        )
    if config.catalog is None and not config.seeds:
        raise OptionError("nothing to run on: give --seeds, --catalog or both")
    for option in ("instruments", "bar", "start", "end"):
        if config.catalog is None and getattr(config, option):
            raise OptionError(f"--{option.rstrip('s')} goes with --catalog")


def _wanted(config: LadderConfig) -> list[tuple[str, str] | int]:
    """Seeds of simulated markets, then instruments with their bar sizes."""
    seeds: list[tuple[str, str] | int] = [config.base.seed + number for number in range(config.seeds)]
    if config.catalog is None:
        return seeds
    held = EvaluationConfig(
        catalog=config.catalog, instruments=config.instruments, bar=config.bar, start=config.start, end=config.end
    )
    return [*seeds, *wanted_markets(held)]


def _markets(config: LadderConfig, wanted: list[tuple[str, str] | int]) -> Iterator[tuple[str, Market]]:
    for what in wanted:
        if isinstance(what, int):
            synthetic = dataclasses.replace(config.base.data.synthetic, bars=config.bars, seed=what)
            yield f"seed {what}", synthetic_market(synthetic)
        else:
            assert config.catalog is not None
            market = catalog_market(config.catalog, *what, config.start, config.end)
            yield " ".join(what), market.part(max(0, len(market.bars) - config.bars), len(market.bars))


def _pinned(config: LadderConfig, market: Market, level: Level) -> BacktestConfig:
    """The base configuration with this level pinned; shares and coins are short where the base says so."""
    base = config.base
    return dataclasses.replace(
        base,
        regime=dataclasses.replace(base.regime, pinned_level=level),
        data=dataclasses.replace(base.data, synthetic=dataclasses.replace(base.data.synthetic, bars=len(market.bars))),
    )


def _cell(run: BacktestRun, level: Level) -> Cell:
    """What is kept of one run: plain figures and daily returns."""
    tabled = tables(run)
    figures = summary(run, tabled)
    stamps, cash, days = tabled.equity["ts_ns"].to_numpy(), run.config.cash, run.market.kind.trading_days_per_year
    sunday = run.market.kind.opens_on_sunday
    hold = tabled.equity["buy_and_hold"].to_numpy()
    held = daily_returns(stamps, hold, cash, opens_on_sunday=sunday)
    names = (
        "bars", "total_return", "sharpe", "sharpe_interval", "max_drawdown", "turnover_per_year", "costs_paid", "fills",
        "break_even_bps", "average_exposure", "at_cost_multiples", "orders_cut", "not_modelled", "determinism_hash",
    )  # fmt: skip
    known = coverage(run, tabled.signals, WARM_UP_BARS)
    return {
        "level": int(level),
        **{name: figures[name] for name in names},
        "costs_share": float(figures["costs_paid"]) / cash,  # type: ignore[arg-type]
        "better": sum(signal.level < level for signal in run.signals),
        "answered": float(np.mean([signal.level == level for signal in run.signals])) if run.signals else 0.0,
        "accuracy": regime_accuracy(run),
        "nominal": known["nominal"],
        "coverage": known["realised_all_levels"],
        "width": _width(tabled),
        "over_cap": _over_cap(run),
        "daily_returns": daily_returns(
            stamps, tabled.equity["equity"].to_numpy(), cash, opens_on_sunday=sunday
        ).tolist(),
        "buy_and_hold": {
            "total_return": float(hold[-1]) / cash - 1.0 if len(hold) else 0.0,
            "sharpe": sharpe(held, days),
            "max_drawdown": max_drawdown(hold, cash),
            "daily_returns": held.tolist(),
        },
    }


def _width(tabled: Tables) -> float | None:
    """Mean width of the intervals that end somewhere, as a log return over the horizon; None where none does."""
    rows = tabled.signals.iloc[WARM_UP_BARS:]
    width = (rows["interval_high"] - rows["interval_low"]).to_numpy()
    finite = width[np.isfinite(width)]
    return float(finite.mean()) if len(finite) else None


def _over_cap(run: BacktestRun) -> int:
    """Orders that took on more than the level of their signal allows, at the close at which they were sent."""
    limit = run.config.sizing.max_exposure
    return sum(
        abs(order.exposure_after) > abs(order.exposure_before)
        and abs(order.exposure_after) > EXPOSURE_CAP[order.level] * limit + _ROUNDING
        for order in run.sent_orders
    )
