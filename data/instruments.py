"""NT instruments for bars from files: what kind of thing it is, and how precise its prices and sizes are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair, Equity, Instrument
from nautilus_trader.model.objects import Currency, Price, Quantity
from numpy.typing import NDArray

from data.bars import Bars, FloatArray
from data.errors import DataError, OptionError
from data.fixed import STEPS_MAX

MAX_PRICE_PRECISION = 12
MAX_SIZE_PRECISION = 9
_ID_LETTERS = 128
"""Beside it the longest name of a file, that of a report, has a size, a source and endings: 255 bytes in all."""

_FIAT = frozenset(
    {
        "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "PLN", "HUF", "CZK", "TRY", "ZAR",
        "MXN", "SGD", "HKD", "CNH", "CNY", "INR", "KRW", "THB", "ILS", "RUB", "BRL",
    }
)  # fmt: skip
_CRYPTO_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "DAI", "BTC", "ETH", "BNB", "XBT")
_STABLE = frozenset({"USDT", "USDC", "FDUSD", "BUSD", "TUSD"})
_METALS = frozenset({"XAU", "XAG", "XPT", "XPD"})


class Kind(StrEnum):
    """What an instrument is; it decides its calendar and whether short positions are the default."""

    CRYPTO = "crypto"
    PERPETUAL = "perpetual"
    FX = "fx"
    EQUITY = "equity"

    @property
    def always_open(self) -> bool:
        """True where the market trades every hour of every day: 365 days a year, and any gap is an outage."""
        return self in {Kind.CRYPTO, Kind.PERPETUAL}

    @property
    def trading_days_per_year(self) -> int:
        """Days by which a daily Sharpe ratio is annualised."""
        return 365 if self.always_open else 252

    @property
    def opens_on_sunday(self) -> bool:
        """True where the week begins on Sunday evening, by UTC, whose few hours are part of Monday."""
        return self is Kind.FX

    @property
    def can_short(self) -> bool:
        """True where a short position needs no borrowing."""
        return self in {Kind.PERPETUAL, Kind.FX}


@dataclass(frozen=True)
class Precision:
    """Decimals of prices and of sizes."""

    price: int
    size: int


def parse_instrument_id(text: str) -> InstrumentId:
    """Read ``SYMBOL.VENUE``. Raises OptionError for anything else."""
    symbol, _, venue = text.strip().rpartition(".")
    if not symbol or not venue:
        raise OptionError(f"instrument {text!r} is not SYMBOL.VENUE; write for example BTCUSDT.BINANCE")
    # NT's catalog builds paths and SQL from identifiers, and fails to read back what has other characters in it.
    if re.fullmatch(r"[A-Za-z0-9._^$#-]+", text.strip()) is None:
        raise OptionError(f"instrument {text!r}: only letters, digits and . _ - ^ $ # can be kept in a catalog")
    if len(text.strip()) > _ID_LETTERS:
        raise OptionError(
            f"instrument {text.strip()[:20]}... has {len(text.strip())} letters; a catalog, which names files by it, "
            f"takes no more than {_ID_LETTERS}"
        )
    return InstrumentId.from_str(f"{symbol}.{venue}")


def guess_kind(instrument_id: InstrumentId) -> Kind:
    """Tell an instrument's kind from its symbol: pairs by their quote currency, everything else as equity."""
    symbol = instrument_id.symbol.value.upper()
    if symbol.endswith(("-PERP", "_PERP", "-SWAP")):
        return Kind.PERPETUAL
    pair = _split_pair(symbol)
    if pair is None:
        return Kind.EQUITY
    base, quote = pair
    return Kind.FX if quote in _FIAT and (base in _FIAT or base in _METALS) else Kind.CRYPTO


def kind_of(instrument: Instrument) -> Kind:
    """The kind that was chosen when the instrument was made here, or a guess for one made elsewhere."""
    info = instrument.info or {}
    return Kind(info["sage_kind"]) if "sage_kind" in info else guess_kind(instrument.id)


def _split_pair(symbol: str) -> tuple[str, str] | None:
    for mark in "-_/":
        base, _, quote = symbol.partition(mark)
        # What stands behind the mark must be money: BRK-B is a class of shares.
        if base and (quote in _FIAT or quote in _CRYPTO_QUOTES or Currency.from_internal_map(quote) is not None):
            return base, quote
    # A coin quoted in dollars or euros ("BTCUSD") is known by its first letters; others may be tickers ("CRUS").
    for quote in (*_CRYPTO_QUOTES, *sorted(_FIAT)):
        base = symbol[: -len(quote)]
        if symbol.endswith(quote) and base and _is_currency(base, quote):
            return base, quote
    return None


def _is_currency(base: str, quote: str) -> bool:
    if quote in _CRYPTO_QUOTES:
        # "SBTC" may be a ticker; no ticker ends in a stable coin.
        return len(base) >= 2 or quote in _STABLE
    return base in _FIAT or base in _METALS or Currency.from_internal_map(base) is not None


@dataclass(frozen=True)
class Measured:
    """What bars need to be held.

    Decimals that reproduce every price and every volume, whether any had to be rounded for it by more than its last
    bit, the first close, by which sizes are judged, and the lowest price.
    """

    price_decimals: int
    noisy: bool
    size_decimals: int
    size_noisy: bool
    first_close: float
    lowest: float

    def precision(self, kind: Kind) -> Precision:
        """Decimals of an instrument that holds them."""
        if kind is Kind.EQUITY:
            return Precision(max(self.price_decimals, 2), 0)
        # One step of size should be worth well under one unit of the quote currency, or positions come in lumps. The
        # first close decides: what bars follow must not change the instrument.
        fine = int(np.clip(np.ceil(np.log10(max(self.first_close, 1e-9))) + 1, 0, MAX_SIZE_PRECISION))
        return Precision(
            self.price_decimals, max(self.size_decimals, fine) if kind is not Kind.FX else self.size_decimals
        )


