"""A backtest from configuration to result: market, model, NT engine, books.

``run_backtest`` is the one function behind ``sage backtest``; call it from Python just as well.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.strategy import Strategy

from data.bars import iso
from data.errors import OptionError
from data.instruments import Kind
from data.market import Market, catalog_market, sp500_market, synthetic_market
from regime.actor import RegimeActor, RegimeActorConfig, bar_input
from regime.alerts import Alert
from regime.config import RegimeConfig
from regime.detector import Detector, Timing
from regime.errors import ModelUnavailable, UserCodeRaised
from regime.forecast import KnownForecasts
from regime.importing import Source
from regime.model.checkpoint import Checkpoint
from regime.recorded import RecordedDetector
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Level, Signal
from sage.assembly import ensemble_of
from sage.bookkeeper import Bookkeeper, BookkeeperConfig, OrderLog, OrderStep
from sage.config import BacktestConfig, validate
from sage.costs import CostRates, TradeCosts
from sage.ensemble import Ensemble
from sage.ledger import BookEntry, Ledger
from sage.liquidity import VolumeLimit, volume_is_real
from sage.model import RunModel, runs_online
from sage.plugins import Plugin, build_alphas, build_strategy, load_plugin, load_strategy
from sage.progress import Progress, Silent
from sage.rig import Parts, Rig
from sage.strategy import SageStrategy, SageStrategyConfig, SentOrder
from sage.votes import drop_notes

CLOSURE_SECONDS = 5 * 86_400
"""Markets with sessions may be closed for a long weekend without leaving a gap."""

_SESSION_SECONDS = {Kind.EQUITY: 6.5 * 3600, Kind.FX: 86_400.0, Kind.CRYPTO: 86_400.0, Kind.PERPETUAL: 86_400.0}
_PROGRESS_EVERY_BARS = 200

STAGES = ("load_data", "start_model", "forecast_ahead", "engine")
"""Where the time of a run goes, in order; the keys of ``BacktestRun.seconds`` beside ``total``."""

Timed = Callable[[str], AbstractContextManager[None]]


class BacktestFailed(Exception):
    """The run itself went wrong inside NT: exit code 6. ``run`` is what there was by then."""

    def __init__(self, message: str, run: BacktestRun) -> None:
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class OrderRecord:
    """One order as it ended; ``side`` is +1 for buys and -1 for sells."""

    order_id: str
    ts_ns: int
    side: int
    quantity: float
    filled_quantity: float
    status: str


@dataclass
class BacktestRun:
    """Everything that a run left: the raw material of its results.

    ``own`` are the user's classes that took part. ``stopped`` is what one of them raised, where that ended the run:
    then everything here reaches up to that bar.
    """

    config: BacktestConfig
    market: Market
    checkpoint: Checkpoint | None
    model_error: str
    engine_name: str
    signals: list[Signal] = field(default_factory=list)
    rejections: list[BarRejected] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    answer_stamps: list[int] = field(default_factory=list)
    book: list[BookEntry] = field(default_factory=list)
    orders: list[OrderRecord] = field(default_factory=list)
    order_steps: list[OrderStep] = field(default_factory=list)
    sent_orders: list[SentOrder] = field(default_factory=list)
    refused_orders: list[tuple[int, str, str]] = field(default_factory=list)
    volume_limit: VolumeLimit = field(default_factory=lambda: VolumeLimit(0.0))
    ignored_signals: dict[str, int] = field(default_factory=dict)
    forecast_failures: dict[str, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(0.0))
    ensemble: Ensemble | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    model_peak_rss_bytes: int = 0
    model_restarts: int = 0
    breaker_opened: int = 0
    forecasts_computed: int = 0
    forecasts_reused: int = 0
    notes: list[str] = field(default_factory=list)
    known: KnownForecasts | None = None
    own: dict[str, Source] = field(default_factory=dict)
    stopped: UserCodeRaised | None = None
    alerts: list[Alert] = field(default_factory=list)
    allow_short: bool = False
    trade_from_ns: int = 0
    nautilus_equity: float = 0.0

    @property
    def cost_rates(self) -> CostRates:
        """What trading and holding cost in this run; a strategy of the user's own may go short wherever it likes."""
        allow_short = self.allow_short or self.config.own.strategy is not None
        return CostRates.of(self.config.costs, self.market, allow_short=allow_short)

    @property
    def forecasts_made(self) -> str:
        """Which path the forecasts took: ``ahead`` in batches, ``online`` bar by bar, or ``none``."""
        if self.checkpoint is None or self.model_error:
            return "none"
        return "online" if runs_online(self.config) else "ahead"


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
        config = dataclasses.replace(config, regime=_for_market(config.regime, market))
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
            _trade(run, _answerer(run, client, recorded, parts), client, show, parts if rig is not None else None, own)
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


