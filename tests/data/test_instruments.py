"""Identifiers, kinds, precisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.identifiers import InstrumentId

from data.bars import Bars, BarSize
from data.errors import DataError, OptionError
from data.fixed import STEPS_MAX
from data.instruments import (
    Kind,
    Precision,
    decimals,
    guess_kind,
    kind_of,
    make_instrument,
    measure,
    parse_instrument_id,
)


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("BTCUSDT", Kind.CRYPTO),
        ("BTCUSD", Kind.CRYPTO),
        ("BTC-USD", Kind.CRYPTO),
        ("ADA_BTC", Kind.CRYPTO),
        ("PEPEUSDT", Kind.CRYPTO),
        ("SUSDT", Kind.CRYPTO),
        ("WBTC", Kind.EQUITY),
        ("BTC-PERP", Kind.PERPETUAL),
        ("BTCUSDT-PERP", Kind.PERPETUAL),
        ("ETH-USD-SWAP", Kind.PERPETUAL),
        ("EURUSD", Kind.FX),
        ("EUR-USD", Kind.FX),
        ("XAUUSD", Kind.FX),
        ("SPY", Kind.EQUITY),
        ("CRUS", Kind.EQUITY),
        ("BRK-B", Kind.EQUITY),
        ("^GSPC", Kind.EQUITY),
    ],
)
def test_the_kind_is_told_from_the_symbol(symbol: str, kind: Kind) -> None:
    instrument_id = parse_instrument_id(f"{symbol}.TEST")
    assert guess_kind(instrument_id) is kind
    assert kind_of(make_instrument(instrument_id, kind, Precision(2, 0))) is kind


def test_a_pair_of_a_catalog_that_nautilus_has_made_is_no_share() -> None:
    assert guess_kind(InstrumentId.from_str("AUD/USD.SIM")) is Kind.FX
    assert guess_kind(InstrumentId.from_str("BTC/USDT.BINANCE")) is Kind.CRYPTO


@pytest.mark.parametrize(
    "text", ["BTCUSDT", ".BINANCE", "BTCUSDT.", "", "BTC/USDT.BINANCE", "M&M.NSE", "ES=F.X", "Ä.X"]
)
def test_an_identifier_that_a_catalog_cannot_keep_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="instrument"):
        parse_instrument_id(text)


def test_an_identifier_too_long_for_the_name_of_a_file_is_refused() -> None:
    with pytest.raises(
        OptionError, match="has 305 letters; a catalog, which names files by it, takes no more than 128"
    ):
        parse_instrument_id(f"{'A' * 300}.TEST")


def test_a_symbol_may_hold_a_point() -> None:
    instrument_id = parse_instrument_id("BRK.B.NYSE")
    assert (instrument_id.symbol.value, instrument_id.venue.value) == ("BRK.B", "NYSE")


def test_a_perpetual_without_a_quote_is_quoted_in_dollars() -> None:
    instrument = make_instrument(parse_instrument_id("BTC-PERP.TEST"), Kind.PERPETUAL, Precision(1, 3))
    assert (instrument.base_currency.code, instrument.quote_currency.code) == ("BTC", "USD")


def test_a_coin_without_a_quote_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(DataError, match="--kind equity"):
        make_instrument(parse_instrument_id("SPY.TEST"), Kind.CRYPTO, Precision(2, 0))


def test_an_unknown_currency_is_no_fx_pair() -> None:
    with pytest.raises(OptionError, match="--kind crypto"):
        make_instrument(parse_instrument_id("FOO-USDT.TEST"), Kind.FX, Precision(2, 0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 250.0], (0, False)),
        ([1.25, 3.5], (2, False)),
        ([0.00002853], (8, False)),
        ([1e-8, 3e-8], (8, False)),
        ([0.1 + 0.2, 0.7], (1, False)),
        ([1e12, 1e12 + 0.5], (1, False)),
        ([float("nan"), 0.0], (0, False)),
    ],
)
def test_decimals_are_the_fewest_that_lose_nothing(values: list[float], expected: tuple[int, bool]) -> None:
    assert decimals(np.array(values), 12) == expected


def test_endless_digits_are_cut_to_nine_significant_ones() -> None:
    count, noisy = decimals(np.array([1 / 3, 2 / 7]), 12)
    assert (count, noisy) == (9, True)


def test_a_digit_that_is_dropped_is_told_and_the_last_bit_of_a_float_is_not() -> None:
    assert decimals(np.array([123456.123456781]), 12) == (8, True)
    assert decimals(np.array([123456.12345678]), 12) == (8, False)
    assert decimals(np.arange(1, 10_000) * 1e-4, 12) == (4, False)


def test_of_a_series_of_endless_digits_the_smallest_keeps_its_own() -> None:
    assert decimals(np.array([12345678.123456789012, 5_000 / 7, 1.2345678901234567]), 12) == (8, True)


def test_endless_digits_are_kept_as_far_as_nautilus_can_hold_the_largest() -> None:
    column = np.array([1e10 / 3, 1e-4 / 3])
    one = Bars(np.array([1, 2]), column, column, column, column, column)
    parts = [one[slice(0, 1)], one[slice(1, 2)]]
    found = measure(parts)
    assert (found.price_decimals, found.noisy) == (9, True) and found.size_decimals == 9
    assert 1e10 / 3 * 10.0**found.price_decimals < STEPS_MAX < 1e10 / 3 * 10.0 ** (found.price_decimals + 1)
    assert measure([one]) == found


@given(places=st.integers(0, 8), ticks=st.lists(st.integers(1, 10**10), min_size=1, max_size=20))
@settings(max_examples=100)
def test_inferred_decimals_reproduce_every_price(places: int, ticks: list[int]) -> None:
    prices = np.array([float(f"{tick}e-{places}") for tick in ticks])
    count, noisy = decimals(prices, 12)
    assert not noisy
    assert count <= places
    assert (np.round(prices, count) == prices).all()


def test_a_cheap_coin_keeps_whole_sizes_and_a_dear_one_gets_fractions() -> None:
    def size_decimals(price: float) -> int:
        column = np.array([price, price])
        bars = Bars(np.array([1, 2]), column, column, column, column, np.array([5.0, 6.0]))
        return measure([bars]).precision(Kind.CRYPTO).size

    assert size_decimals(0.00001) == 0
    assert size_decimals(40_000.0) == 6


def test_shares_have_cents_and_whole_sizes() -> None:
    column = np.array([10.0, 11.0])
    bars = Bars(np.array([1, 2]), column, column, column, column, np.array([5.5, 6.0]))
    assert measure([bars]).precision(Kind.EQUITY) == Precision(2, 0)


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15), ("30m", 1800), ("60m", 3600), ("1H", 3600), ("1d", 86_400)])
def test_a_bar_size_is_read_in_its_usual_spellings(text: str, seconds: int) -> None:
    assert BarSize.parse(text).seconds == seconds


@pytest.mark.parametrize("text", ["", "m", "0m", "-5m", "7m", "2d", "1w", "1M", "30", "1.5h"])
def test_a_bar_size_without_a_grid_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="bar size"):
        BarSize.parse(text)


def test_a_bar_size_is_spelled_in_its_largest_whole_unit() -> None:
    assert str(BarSize(3600)) == "1h"
    assert BarSize(5400).nautilus == "90-MINUTE"


def test_prices_in_single_precision_get_the_decimals_they_stand_for() -> None:
    prices = np.float32([43000.12, 43100.55, 0.5]).astype(np.float64)
    assert decimals(prices, 12) == (2, True)
    assert decimals(np.array([0.5, 0.25, 3.0]), 12) == (2, False)


@pytest.mark.parametrize("fraction", [8, 32, 64, 128, 256])
@pytest.mark.parametrize("base", [0, 3, 140, 2_600, 43_000])
def test_prices_in_fractions_of_two_keep_every_digit(base: int, fraction: int) -> None:
    prices = base + np.arange(1, 60) / fraction
    count, noisy = decimals(prices, 12)
    assert not noisy and (np.round(prices, count) == prices).all()
    assert count == int(np.log2(fraction))


@given(places=st.integers(1, 3), ticks=st.lists(st.integers(10**4, 10**7), min_size=50, max_size=60, unique=True))
@settings(max_examples=50)
def test_decimals_in_single_precision_are_seen_through_its_noise(places: int, ticks: list[int]) -> None:
    prices = np.array([float(f"{tick}e-{places}") for tick in ticks])
    kept = prices.astype(np.float32).astype(np.float64)
    count, _ = decimals(kept, 12)
    assert count <= places and (np.round(kept, places) == prices).all()
