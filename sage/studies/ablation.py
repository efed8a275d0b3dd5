"""The ablation: each alpha alone, equal weights, the ensemble, and buy and hold, through the same backtest.

Every run goes through sizing, costs and NautilusTrader as any other; only the alphas and their weights differ. Signals
do not, so that a market's first run gives them for all.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import OptionError
from data.market import Market
from regime.model.checkpoint import find_checkpoint
from regime.signal import BarRejected, Signal
from sage.backtest import run_backtest
from sage.config import BacktestConfig, as_dict, validate
from sage.performance import max_drawdown, trading_days
from sage.plugins import own_digests
from sage.progress import Progress, Silent
from sage.results import summary, tables
from sage.run import BacktestRun
from sage.studies.kept import KeptCells
from sage.studies.markets import StudyMarkets

METHOD_VERSION = 1
MIN_BARS = 500
MIN_DAYS = 60
"""With fewer days than this, returns are taken by the hour."""

ENSEMBLE, EQUAL, HOLD = "ensemble", "equal weights", "buy and hold"

_HOUR_NS = 3_600 * 1_000_000_000

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Cell = dict[str, Any]


@dataclass(frozen=True)
class AblationConfig:
    """What is run on what; the data of ``base`` do not count. ``out`` keeps finished runs for a rerun."""

    markets: StudyMarkets
    base: BacktestConfig = field(default_factory=BacktestConfig)
    out: Path | None = None


@dataclass(frozen=True)
class Ablated:
    """One market with a cell for each variant, in order; buy and hold is the last.

    ``period_ns`` is what a return is of, a day or an hour, of which there are ``periods_per_year``.
    """

    market: str
    simulated: bool
    bars: int
    period_ns: int
    periods_per_year: int
    days_per_year: int
    cells: dict[str, Cell]

    @property
    def periods_are_days(self) -> bool:
        """False where there were too few days, and returns are hourly."""
        return self.period_ns > _HOUR_NS


@dataclass(frozen=True)
class Ablation:
    """All markets; ``reused`` of the runs were found in ``config.out``."""

    config: AblationConfig
    markets: list[Ablated]
    reused: int


def ablate(config: AblationConfig, progress: Progress | None = None) -> Ablation:
    """Run every market with every variant.

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
        "checkpoint": checkpoint,
        "sources": own_digests(config.base.own),
    }
    for name in ("data", "seed", "walk_forward"):
        del settings[name]
    kept = KeptCells(config.out, "ablation", settings)
    wanted, variants = config.markets.wanted(), variants_of(config.base)
    show.stage("ablation", len(wanted) * len(variants))
    markets = []
    for name, market in config.markets.load(wanted):
        cells: dict[str, Cell] = {}
        answers: list[Signal | BarRejected] | None = None
        for variant, run_config in variants.items():
            key = f"{name} {market.bars.sha256()[:16]} {variant}"
            cell = kept.get(key)
            if cell is None:
                run = run_backtest(run_config, recorded=answers, market=market)
                answers = sorted([*run.signals, *run.rejections], key=lambda answer: answer.ts_event)
                cell = _cell(run)
                kept.put(key, cell)
            cells[variant] = cell
            show.advance(1, f"{name}, {variant}")
        markets.append(_ablated(name, market, cells, config.base.cash))
    return Ablation(config, markets, kept.reused)