def bars_per_year(market: Market) -> float:
    """Bars in a year of this market's calendar: by kind and bar size alone, never counted from the data."""
    per_day = max(1.0, _SESSION_SECONDS[market.kind] / market.size.seconds)
    return market.kind.trading_days_per_year * per_day


def _for_market(regime: RegimeConfig, market: Market) -> RegimeConfig:
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


def _trade(
    run: BacktestRun,
    detector: Detector | RecordedDetector,
    client: ModelClient | None,
    show: Progress,
    rig: Rig | None,
    own: Plugin | None,
) -> None:
    """Let NT run the actor and the strategy over the bars, and collect what they leave."""
    market = run.market
    strategy, books = _strategy(run, rig or Rig(), own)
    record = _recorder(run, books, show)
    actor = RegimeActor(RegimeActorConfig(bar_type=market.bar_type), detector, record, rig)
    if rig is not None and isinstance(detector, Detector) and isinstance(strategy, SageStrategy):
        rig.built(Parts(detector, client, strategy, run.ledger))
    log = OrderLog()
    show.stage("trading", len(market.bars))
    engine = _engine(run)
    try:
        engine.add_data(market.nautilus_bars)
        engine.add_actor(actor)
        engine.add_actor(log)
        if isinstance(books, Bookkeeper):
            engine.add_actor(books)
        engine.add_strategy(strategy)
        _run_engine(engine, run, own)
        if isinstance(detector, Detector):
            run.breaker_opened = detector.state.breaker.times_opened
            run.alerts = list(detector.state.alerts.log)
        run.book = books.book
        # NT knows nothing of what holding costs.
        run.nautilus_equity = _nautilus_equity(engine, market) - run.ledger.carried
        run.order_steps = log.steps
        run.refused_orders = books.refused_orders
        if isinstance(strategy, SageStrategy):
            run.sent_orders = strategy.sent_orders
            run.ignored_signals = dict(strategy.ignored_signals)
        run.forecast_failures = {str(reason): count for reason, count in sorted(detector.failures.items())}
        run.orders = [
            OrderRecord(
                order_id=order.client_order_id.value,
                ts_ns=order.ts_init,
                side=1 if order.is_buy else -1,
                quantity=float(order.quantity.as_decimal()),
                filled_quantity=float(order.filled_qty.as_decimal()),
                status=order.status_string(),
            )
            for order in sorted(engine.cache.orders(), key=lambda order: (order.ts_init, order.client_order_id.value))
        ]
        if run.stopped is None:
            _require_all_bars(run, engine, exactly_one_each=rig is None)
    finally:
        engine.dispose()


def _strategy(run: BacktestRun, rig: Rig, own: Plugin | None) -> tuple[Strategy, SageStrategy | Bookkeeper]:
    """What trades, and who keeps its books: SAGE's strategy does so itself, for any other there is a bookkeeper."""
    config, market = run.config, run.market
    if own is not None:
        run.own[own.option] = own.source
        strategy = build_strategy(own, market, config.own.params)
        return strategy, Bookkeeper(BookkeeperConfig(bar_type=market.bar_type), run.ledger)
    policy = rig.policy(config.sizing, bars_per_year(market), allow_short=run.allow_short)
    assert run.ensemble is not None
    strategy_config = SageStrategyConfig(bar_type=market.bar_type, trade_from_ns=run.trade_from_ns)
    run.volume_limit = VolumeLimit(config.costs.participation if volume_is_real(market.kind) else 0.0)
    ours = SageStrategy(strategy_config, run.ensemble, policy, run.ledger, run.volume_limit)
    return ours, ours


