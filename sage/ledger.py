"""Our own books: cash and position from the fills, equity at any price. No figure of a run comes from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fill:
    """One execution. ``quantity`` is positive, ``side`` +1 for buys and -1 for sells, costs in quote currency."""

    ts_ns: int
    order_id: str
    side: int
    quantity: float
    price: float
    commission: float


@dataclass(frozen=True)
class BookEntry:
    """The books as a decision saw them: at a bar's close, before the fills at it, which NT delivers afterwards."""

    ts_ns: int
    close: float
    equity: float
    position: float
    exposure: float


class Ledger:
    """Cash, position and costs paid so far."""

    def __init__(self, cash: float) -> None:
        self.cash = cash
        self.position = 0.0
        self.costs = 0.0
        self.traded_notional = 0.0
        self.fills: list[Fill] = []

    def book(self, fill: Fill) -> None:
        """Enter a fill."""
        notional = fill.quantity * fill.price
        self.cash -= fill.side * notional + fill.commission
        # Sizes have at most nine decimals; rounding keeps a closed position from leaving dust.
        self.position = round(self.position + fill.side * fill.quantity, 12)
        self.costs += fill.commission
        self.traded_notional += notional
        self.fills.append(fill)

    def equity(self, price: float) -> float:
        """Cash and position at this price."""
        return self.cash + self.position * price

    def exposure(self, price: float) -> float:
        """Signed position value over equity; 0 when there is no equity left."""
        equity = self.equity(price)
        return self.position * price / equity if equity > 0 else 0.0

    def entry(self, ts_ns: int, price: float) -> BookEntry:
        """The books at this time and price."""
        return BookEntry(ts_ns, price, self.equity(price), self.position, self.exposure(price))
