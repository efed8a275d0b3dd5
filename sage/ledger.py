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


@dataclass(frozen=True)
class CarryRates:
    """What holding costs, per second: ``funding`` of a position's signed value, ``borrowing`` of a short one's."""

    funding: float = 0.0
    borrowing: float = 0.0


@dataclass(frozen=True)
class Carry:
    """What was paid for holding a position up to this time since the last one; negative where it was received."""

    ts_ns: int
    funding: float
    borrowing: float

    @property
    def paid(self) -> float:
        """Both together."""
        return self.funding + self.borrowing


class Ledger:
    """Cash, position and costs paid so far.

    Parameters
    ----------
    cash
        To begin with.
    rates
        What holding a position costs; nothing by default.
    """

    def __init__(self, cash: float, rates: CarryRates | None = None) -> None:
        self.cash = cash
        self.position = 0.0
        self.costs = 0.0
        self.carried = 0.0
        self.traded_notional = 0.0
        self.fills: list[Fill] = []
        self.carries: list[Carry] = []
        self._rates = rates or CarryRates()
        self._accrued_ns = 0

    def book(self, fill: Fill) -> None:
        """Enter a fill."""
        self.accrue(fill.ts_ns, fill.price)
        notional = fill.quantity * fill.price
        self.cash -= fill.side * notional + fill.commission
        # Sizes have at most nine decimals; rounding keeps a closed position from leaving dust.
        self.position = round(self.position + fill.side * fill.quantity, 12)
        self.costs += fill.commission
        self.traded_notional += notional
        self.fills.append(fill)

    def accrue(self, ts_ns: int, price: float) -> None:
        """Pay for holding the position since the last time, closed hours and outages included, at this price."""
        seconds = (ts_ns - self._accrued_ns) / 1e9
        if seconds <= 0:
            return
        self._accrued_ns = ts_ns
        value = self.position * price
        carry = Carry(
            ts_ns,
            funding=value * self._rates.funding * seconds,
            borrowing=max(-value, 0.0) * self._rates.borrowing * seconds,
        )
        if carry.funding or carry.borrowing:
            self.cash -= carry.paid
            self.carried += carry.paid
            self.carries.append(carry)

    def equity(self, price: float) -> float:
        """Cash and position at this price."""
        return self.cash + self.position * price

    def exposure(self, price: float) -> float:
        """Signed position value over equity; 0 when there is no equity left."""
        equity = self.equity(price)
        return self.position * price / equity if equity > 0 else 0.0

    def entry(self, ts_ns: int, price: float) -> BookEntry:
        """The books at this time and price, with what holding has cost so far."""
        self.accrue(ts_ns, price)
        return BookEntry(ts_ns, price, self.equity(price), self.position, self.exposure(price))
