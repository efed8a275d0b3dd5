"""Users' classes for the tests, named to the program as ``tests.sage.own:Class``."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from nautilus_trader.common.events import TimeEvent
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.trading.strategy import Strategy

from regime.nt_signal import RegimeSignal, signal_type


class FlipsConfig(StrategyConfig, frozen=True):
    bar_type: BarType
    every_bars: int = 25
    quantity: int = 10
    raise_in: str = ""
    raise_at: int = 0


class Flips(Strategy):
    """In and out, every so many bars; raises in a handler of choice."""

    def __init__(self, config: FlipsConfig) -> None:
        super().__init__(config)
        self.bars = 0
        self.signals: list[RegimeSignal] = []
        self.stamps: list[int] = []
        self._raise("__init__")

    def _raise(self, where: str) -> None:
        if where == self.config.raise_in and self.bars >= self.config.raise_at:
            raise ArithmeticError(f"my own mistake in {where}")

    def on_start(self) -> None:
        self._raise("on_start")
        self.instrument = self.cache.instrument(self.config.bar_type.instrument_id)
        self.subscribe_bars(self.config.bar_type)
        self.subscribe_data(signal_type(self.instrument.id))
        self.clock.set_timer("every four hours", timedelta(hours=4), callback=self.on_timer)

    def on_timer(self, event: TimeEvent) -> None:
        self._raise("on_timer")

    def on_data(self, data: RegimeSignal) -> None:
        self.signals.append(data)
        self._raise("on_data")

    def on_bar(self, bar: Bar) -> None:
        self.bars += 1
        self.stamps.append(bar.ts_event)
        if self.bars % self.config.every_bars == 0:
            side = OrderSide.BUY if self.portfolio.is_flat(self.instrument.id) else OrderSide.SELL
            quantity = self.instrument.make_qty(self.config.quantity)
            self.submit_order(self.order_factory.market(self.instrument.id, side, quantity))
        self._raise("on_bar")

    def on_order_filled(self, event: OrderFilled) -> None:
        self._raise("on_order_filled")

    def on_stop(self) -> None:
        self._raise("on_stop")


class NeedsMoreConfig(StrategyConfig, frozen=True):
    bar_type: BarType
    trade_size: float


class NeedsMore(Strategy):
    def __init__(self, config: NeedsMoreConfig) -> None:
        super().__init__(config)


class Unannotated(Strategy):
    def __init__(self, config: int) -> None:
        super().__init__()


class WantsTheMoon(Strategy):
    def __init__(self, moon: object, config: FlipsConfig | None = None) -> None:
        super().__init__(config)


class WithoutConfig(Strategy):
    """Takes nothing, and sees in the cache what there is."""

    def on_start(self) -> None:
        (instrument,) = self.cache.instruments()
        self.subscribe_bars(BarType.from_str(f"{instrument.id}-1-HOUR-LAST-EXTERNAL"))


class TakesBars(Flips):
    """Is handed all bars."""

    def __init__(self, config: FlipsConfig, bars: pd.DataFrame) -> None:
        super().__init__(config)
        self.frame = bars


class NotAStrategy:
    pass