def measure(parts: Iterable[Bars]) -> Measured:
    """Look at all bars."""
    price = size = 0
    noisy = size_noisy = False
    first, lowest = 0.0, math.inf
    highest = most = 0.0
    for bars in parts:
        first, lowest = first or float(bars.close[0]), min(lowest, float(bars.low.min()))
        highest, most = max(highest, float(bars.high.max())), max(most, float(bars.volume.max()))
        needed, rounded = decimals(
            np.concatenate([bars.open, bars.high, bars.low, bars.close]), MAX_PRICE_PRECISION, price
        )
        price, noisy = max(price, needed), noisy or rounded
        needed, rounded = decimals(bars.volume, MAX_SIZE_PRECISION, size)
        size, size_noisy = max(size, needed), size_noisy or rounded
    # What is rounded anyway is rounded so that the largest can be held, too.
    price = min(price, _held(highest)) if noisy else price
    size = min(size, _held(most)) if size_noisy else size
    return Measured(price, noisy, size, size_noisy, first, lowest)


def _held(largest: float) -> int:
    """With how many decimals NautilusTrader can hold a value."""
    return int(np.floor(np.log10(STEPS_MAX / largest)))


def decimals(values: FloatArray, limit: int, least: int = 0) -> tuple[int, bool]:
    """The least number of decimals, from ``least`` on, that reproduces values, and whether they were rounded for it.

    Digits beyond the 13th significant one are float noise, and in single precision all beyond what tells two
    such numbers apart. Where noise is larger than that (prices that were scaled or averaged), the decimals kept
    stand for nine significant digits of the smallest value. The last bit of a float64 is no digit.
    """
    known = values[np.isfinite(values) & (values != 0)]
    if len(known) == 0:
        return least, False
    single = known.astype(np.float32)
    found = _decimals_of_single(known, single, limit, least) if _same(single, known) else None
    if found is not None:
        return found
    size = np.abs(known)
    for count in range(least, limit + 1):
        off = np.abs(np.round(known, count) - known)
        if bool((off <= 1e-13 * size + 1e-17).all()):
            return count, bool((off > np.spacing(size)).any())
    return max(least, int(np.clip(9 - np.ceil(np.log10(size.min())), 0, limit))), True


def _decimals_of_single(
    known: FloatArray, single: NDArray[np.float32], limit: int, least: int
) -> tuple[int, bool] | None:
    """The same of values that single precision holds to the bit, because they were kept in it or by chance.

    Prices in 1/64 are by chance. Decimals are what was meant where there are fewer of them than it takes to tell two
    neighbours in single precision apart; else nothing says that the values are not meant to their last digit. None
    where the limit allows too few.
    """
    enough = next((n for n in range(least, limit + 1) if _same(np.round(known, n).astype(np.float32), single)), None)
    if enough is None:
        return None
    off = np.round(known, enough) != known
    if not off.any():
        return enough, False
    if not bool((10.0**-enough > np.spacing(np.abs(single[off]))).any()):
        for count in range(enough, limit + 1):
            if _same(np.round(known, count), known):
                return count, False
    return enough, True


def _same(left: NDArray[np.floating], right: NDArray[np.floating]) -> bool:
    return bool((left == right).all())


def make_instrument(instrument_id: InstrumentId, kind: Kind, precision: Precision) -> Instrument:
    """Build the NT instrument. Fees are nil here: a backtest sets its own."""
    if not 0 <= precision.price <= 16 or not 0 <= precision.size <= 16:
        raise OptionError("precisions lie between 0 and 16 decimals")
    price_increment = Price.from_str(_increment(precision.price))
    size_increment = Quantity.from_str(_increment(precision.size))
    info = {"sage_kind": str(kind)}
    common = {
        "instrument_id": instrument_id,
        "raw_symbol": Symbol(instrument_id.symbol.value),
        "price_precision": precision.price,
        "price_increment": price_increment,
        "ts_event": 0,
        "ts_init": 0,
        "info": info,
    }
    if kind is Kind.EQUITY:
        return Equity(currency=USD, lot_size=Quantity.from_int(1), **common)
    symbol = instrument_id.symbol.value.upper()
    for suffix in ("-PERP", "_PERP", "-SWAP"):
        symbol = symbol.removesuffix(suffix)
    pair = _split_pair(symbol)
    if pair is None and kind is Kind.PERPETUAL:
        pair = symbol, "USD"  # "BTC-PERP": venues that name no quote quote in dollars
    if pair is None:
        raise DataError(f"{instrument_id}: no pair of currencies; give --kind equity, or a symbol such as BTCUSDT")
    base, quote = (_currency(code, kind) for code in pair)
    sized = common | {"size_precision": precision.size, "size_increment": size_increment}
    if kind is Kind.PERPETUAL:
        return CryptoPerpetual(
            base_currency=base, quote_currency=quote, settlement_currency=quote, is_inverse=False,
            lot_size=size_increment, **sized,
        )  # fmt: skip
    return CurrencyPair(base_currency=base, quote_currency=quote, **sized)


def _currency(code: str, kind: Kind) -> Currency:
    known = Currency.from_internal_map(code)
    if known is not None:
        return known
    if kind is Kind.FX:
        raise OptionError(f"currency {code} is unknown; give --kind crypto if it is a coin")
    return Currency.from_str(code)


def _increment(precision: int) -> str:
    return "1" if precision == 0 else f"0.{'0' * (precision - 1)}1"
