"""Hears NT's order events, whoever sent the orders: books for a strategy not SAGE's, and a log of every step."""

from __future__ import annotations

from dataclasses import dataclass

from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderDenied, OrderEvent, OrderFilled, OrderRejected

from regime import nt_signal
from sage.ledger import BookEntry, Fill, Ledger

ORDER_EVENTS = "events.order.*"
"""The topic on NT's message bus on which every event of every strategy's orders appears."""


class BookkeeperConfig(ActorConfig, frozen=True):
    """Whose books."""

    bar_type: BarType


class Bookkeeper(Actor):
    """Enters fills in the ledger, notes the books at each bar that got a signal, and counts refused orders."""

    def __init__(self, config: BookkeeperConfig, ledger: Ledger) -> None:
        super().__init__(config)
        self.book: list[BookEntry] = []
        self.refused_orders: list[tuple[int, str, str]] = []
        self._bar_type = config.bar_type
        self._ledger = ledger

    def on_start(self) -> None:
        """Listen to signals and orders."""
        self.subscribe_data(nt_signal.signal_type(self._bar_type.instrument_id))
        # Before the strategy: a fill has happened, whatever the strategy's own handler then does.
        self.msgbus.subscribe(topic=ORDER_EVENTS, handler=self._on_order_event, priority=1)

    def on_data(self, data: object) -> None:
        """Note the books as they are at a bar's close, before the fills at it."""
        bar = self.cache.bar(self._bar_type)
        if bar is not None and isinstance(data, nt_signal.RegimeSignal):
            self.book.append(self._ledger.entry(bar.ts_event, bar.close.as_double()))

    def _on_order_event(self, event: OrderEvent) -> None:
        if isinstance(event, OrderFilled):
            self._ledger.book(fill_of(event))
        elif isinstance(event, (OrderRejected, OrderDenied)):
            self.refused_orders.append((event.ts_event, event.client_order_id.value, str(event.reason)))


@dataclass(frozen=True)
class OrderStep:
    """One event in an order's life, in NT's words: what was asked for, and what became of it."""

    ts_ns: int
    order_id: str
    event: str
    side: str
    kind: str
    quantity: str
    price: str
    options: str


class OrderLog(Actor):
    """Writes down every step of every order up to the end of the bars.

    What strategies do when the run stops, closing positions for example, comes after that and is left out: how long
    the data last is no secret then.
    """

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="OrderLog"))
        self.steps: list[OrderStep] = []

    def on_start(self) -> None:
        """Listen to orders."""
        self.msgbus.subscribe(topic=ORDER_EVENTS, handler=self._on_order_event, priority=2)

    def on_stop(self) -> None:
        """Listen no longer; NT stops actors before strategies."""
        self.msgbus.unsubscribe(topic=ORDER_EVENTS, handler=self._on_order_event)

    def _on_order_event(self, event: OrderEvent) -> None:
        told = event.to_dict(event)
        options = dict(told.get("options") or {})
        step = OrderStep(
            ts_ns=event.ts_event,
            order_id=event.client_order_id.value,
            event=type(event).__name__,
            side=str(told.get("order_side") or ""),
            kind=str(told.get("order_type") or ""),
            quantity=str(told.get("last_qty") or told.get("quantity") or ""),
            price=str(told.get("last_px") or told.get("price") or options.pop("price", "")),
            options=", ".join(f"{name} {value}" for name, value in sorted(options.items())),
        )
        self.steps.append(step)


def fill_of(event: OrderFilled) -> Fill:
    """NT's fill as our books enter it."""
    return Fill(
        ts_ns=event.ts_event,
        order_id=event.client_order_id.value,
        side=1 if event.order_side == OrderSide.BUY else -1,
        # By way of the decimal: as_double may miss the nearest float by one digit.
        quantity=float(event.last_qty.as_decimal()),
        price=float(event.last_px.as_decimal()),
        commission=float(event.commission.as_decimal()),
    )
