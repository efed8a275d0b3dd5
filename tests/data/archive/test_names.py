"""Which files of the archive hold given bars."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.archive.names import ArchiveMarket, ArchiveRequest, archive_request, files_of
from data.bars import BarSize
from data.errors import OptionError

TODAY = date(2024, 9, 10)


def asked(
    start: str | None = "2024-01", end: str | None = None, bar: str | None = "1m", market: str = "spot"
) -> ArchiveRequest:
    return archive_request("binance:btcusdt", bar, start, end, market, TODAY)


def names(start: str, end: str | None = None, market: str = "spot") -> list[str]:
    return [file.path for file in files_of(asked(start, end, market=market))]


def test_whole_months_are_files_of_months() -> None:
    assert names("2024-01", "2024-03") == [
        f"data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-0{month}.zip" for month in (1, 2, 3)
    ]


def test_parts_of_months_are_files_of_days() -> None:
    assert names("2024-01-30", "2024-03-01") == [
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-30.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-31.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-02.zip",
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-03-01.zip",
    ]


def test_without_an_end_bars_go_to_yesterday() -> None:
    assert names("2024-08")[0].endswith("2024-08.zip")
    assert names("2024-08")[-1].endswith("2024-09-09.zip")
    assert names("2024-08", "2030-01") == names("2024-08")


def test_futures_lie_in_a_folder_of_their_own_and_are_perpetuals() -> None:
    assert names("2024-01", "2024-01", market="um") == [
        "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip"
    ]
    assert asked(market="um").instrument == "BTCUSDT-PERP.BINANCE"
    coin = archive_request("binance:BTCUSD_PERP", "1h", "2024-01", None, "cm", TODAY)
    assert (coin.instrument, coin.market) == ("BTCUSD_PERP.BINANCE", ArchiveMarket.CM)


@given(st.dates(date(2019, 1, 1), date(2024, 9, 9)), st.integers(0, 900))
def test_every_day_asked_for_is_in_one_file_and_no_other_day_is(first: date, days: int) -> None:
    last = min(first + timedelta(days), date(2024, 9, 9))
    request = ArchiveRequest("BTCUSDT", BarSize.parse("1h"), first, last)
    held: list[date] = []
    for file in files_of(request):
        if file.day is not None:
            held.append(file.day)
            continue
        day = file.month
        while day.month == file.month.month:
            held.append(day)
            day += timedelta(days=1)
    assert held == [first + timedelta(number) for number in range((last - first).days + 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": None}, "--from 2024-01"),
        ({"bar": None}, "say which bars with --bar"),
        ({"bar": "7m"}, "does not divide"),
        ({"bar": "10m"}, "--bar 10m: the archive has 1s, 1m"),
        ({"bar": "1s", "market": "um"}, "spot market alone"),
        ({"start": "January"}, "--from January: write a month"),
        ({"start": "2024-13"}, "--from 2024-13"),
        ({"start": "2024-02", "end": "2024-01"}, "lies after"),
        ({"start": "2024-09-10"}, "up to yesterday"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options: dict[str, str | None], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        asked(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("symbol", ["binance:", "binance:../../etc", "binance:BTC/USDT", "binance:a b"])
def test_a_symbol_is_letters_and_digits(symbol: str) -> None:
    with pytest.raises(OptionError, match="no symbol"):
        archive_request(symbol, "1m", "2024-01", None, "spot", TODAY)
