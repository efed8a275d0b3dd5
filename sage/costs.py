"""What trading and holding cost, what of it a run charges, and what it has no model of.

A market order pays the fee, half the spread and slippage on every fill; NT is told their sum. Holding pays funding
(perpetuals) or borrowing (short shares and coins), which our own books accrue. A cost that is not configured is not
charged, and said to be not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.model.orders import Order

from data.instruments import Kind
from data.market import Market
from data.spreads import HourlySpreads
from sage.config import CostConfig
from sage.ledger import CarryRates, Ledger

UNKNOWN_SPREAD_BPS = 2.0
"""The full spread where none is configured and none was measured (yet)."""

_FUNDING_S = 8 * 3600
_YEAR_S = 365 * 86_400
_BPS = 1e-4


class Charge(StrEnum):
    """What a run makes of a kind of cost."""

    CHARGED = "charged"
    NOT_MODELLED = "not modelled"
    NONE = "does not apply"


@dataclass(frozen=True)
class CostLine:
    """One kind of cost for people; ``paid`` is in quote currency, negative where received, None where not charged."""

    name: str
    charge: Charge
    told: str
    paid: float | None = None


@dataclass(frozen=True)
class CostRates:
    """The rates of one run. ``borrows`` says whether a short position has to borrow what it sells."""

    config: CostConfig
    kind: Kind
    borrows: bool
    spreads: HourlySpreads | None

    @classmethod
    def of(cls, config: CostConfig, market: Market, *, allow_short: bool) -> CostRates:
        """For a market: spreads measured there count unless one is configured."""
        spreads = market.spreads if config.spread_bps is None else None
        return cls(config, market.kind, allow_short and not market.kind.can_short, spreads)

    def half_spread_bps(self, ts_ns: int) -> float:
        """Half the spread at a time: as measured before it, else as configured."""
        measured = self.spreads.half_spread_before(ts_ns) if self.spreads is not None else None
        if measured is not None:
            return measured
        return (UNKNOWN_SPREAD_BPS if self.config.spread_bps is None else self.config.spread_bps) / 2

    def trade_rate(self, ts_ns: int) -> float:
        """What a fill at this time costs, as a share of its value."""
        return (self.config.fee_bps + self.half_spread_bps(ts_ns) + (self.config.slippage_bps or 0.0)) * _BPS

    @property
    def carry(self) -> CarryRates:
        """What holding costs."""
        funding = self.config.funding_bps_8h if self.kind is Kind.PERPETUAL else None
        borrowing = self.config.borrow_bps_year if self.borrows else None
        return CarryRates((funding or 0.0) * _BPS / _FUNDING_S, (borrowing or 0.0) * _BPS / _YEAR_S)

    def lines(self, ledger: Ledger) -> list[CostLine]:
        """Every kind of cost that there is, what it came to, and what is not modelled."""
        config, traded = self.config, ledger.traded_notional
        fees, slippage = (traded * bps * _BPS for bps in (config.fee_bps, config.slippage_bps or 0.0))
        funding, borrowing = (
            sum(getattr(carry, name) for carry in ledger.carries) for name in ("funding", "borrowing")
        )
        lines = [
            CostLine("fee", Charge.CHARGED, f"{config.fee_bps:g} bps a trade", fees),
            CostLine("half-spread", Charge.CHARGED, self._spread_told(), ledger.costs - fees - slippage),
            _line("slippage", config.slippage_bps, "bps a trade", slippage),
            _line("funding", config.funding_bps_8h, "bps per 8 hours, paid by longs to shorts", funding,
                  applies=self.kind is Kind.PERPETUAL),
            _line("borrowing", config.borrow_bps_year, "bps a year of a short position's value", borrowing,
                  applies=self.borrows),
        ]  # fmt: skip
        if self.kind is Kind.FX:
            lines.append(_line("overnight interest", None, "", 0.0))
        return [*lines, _line("market impact", None, "", 0.0)]

    def _spread_told(self) -> str:
        if self.spreads is None:
            return f"{self.half_spread_bps(0):g} bps a trade"
        known = self.spreads.by_hour_of_day()
        low, high = np.nanmin(known), np.nanmax(known)
        return f"{low:.2f} to {high:.2f} bps a trade by hour of the day, as measured before it"


def _line(name: str, rate: float | None, unit: str, paid: float, *, applies: bool = True) -> CostLine:
    if not applies:
        return CostLine(name, Charge.NONE, Charge.NONE)
    if rate is None:
        return CostLine(name, Charge.NOT_MODELLED, Charge.NOT_MODELLED)
    return CostLine(name, Charge.CHARGED, f"{rate:g} {unit}", paid)


class TradeCosts(FeeModel):
    """Charges every fill inside NT; bars have no bid and ask, so the half-spread comes beside the fee.

    Parameters
    ----------
    rates
        What to charge.
    now_ns
        NT's clock: the time of the fill, which NT does not hand over.
    """

    def __init__(self, rates: CostRates, now_ns: Callable[[], int]) -> None:
        super().__init__()
        self._rates = rates
        self._now_ns = now_ns

    def get_commission(
        self,
        order: Order,  # noqa: ARG002 (NT's signature)
        fill_qty: Quantity,
        fill_px: Price,
        instrument: Instrument,
    ) -> Money:
        """Commission of one fill, in the quote currency."""
        rate = self._rates.trade_rate(self._now_ns())
        return Money(fill_qty.as_double() * fill_px.as_double() * rate, instrument.quote_currency)
