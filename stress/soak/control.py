"""The control of a soak: NautilusTrader with the same bars and the same orders, and nothing of SAGE's.

What its memory does is NautilusTrader's doing. That grows by the order on some versions, and by the engine with all
that is wired to it, so that a strategy alone which sends nothing would be no measure for it: this one decides nothing,
sends what the trading side has sent in the same segment, and stands among as many actors, which do nothing either.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig, StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.events import OrderEvent
from nautilus_trader.trading.strategy import Strategy

from data.market import Market
from regime import nt_signal
from sage.bookkeeper import ORDER_EVENTS
from sage.config import BacktestConfig
from sage.engine import end, nautilus_engine
from sage.run import BacktestRun
from stress.soak.heap import settle
from stress.soak.market import EndlessMarket
from stress.soak.messages import OrderSent, Played
from stress.soak.sampling import Sampling, Tell


class Publisher(Actor):
    """In the place of the actor that asks the model: publishes the same nothing at every bar."""

    def __init__(self, bar_type: BarType) -> None:
        super().__init__(ActorConfig(component_id="Publisher"))
        self._bar_type = bar_type
        self._type = nt_signal.rejection_type(bar_type.instrument_id)

    def on_start(self) -> None:
        """Listen to the bars."""
        self.subscribe_bars(self._bar_type)

    def on_bar(self, bar: Bar) -> None:
        """Publish it."""
        nothing = nt_signal.RegimeBarRejected(
            ts_event=bar.ts_event, ts_init=bar.ts_init, instrument_id=self._bar_type.instrument_id, why=""
        )
        self.publish_data(self._type, nothing)


class Listener(Actor):
    """In the place of the log of orders: hears of each of their steps."""

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="Listener"))

    def on_start(self) -> None:
        """Listen to orders."""
        self.msgbus.subscribe(topic=ORDER_EVENTS, handler=self._on_order_event)

    def on_stop(self) -> None:
        """Listen no longer."""
        self.msgbus.unsubscribe(topic=ORDER_EVENTS, handler=self._on_order_event)

    def _on_order_event(self, event: OrderEvent) -> None:
        """Do nothing."""


class ReplayConfig(StrategyConfig, frozen=True):
    """Which bars to listen to."""

    bar_type: BarType


class ReplayOrders(Strategy):
    """Sends given orders at given bars."""

    def __init__(self, config: ReplayConfig, orders: Sequence[OrderSent], sampling: Sampling, segment: int) -> None:
        super().__init__(config)
        self._bar_type = config.bar_type
        self._orders: dict[int, list[OrderSent]] = defaultdict(list)
        for order in orders:
            self._orders[order.ts_ns].append(order)
        self._sampling = sampling
        self._segment = segment
        self._number = 0

    def on_start(self) -> None:
        """Listen to the bars."""
        self.subscribe_bars(self._bar_type)
        for kind in (nt_signal.signal_type, nt_signal.rejection_type):
            self.subscribe_data(kind(self._bar_type.instrument_id))

    def on_bar(self, bar: Bar) -> None:
        """Send what is due."""
        self._number += 1
        self._sampling.before_bar(self._segment, self._number)
        instrument = self.cache.instrument(self._bar_type.instrument_id)
        for sent in self._orders.get(bar.ts_event, ()):
            order = self.order_factory.market(
                instrument_id=instrument.id,
                order_side=OrderSide.BUY if sent.quantity > 0 else OrderSide.SELL,
                quantity=instrument.make_qty(abs(sent.quantity)),
                time_in_force=TimeInForce.GTC,
                reduce_only=sent.reduce_only,
            )
            self.submit_order(order)


class ControlSide:
    """Plays segments without SAGE, and samples its own memory where the trading side does."""

    def __init__(self, config: BacktestConfig, market: EndlessMarket, generation: int, tell: Tell) -> None:
        self._config = config
        self._market = market
        self._generation = generation
        self.sampling = Sampling("control", generation, market.segment_bars, tell)

    def play(self, segment: int, orders: Sequence[OrderSent], *, sampled: bool = True) -> Played:
        """Run one segment."""
        self.sampling.begin(wanted=sampled)
        began = time.monotonic()
        market = self._market.segment(segment)
        self._run(market, orders, segment)
        self.sampling.end(len(market.bars))
        settle()
        seconds = time.monotonic() - began
        return Played(self._generation, segment, len(market.bars), 0, tuple(orders), (), "", seconds)

    def _run(self, market: Market, orders: Sequence[OrderSent], segment: int) -> None:
        engine = nautilus_engine(BacktestRun(self._config, market, None, "", ""))
        actors = [Publisher(market.bar_type), Listener()]
        strategy = ReplayOrders(ReplayConfig(bar_type=market.bar_type), orders, self.sampling, segment)
        try:
            engine.add_data(market.nautilus_bars)
            for actor in actors:
                engine.add_actor(actor)
            engine.add_strategy(strategy)
            engine.run()
        finally:
            end(engine, *actors, strategy)