def _run_engine(engine: BacktestEngine, run: BacktestRun, own: Plugin | None) -> None:
    """Run; what a user's strategy raises at a bar ends the run there, and what there is so far is kept."""
    try:
        engine.run()
    except Exception as error:
        if own is None:
            raise
        seen, bars = len(run.timings), run.market.bars
        where = f"at bar {seen:,} of {len(bars):,}, {iso(run.answer_stamps[-1])}" if seen else "before the first bar"
        stopped = UserCodeRaised.of(
            error, f"{own.option} {own.source.spec} raised {type(error).__name__} {where}: {error}"
        )
        if not seen:
            raise stopped from error
        run.stopped = stopped


def _require_all_bars(run: BacktestRun, engine: BacktestEngine, *, exactly_one_each: bool) -> None:
    """Raise BacktestFailed where NT stopped early, which it does without a word, or a bar was not answered."""
    bars, answers = len(run.market.bars), len(run.signals) + len(run.rejections)
    if engine.iteration != bars:
        equity = run.book[-1].equity if run.book else run.config.cash
        raise BacktestFailed(
            f"NautilusTrader stopped after {engine.iteration} of {bars} bars; the last equity was {equity:.2f}", run
        )
    if exactly_one_each and answers != bars:
        words = f"{bars} bars, but {len(run.signals)} signals and {len(run.rejections)} rejections"
        raise BacktestFailed(words, run)


def _recorder(
    run: BacktestRun, books: SageStrategy | Bookkeeper, show: Progress
) -> Callable[[Signal | BarRejected, Timing], None]:
    levels = dict.fromkeys(Level, 0)

    def record(answer: Signal | BarRejected, timing: Timing) -> None:
        run.timings.append(timing)
        run.answer_stamps.append(answer.ts_event)
        if isinstance(answer, Signal):
            run.signals.append(answer)
            levels[answer.level] += 1
        else:
            run.rejections.append(answer)
        if len(run.timings) % _PROGRESS_EVERY_BARS == 0:
            equity = books.book[-1].equity if books.book else run.config.cash
            mix = " ".join(f"{level.name[:2]}:{count}" for level, count in levels.items() if count)
            show.advance(_PROGRESS_EVERY_BARS, f"{mix}  equity {equity:,.0f}")

    return record


def _engine(run: BacktestRun) -> BacktestEngine:
    config, market = run.config, run.market
    # NT's logger writes to stdout, which belongs to the result.
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("SAGE-001"), logging=LoggingConfig(bypass_logging=True), run_analysis=False
        )
    )
    currency = _quote_currency(market.instrument)
    engine.add_venue(
        venue=market.instrument.id.venue,
        oms_type=OmsType.NETTING,
        # A cash account would refuse an order that the next close makes a cent too dear. Our own sizing keeps the
        # exposure within equity, which NT enforces for neither kind of account in the way a broker would.
        account_type=AccountType.MARGIN,
        base_currency=currency,
        starting_balances=[Money(config.cash, currency)],
        fee_model=TradeCosts(run.cost_rates, engine.kernel.clock.timestamp_ns),
        latency_model=LatencyModel(round(config.costs.latency_ms * 1e6)) if config.costs.latency_ms else None,
    )
    engine.add_instrument(market.instrument)
    return engine


def _nautilus_equity(engine: BacktestEngine, market: Market) -> float:
    """NT's own idea of the final equity, to hold ours against."""
    balance = engine.portfolio.account(market.instrument.id.venue).balance_total(_quote_currency(market.instrument))
    unrealised = engine.portfolio.unrealized_pnl(market.instrument.id)
    return float(balance.as_decimal()) + (float(unrealised.as_decimal()) if unrealised is not None else 0.0)


def _quote_currency(instrument: Instrument) -> object:
    return instrument.quote_currency or USD
