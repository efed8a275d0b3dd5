"""The part of a run that is NautilusTrader's: actor, strategy and venue put together, run, and read out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.strategy import Strategy

from data.bars import iso
from data.instruments import Kind
from data.market import Market
from regime.actor import RegimeActor, RegimeActorConfig
from regime.detector import Detector, Timing
from regime.errors import UserCodeRaised
from regime.importing import RAISED
from regime.recorded import RecordedDetector
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Level, Signal
from sage.bookkeeper import Bookkeeper, BookkeeperConfig, OrderLog
from sage.collector import Insides, Observer
from sage.costs import TradeCosts
from sage.liquidity import VolumeLimit, volume_is_real
from sage.plugins import Plugin, build_strategy
from sage.progress import Progress
from sage.rig import Parts, Rig
from sage.run import BacktestFailed, BacktestRun, OrderRecord
from sage.strategy import SageStrategy, SageStrategyConfig

_SESSION_SECONDS = {Kind.EQUITY: 6.5 * 3600, Kind.FX: 86_400.0, Kind.CRYPTO: 86_400.0, Kind.PERPETUAL: 86_400.0}
_PROGRESS_EVERY_BARS = 200


def trade(
    run: BacktestRun,
    detector: Detector | RecordedDetector,
    client: ModelClient | None,
    show: Progress,
    rig: Rig | None,
    own: Plugin | None,
    observer: Observer | None,
) -> None:
    """Let NT run the actor and the strategy over the bars, and collect what they leave."""
    market = run.market
    strategy, books = _strategy(run, rig or Rig(), own)
    record = _recorder(run, books, show, observer)
    actor = RegimeActor(RegimeActorConfig(bar_type=market.bar_type), detector, record, rig)
    if rig is not None and isinstance(detector, Detector) and isinstance(strategy, SageStrategy):
        rig.built(Parts(detector, client, strategy, run.ledger))
    log = OrderLog()
    show.stage("trading", len(market.bars))
    engine = nautilus_engine(run)
    try:
        engine.add_data(market.nautilus_bars)
        engine.add_actor(actor)
        engine.add_actor(log)
        if isinstance(books, Bookkeeper):
            engine.add_actor(books)
        engine.add_strategy(strategy)
        if observer is not None:
            orders = engine.cache.orders_total_count
            observer.attach(Insides(len(market.bars), detector, client, run.ledger, books.book, orders))
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
        if observer is not None:
            observer.detach()
        end(engine, actor, log, books, strategy)


def end(engine: BacktestEngine, *components: Actor) -> None:
    """Have done with an engine and the actors and strategies of ours that it had.

    NT 1.221 keeps every engine that had actors or strategies for as long as the process lives. One that was reset has
    let go of bars, orders and events, which is most of it: of 1,000 bars with 30 orders 0.1 MB are left, not 0.6.
    """
    try:
        # A user's strategy has a say in the reset, and nothing that it does there matters any more.
        with contextlib.suppress(Exception, SystemExit):
            engine.reset()
    finally:
        engine.dispose()
        # What hangs on ours, kilobytes a bar, must not be kept with them.
        for component in components:
            component.__dict__.clear()


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
    except RAISED as error:
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
    run: BacktestRun, books: SageStrategy | Bookkeeper, show: Progress, observer: Observer | None
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
        if observer is not None:
            observer.hear(answer, timing)
        if len(run.timings) % _PROGRESS_EVERY_BARS == 0:
            equity = books.book[-1].equity if books.book else run.config.cash
            mix = " ".join(f"{level.name[:2]}:{count}" for level, count in levels.items() if count)
            show.advance(_PROGRESS_EVERY_BARS, f"{mix}  equity {equity:,.0f}")

    return record


def nautilus_engine(run: BacktestRun) -> BacktestEngine:
    """NT's engine with the venue, the costs and the instrument of a run, and nothing in it yet."""
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


def bars_per_year(market: Market) -> float:
    """Bars in a year of this market's calendar: by kind and bar size alone, never counted from the data."""
    per_day = max(1.0, _SESSION_SECONDS[market.kind] / market.size.seconds)
    return market.kind.trading_days_per_year * per_day
