"""Users' classes for the tests, named to the program as ``tests.sage.own:Class``."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
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


class Handed(Strategy):
    """Long while its indicator, computed before the run from the bars that it was handed, is above zero; else flat.

    What derives from it says where the indicator comes from, as a series by time; each bar takes the last value that is
    stamped at its close or earlier.
    """

    def __init__(self, config: FlipsConfig, bars: pd.DataFrame) -> None:
        super().__init__(config)
        self.indicator = self.precompute(bars)

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        """Honest: the close beside its rolling mean."""
        return bars["close"] - bars["close"].rolling(24).mean()

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(self.config.bar_type.instrument_id)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Bar) -> None:
        long = self.indicator.asof(pd.Timestamp(bar.ts_event, tz="UTC")) > 0
        if long == self.portfolio.is_flat(self.instrument.id):
            side = OrderSide.BUY if long else OrderSide.SELL
            quantity = self.instrument.make_qty(self.config.quantity / 10)
            self.submit_order(self.order_factory.market(self.instrument.id, side, quantity))


class PeeksOneBar(Handed):
    """Knows the next close."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return bars["close"].shift(-1) - bars["close"]


class ScalesOnAll(Handed):
    """Standardises by mean and deviation of all bars, those to come included."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        closes = bars["close"]
        return (closes - closes.mean()) / closes.std()


class StampedAtOpen(Handed):
    """Resamples to four hours, stamped where they begin: pandas' default."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        closes = bars["close"].resample("4h").last()
        return closes - closes.rolling(6).mean()


class PeeksNowAndThen(Handed):
    """Knows the next close on every fortieth bar, and is honest on all others."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        honest = super().precompute(bars)
        peeking = bars["close"].shift(-1) - bars["close"]
        honest.iloc[39::40] = peeking.iloc[39::40]
        return honest


class KnowsTheLength(Handed):
    """Asks for the bar after the last one, and falls over where there is none."""

    def on_bar(self, bar: Bar) -> None:
        row = int(self.indicator.index.get_loc(pd.Timestamp(bar.ts_event, tz="UTC")))
        if bar.ts_event < pd.Timestamp("2024-01-10", tz="UTC").value:
            self.indicator.iloc[row + 1]
        super().on_bar(bar)


class LeavesItToChance(Handed):
    """Differs from run to run, over the same bars."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return super().precompute(bars) + np.random.default_rng().normal(0.0, 500.0, len(bars))


class FlattensAtTheEnd(Handed):
    """Closes what it holds when the run stops, and takes its orders back: usual, and no look-ahead."""

    def on_stop(self) -> None:
        self.cancel_all_orders(self.instrument.id)
        self.close_all_positions(self.instrument.id)


class BuiltTwiceOnly(Handed):
    """Cannot be built a third time."""

    built = 0

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        type(self).built += 1
        if self.built > 2:
            raise ValueError("not twice, but more")
        return super().precompute(bars)


class QuotesTheNextBar(Handed):
    """Places limit orders at the next bar's low: times and quantities are innocent, prices are not."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return bars["low"].shift(-1).fillna(bars["low"])

    def on_bar(self, bar: Bar) -> None:
        self.cancel_all_orders(self.instrument.id)
        price = self.instrument.make_price(self.indicator.asof(pd.Timestamp(bar.ts_event, tz="UTC")))
        quantity = self.instrument.make_qty(self.config.quantity / 100)
        self.submit_order(self.order_factory.limit(self.instrument.id, OrderSide.BUY, quantity, price))


class ReadsAFile(Handed):
    """Knows what it knows from a file, which nobody can alter for it."""

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return bars["close"] - float(Path(os.environ["SAGE_TEST_LEVEL"]).read_text())
