"""The SAGE strategy: hears a signal, checks it, decides an exposure, sends the orders.

It acts in its signal handler, when NT's cache already holds the bar. Working entries are cancelled when the level
worsens or a bar is rejected, and a new decision waits until earlier orders are done.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.events import OrderDenied, OrderFilled, OrderRejected
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import QUANTITY_MAX
from nautilus_trader.trading.strategy import Strategy

from regime import nt_signal
from regime.actor import bar_input
from regime.signal import Level, Signal
from sage.bookkeeper import fill_of
from sage.ensemble import Ensemble
from sage.ledger import BookEntry, Ledger
from sage.liquidity import VolumeLimit
from sage.sizing import ExposurePolicy, Move, Target, problem_with


@dataclass(frozen=True)
class SentOrder:
    """An order as it was decided: the exposure at this close before it and, were it filled here, after it.

    ``quantity`` is signed; ``cap`` is that of the level whose signal it follows.
    """

    ts_ns: int
    level: Level
    move: Move
    cap: float
    quantity: float
    reduce_only: bool
    exposure_before: float
    exposure_after: float


class SageStrategyConfig(StrategyConfig, frozen=True):
    """Which bars' signals to trade on, from which time."""

    bar_type: BarType
    trade_from_ns: int = 0


class SageStrategy(Strategy):
    """Trades one instrument on its regime signals, as an ensemble of alphas votes.

    Parameters
    ----------
    config
        NT's configuration.
    ensemble
        Asks the alphas and weighs their votes.
    policy
        Decides exposures.
    ledger
        Keeps the books; the caller reads them after the run.
    volume_limit
        What a bar's volume bears; no limit by default.
    """

    def __init__(
        self,
        config: SageStrategyConfig,
        ensemble: Ensemble,
        policy: ExposurePolicy,
        ledger: Ledger,
        volume_limit: VolumeLimit | None = None,
    ) -> None:
        super().__init__(config)
        self.book: list[BookEntry] = []
        self.ignored_signals: Counter[str] = Counter()
        self.refused_orders: list[tuple[int, str, str]] = []
        self.sent_orders: list[SentOrder] = []
        self._bar_type = config.bar_type
        self._trade_from_ns = config.trade_from_ns
        self._ensemble = ensemble
        self._policy = policy
        self._ledger = ledger
        self._volume_limit = volume_limit or VolumeLimit(0.0)
        self._instrument: Instrument | None = None
        self._last_level = Level.EMERGENCY

    def on_start(self) -> None:
        """Subscribe to bars and signals of the instrument."""
        instrument_id = self._bar_type.instrument_id
        self._instrument = self.cache.instrument(instrument_id)
        if self._instrument is None:
            raise RuntimeError(f"instrument {instrument_id} is not in NT's cache")
        self.subscribe_bars(self._bar_type)
        self.subscribe_data(nt_signal.signal_type(instrument_id))
        self.subscribe_data(nt_signal.rejection_type(instrument_id))

    def on_data(self, data: object) -> None:
        """Act on a signal, or stay put on a rejected bar."""
        if not isinstance(data, nt_signal.RegimeSignal):
            # A rejected bar: open nothing, and take back what is not filled yet.
            self._cancel_entries()
            return
        bar = self.cache.bar(self._bar_type)
        try:
            signal = nt_signal.from_nautilus(data)
        except ValueError as error:
            self._ignore(f"unreadable: {error}")
            return
        problem = problem_with(signal, bar.ts_event) if bar is not None else "no bar"
        if problem is not None or bar is None:
            self._ignore(problem or "no bar")
            return
        self._act(signal, bar)

    def on_order_filled(self, event: OrderFilled) -> None:
        """Book the fill."""
        self._ledger.book(fill_of(event))

    def on_order_rejected(self, event: OrderRejected) -> None:
        """Count an order that the venue refused."""
        self.refused_orders.append((event.ts_event, event.client_order_id.value, str(event.reason)))

    def on_order_denied(self, event: OrderDenied) -> None:
        """Count an order that NT's risk engine refused."""
        self.refused_orders.append((event.ts_event, event.client_order_id.value, str(event.reason)))

    def _act(self, signal: Signal, bar: Bar) -> None:
        entry = self._ledger.entry(bar.ts_event, bar.close.as_double())
        self.book.append(entry)
        if signal.level > self._last_level:
            self._cancel_entries()
        self._last_level = signal.level
        bearable = self._volume_limit.at(bar.volume.as_double())
        poll = self._ensemble.step(bar_input(bar), signal)
        target = self._policy.decide(signal, poll.conviction, entry.exposure, poll.disagreement, entry.equity)
        if target.move is Move.NONE or self._has_working_orders():
            return
        self._trade(target, signal.level, entry, bearable)

    def _trade(self, target: Target, level: Level, entry: BookEntry, bearable: float | None) -> None:
        """Send what leads from the present position to the target exposure, as far as the bar's volume bears it."""
        instrument = self._instrument
        assert instrument is not None
        if entry.equity <= 0 or entry.ts_ns < self._trade_from_ns:
            return
        step = Decimal(1).scaleb(-instrument.size_precision)
        held = Decimal(str(entry.position)).quantize(step)
        # Towards zero: rounding must not push an exposure over its cap.
        # And not beyond what NT can hold, which a coin of a billionth of a cent reaches with modest cash.
        size = max(-QUANTITY_MAX / 2, min(QUANTITY_MAX / 2, target.exposure * entry.equity / entry.close))
        wanted = (Decimal(str(size)) / step).to_integral_value(ROUND_DOWN) * step
        steps = [wanted - held] if wanted != held else []
        if held * wanted < 0:
            # Through zero in two orders: NT loses the closed position of a single double-sized one.
            steps = [-held, wanted]
        for quantity in self._bearable(steps, bearable, step, entry.close):
            before, held = held, held + quantity
            reduce_only = abs(held) < abs(before)
            self._send(quantity, reduce_only=reduce_only)
            exposures = (float(size) * entry.close / entry.equity for size in (before, held))
            self.sent_orders.append(
                SentOrder(entry.ts_ns, level, target.move, target.cap, float(quantity), reduce_only, *exposures)
            )

    def _bearable(self, steps: list[Decimal], bearable: float | None, step: Decimal, price: float) -> list[Decimal]:
        """The orders, one after the other, as far as ``bearable`` goes; what is left over is counted."""
        if bearable is None:
            return steps
        left = (Decimal(str(bearable)) / step).to_integral_value(ROUND_DOWN) * step
        sent = []
        for quantity in steps:
            part = min(abs(quantity), left).copy_sign(quantity)
            left -= abs(part)
            if part:
                sent.append(part)
        cut = sum(map(abs, steps)) - sum(map(abs, sent))
        if cut:
            self._volume_limit.cut(float(cut) * price)
        return sent

    def _send(self, quantity: Decimal, *, reduce_only: bool) -> None:
        instrument = self._instrument
        assert instrument is not None
        order = self.order_factory.market(
            instrument_id=instrument.id,
            order_side=OrderSide.BUY if quantity > 0 else OrderSide.SELL,
            quantity=instrument.make_qty(abs(quantity)),
            time_in_force=TimeInForce.GTC,
            reduce_only=reduce_only,
        )
        self.submit_order(order)

    def _has_working_orders(self) -> bool:
        instrument_id = self._bar_type.instrument_id
        cache = self.cache
        return bool(
            cache.orders_open_count(instrument_id=instrument_id)
            or cache.orders_inflight_count(instrument_id=instrument_id)
        )

    def _cancel_entries(self) -> None:
        """Take back orders that would add risk; those that take it off go on."""
        instrument_id = self._bar_type.instrument_id
        cache = self.cache
        working = [
            *cache.orders_open(instrument_id=instrument_id),
            *cache.orders_inflight(instrument_id=instrument_id),
        ]
        for order in working:
            if not order.is_reduce_only:
                self.cancel_order(order)

    def _ignore(self, problem: str) -> None:
        self.ignored_signals[problem.partition(":")[0]] += 1
        self.log.warning(f"signal not traded on: {problem}")
