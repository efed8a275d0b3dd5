"""A strategy of your own: two moving averages, held only while SAGE calls the market calm.

    sage backtest --strategy examples.own_strategy:CalmCross --param slow_bars=60

It is an ordinary NautilusTrader strategy. SAGE fills ``bar_type`` in, keeps the books and writes the report; what it
says of the market comes as ``RegimeSignal``, before ``on_bar`` of the same bar, to whoever subscribes.
"""

from __future__ import annotations

from collections import deque

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.trading.strategy import Strategy

from regime.nt_signal import RegimeSignal, signal_type


class CalmCrossConfig(StrategyConfig, frozen=True):
    """Lengths in bars; ``cash`` is what a position is worth when it is opened, in quote currency."""

    bar_type: BarType
    fast_bars: int = 12
    slow_bars: int = 48
    cash: float = 50_000.0


class CalmCross(Strategy):
    """Long while the fast average lies above the slow one and volatility is low; else flat."""

    def __init__(self, config: CalmCrossConfig) -> None:
        super().__init__(config)
        self.closes: deque[float] = deque(maxlen=config.slow_bars)
        self.calm = False

    def on_start(self) -> None:
        """Ask for bars and signals."""
        self.instrument = self.cache.instrument(self.config.bar_type.instrument_id)
        self.subscribe_bars(self.config.bar_type)
        self.subscribe_data(signal_type(self.instrument.id))

    def on_data(self, data: object) -> None:
        """Remember what SAGE says of this bar."""
        if isinstance(data, RegimeSignal):
            self.calm = data.volatility_state == "LOW"

    def on_bar(self, bar: Bar) -> None:
        """Trade at the close."""
        self.closes.append(float(bar.close))
        if len(self.closes) < self.config.slow_bars or self.cache.orders_inflight(instrument_id=self.instrument.id):
            return
        closes = list(self.closes)
        fast = sum(closes[-self.config.fast_bars :]) / self.config.fast_bars
        wanted = self.calm and fast > sum(closes) / len(closes)
        if wanted and self.portfolio.is_flat(self.instrument.id):
            quantity = self.instrument.make_qty(self.config.cash / closes[-1])
            self.submit_order(self.order_factory.market(self.instrument.id, OrderSide.BUY, quantity))
        elif not wanted and not self.portfolio.is_flat(self.instrument.id):
            self.close_all_positions(self.instrument.id)
