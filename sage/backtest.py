"""A backtest from configuration to result: market, model, NT engine, books.

``run_backtest`` is the one function behind ``sage backtest``; call it from Python just as well.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from data.errors import OptionError
from data.market import Market, catalog_market, sp500_market, synthetic_market
from regime.actor import bar_input
from regime.config import RegimeConfig
from regime.detector import Detector
from regime.errors import ModelUnavailable
from regime.forecast import KnownForecasts
from regime.recorded import RecordedDetector
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Level, Signal
from sage.assembly import ensemble_of
from sage.collector import Observer
from sage.config import BacktestConfig, validate
from sage.engine import trade
from sage.ledger import Ledger
from sage.model import RunModel, runs_online
from sage.plugins import build_alphas, load_plugin, load_strategy
from sage.progress import Progress, Silent
from sage.rig import Rig
from sage.run import BacktestRun
from sage.votes import drop_notes

CLOSURE_SECONDS = 5 * 86_400
"""Markets with sessions may be closed for a long weekend without leaving a gap."""


STAGES = ("load_data", "start_model", "forecast_ahead", "engine")
"""Where the time of a run goes, in order; the keys of ``BacktestRun.seconds`` beside ``total``."""

Timed = Callable[[str], AbstractContextManager[None]]


def load_market(config: BacktestConfig) -> Market:
    """The market that a configuration names.

    Raises
    ------
    OptionError
        If the options do not fit together.
    CatalogError
        If the catalog has not what is asked for.
    """
    data = config.data
    if data.source != "catalog":
        stray = [name for name in ("catalog", "instrument", "bar", "start", "end") if getattr(data, name) is not None]
        if stray:
            raise OptionError(f"--{stray[0]} goes with --catalog, not with --data {data.source}")
    match data.source:
        case "synthetic":
            return synthetic_market(dataclasses.replace(data.synthetic, seed=config.seed))
        case "sp500":
            return sp500_market()
        case "catalog":
            if data.catalog is None or data.instrument is None:
                raise OptionError("a catalog needs its directory and an instrument: --catalog DIR --instrument ID")
            return catalog_market(Path(data.catalog), data.instrument, data.bar, data.start, data.end)


def run_backtest(
    config: BacktestConfig,
    progress: Progress | None = None,
    recorded: Sequence[Signal | BarRejected] | None = None,
    rig: Rig | None = None,
    market: Market | None = None,
    trade_from_ns: int = 0,
    known: KnownForecasts | None = None,
    slow_votes: Collection[tuple[int, str]] = (),
    observer: Observer | None = None,
) -> BacktestRun:
    """Run a backtest.

    Parameters
    ----------
    config
        All of it.
    progress
        Hears how far the run is.
    recorded
        Answers of an earlier run over the same bars, one for each: they are given again in the place of a detector,
        and no model is asked.
    rig
        Puts parts of its own in the place of ordinary ones, and may disturb what goes on between them.
    market
        The market that ``config.data`` names, where the caller has loaded it already, or a part of it.
    trade_from_ns
        SAGE's strategy hears of bars that close earlier, and sends no order at them.
    known
        The forecasts of an earlier run: no model is asked, and a bar whose forecast is not among them gets none.
    slow_votes
        With ``recorded``, (ts_ns, alpha) of the votes that came too late in that run, and are dropped again.
    observer
        Looks on while NT runs.

    Raises
    ------
    OptionError, DataError
        If the configuration or the data are at fault.
    ModelUnavailable
        If there is no model and the configuration does not allow a degraded run.
    UserCodeRaised
        If a class of the user's own raises before the first bar.
    BacktestFailed
        If NT stopped before the last bar.
    """
    show = progress or Silent()
    parts = rig or Rig()
    validate(config)
    own = load_strategy(config.own.strategy) if config.own.strategy is not None else None
    alphas = [load_plugin("--alpha", spec) for spec in config.own.alphas]
    started = time.perf_counter()
    seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - begun

    with ExitStack() as stack:
        # A model process that is needed loads while the bars are read.
        model = _open_model(config, parts, stack) if recorded is None and known is None else None
        with timed("load_data"):
            show.stage("loading bars", 1)
            market = market or load_market(config)
            show.advance(1)
        config = dataclasses.replace(config, regime=for_market(config.regime, market))
        run = BacktestRun(config, market, None, "", "", seconds=seconds, trade_from_ns=trade_from_ns)
        run.allow_short = market.kind.can_short if config.sizing.allow_short is None else config.sizing.allow_short
        run.ledger = Ledger(config.cash, run.cost_rates.carry)
        if own is None:
            late = None if recorded is None else slow_votes
            voting = build_alphas(alphas, market)
            run.own |= {f"{alpha.option} {alpha.source.spec}": alpha.source for alpha in alphas}
            run.ensemble = ensemble_of(config, market, run.cost_rates.trade_rate, parts.stopwatch, voting, late)
        if isinstance(model, RunModel):
            try:
                _prepare(model, run, show, timed)
            except ModelUnavailable as error:
                if not config.model.allow_degraded:
                    raise
                model = error
        if isinstance(model, ModelUnavailable):
            run.model_error = str(model)
            show.stage("running without a model", 1)
        with timed("engine"):
            client = model.client if isinstance(model, RunModel) else None
            if isinstance(model, RunModel) and not runs_online(config):
                known = model.known
            run.known = known
            detector = _answerer(run, client, recorded, parts)
            trade(run, detector, client, show, rig, own, observer)
        run.forecasts_computed += sum(timing.source == "model" for timing in run.timings)
        if isinstance(model, RunModel):
            model.close()
            run.model_peak_rss_bytes = model.client.peak_rss_bytes
            run.model_restarts, run.notes = model.client.restarts, model.notes
            run.notes += _notes_on_failures(run)
        if run.ensemble is not None:
            run.notes += drop_notes(run.ensemble)
    seconds["total"] = time.perf_counter() - started
    return run


def for_market(regime: RegimeConfig, market: Market) -> RegimeConfig:
    """Let markets with sessions close overnight and over weekends without calling that a gap."""
    if regime.closure_seconds or market.kind.always_open:
        return regime
    return dataclasses.replace(regime, closure_seconds=CLOSURE_SECONDS)


def _open_model(config: BacktestConfig, rig: Rig, stack: ExitStack) -> RunModel | ModelUnavailable | None:
    """The model, why there is none, or None where the pinned level needs none."""
    pinned = config.regime.pinned_level
    if pinned is not None and pinned > Level.BASIC:
        return None
    try:
        return RunModel.open(config, rig, stack)
    except ModelUnavailable as error:
        if not config.model.allow_degraded:
            raise
        return error


def _notes_on_failures(run: BacktestRun) -> list[str]:
    """What a run without its model, in part, must say aloud: its figures are another strategy's."""
    without = sum(signal.level > Level.BASIC and not signal.is_warm_up for signal in run.signals)
    notes = []
    if run.forecast_failures and without:
        notes.append(f"{without:,} of {len(run.signals):,} bars were answered without the model")
    if run.model_restarts:
        notes.append(f"the model process was started again {run.model_restarts:,} times")
    late = sum(timing.total_ms > run.config.regime.deadline_ms for timing in run.timings)
    if run.config.regime.deadline_ms and late:
        notes.append(f"{late:,} signals came later than the deadline, by this machine's clock")
    return notes