def check(config: AblationConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    validate(config.base)
    config.markets.check(MIN_BARS)
    if config.base.own.strategy is not None:
        raise OptionError("the ablation is that of SAGE's strategy: leave --strategy out")
    if len(config.base.ensemble.alphas) + len(config.base.own.alphas) < 2:
        raise OptionError("ensemble.alphas: an ablation needs two alphas at least")


def variants_of(base: BacktestConfig) -> dict[str, BacktestConfig]:
    """A configuration for each alpha alone, for equal weights and for the ensemble."""

    def of(kind: str, alphas: tuple[str, ...], own: tuple[str, ...]) -> BacktestConfig:
        weights = dataclasses.replace(base.ensemble.weights, kind=kind)  # type: ignore[arg-type]
        ensemble = dataclasses.replace(base.ensemble, alphas=alphas, weights=weights)
        return dataclasses.replace(base, ensemble=ensemble, own=dataclasses.replace(base.own, alphas=own))

    alphas, own = base.ensemble.alphas, base.own.alphas
    return {
        **{name: of("equal", (name,), ()) for name in alphas},
        **{name: of("equal", (), (name,)) for name in own},
        EQUAL: of("equal", alphas, own),
        ENSEMBLE: of("adaptive", alphas, own),
    }


def _cell(run: BacktestRun) -> Cell:
    """What is kept of one run: plain figures, and equity by the hour."""
    tabled = tables(run)
    figures = summary(run, tabled)
    names = (
        "total_return", "max_drawdown", "turnover_per_year", "costs_paid", "fills", "average_exposure",
        "determinism_hash",
    )  # fmt: skip
    stamps = tabled.equity["ts_ns"].to_numpy()
    last = np.flatnonzero(np.diff((stamps - 1) // _HOUR_NS, append=-1))
    return {
        **{name: figures[name] for name in names},
        "costs_share": float(figures["costs_paid"]) / run.config.cash,  # type: ignore[arg-type]
        "ts_ns": stamps[last].tolist(),
        "equity": tabled.equity["equity"].to_numpy()[last].tolist(),
        "hold": tabled.equity["buy_and_hold"].to_numpy()[last].tolist(),
        "mean_weights": {
            name: alpha["mean_weight"]
            for name, alpha in (figures["ensemble"] or {"alphas": {}})["alphas"].items()  # type: ignore[index]
        },
    }


def _ablated(name: str, market: Market, cells: dict[str, Cell], cash: float) -> Ablated:
    """The cells with their returns by day, or by hour where there are too few days; buy and hold beside them."""
    stamps = np.array(cells[ENSEMBLE]["ts_ns"], dtype=np.int64)
    days_per_year, sunday = market.kind.trading_days_per_year, market.kind.opens_on_sunday
    days = len(np.unique(trading_days(stamps, opens_on_sunday=sunday)))
    period_ns = 24 * _HOUR_NS if days >= MIN_DAYS else _HOUR_NS
    hold = np.array(cells[ENSEMBLE]["hold"])
    held = {
        "total_return": float(hold[-1]) / cash - 1.0,
        "max_drawdown": max_drawdown(hold, cash),
        "equity": hold.tolist(),
        "ts_ns": stamps.tolist(),
    }
    found: dict[str, Cell] = {}
    for variant, cell in {**cells, HOLD: held}.items():
        ts_ns = np.array(cell["ts_ns"], dtype=np.int64)
        period = (ts_ns - 1) // _HOUR_NS if period_ns == _HOUR_NS else trading_days(ts_ns, opens_on_sunday=sunday)
        periods, returns = returns_by(period, np.array(cell["equity"]), cash)
        found[variant] = cell | {"periods": periods, "returns": returns}
    hours = 24 if market.kind.always_open else len(stamps) / max(days, 1)
    per_year = days_per_year * (1 if period_ns > _HOUR_NS else max(1, round(hours)))
    return Ablated(name, market.labels is not None, len(market.bars), period_ns, per_year, days_per_year, found)


def returns_by(period: IntArray, equity: FloatArray, cash: float) -> tuple[IntArray, FloatArray]:
    """The periods in which there were bars, and the return of each; shapes (periods,).

    ``period`` is that of each bar, never falling. After an equity of nothing there are no more returns.
    """
    last = np.flatnonzero(np.diff(period, append=-1))
    worth = np.concatenate([[cash], np.maximum(equity[last], 0.0)])
    returns = np.divide(np.diff(worth), worth[:-1], out=np.zeros(len(last)), where=worth[:-1] > 0.0)
    return period[last], returns
