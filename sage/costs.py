"""Trading costs inside NT: the fee and half the spread, charged on every fill."""

from __future__ import annotations

from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.model.orders import Order

from sage.config import CostConfig


class FeeAndSpread(FeeModel):
    """Bars have no bid and ask, so the half-spread that a market order pays is charged beside the fee."""

    def __init__(self, costs: CostConfig) -> None:
        super().__init__()
        self._rate = (costs.fee_bps + costs.spread_bps / 2) / 10_000

    def get_commission(
        self,
        order: Order,  # noqa: ARG002 (NT's signature)
        fill_qty: Quantity,
        fill_px: Price,
        instrument: Instrument,
    ) -> Money:
        """Commission of one fill, in the quote currency."""
        return Money(fill_qty.as_double() * fill_px.as_double() * self._rate, instrument.quote_currency)