def _prepare(model: RunModel, run: BacktestRun, show: Progress, timed: Timed) -> None:
    """Start the model if it is needed, and make the missing forecasts unless the run is online."""
    market, regime = run.market, run.config.regime
    run.checkpoint, run.engine_name = model.client.checkpoint, model.engine_name
    if model.own is not None:
        run.own["--forecaster"] = model.own
    bars = [bar_input(bar) for bar in market.nautilus_bars]
    missing = 0
    if not runs_online(run.config):
        with timed("forecast_ahead"):
            missing = model.count_missing(bars, regime, market.size.seconds)
    if missing or runs_online(run.config):
        with timed("start_model"):
            model.start(market.bars, show)
        run.engine_name = model.engine_name
    if missing:
        with timed("forecast_ahead"):
            model.forecast_ahead(bars, regime, market.size.seconds, show)
    run.forecasts_computed = model.known.made
    run.forecasts_reused = model.total - missing


def _answerer(
    run: BacktestRun, client: ModelClient | None, recorded: Sequence[Signal | BarRejected] | None, rig: Rig
) -> Detector | RecordedDetector:
    if recorded is not None:
        return RecordedDetector(recorded)
    market, regime = run.market, run.config.regime
    return rig.detector(regime, str(market.instrument.id), market.size.seconds, client, run.known)
