"""Which bars a market lets expect: a weekend is no gap, a holiday neither, and a missing hour is one."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.bars import BarSize
from data.calendars import ALWAYS, FX, WEEKDAYS, Calendar, calendar_name, calendar_of, require_calendar
from data.errors import OptionError
from data.gaps import find_gaps
from data.ingest import IngestRequest, IngestResult, ingest
from data.instruments import Kind, parse_instrument_id
from data.reading import ReadOptions


def closes(first: str, count: int, every: str, zone: str = "UTC") -> pd.DatetimeIndex:
    return pd.date_range(first, periods=count, freq=every, tz=zone)


def ns(stamps: pd.DatetimeIndex) -> np.ndarray:
    return np.asarray(stamps.tz_convert("UTC").tz_localize(None).as_unit("ns").asi8)


def missing(stamps: pd.DatetimeIndex, size: str, calendar: str) -> list[tuple[str, int]]:
    at = ns(stamps)
    gaps = find_gaps(at, BarSize.parse(size), calendar_of(calendar, int(at[0]), int(at[-1])))
    return [(str(pd.Timestamp(gap.after_ns)), gap.missing_bars) for gap in gaps]


def new_york_hours(first: str, last: str) -> pd.DatetimeIndex:
    """Closes of hourly bars of New York's regular session, as LEAN cuts them: the first is half an hour."""
    days = pd.bdate_range(first, last)
    return pd.DatetimeIndex(
        [stamp for day in days for stamp in pd.date_range(day + pd.Timedelta(hours=10), periods=7, freq="h")]
    ).tz_localize("America/New_York")


def test_a_market_that_never_closes_misses_every_bar() -> None:
    stamps = closes("2024-01-01 01:00", 10, "1h").delete([4, 5])
    assert missing(stamps, "1h", ALWAYS) == [("2024-01-01 04:00:00", 2)]


def test_nights_weekends_and_holidays_of_an_exchange_are_no_gaps() -> None:
    # Martin Luther King's day was the 15th.
    stamps = new_york_hours("2024-01-08", "2024-01-19")
    stamps = stamps[stamps.day != 15]
    assert missing(stamps, "1h", "XNYS") == []
    assert missing(stamps.delete(3), "1h", "XNYS") == [("2024-01-08 17:00:00", 1)]
    # A day that is not there is missing, and from the first bar on.
    assert missing(stamps.delete(range(7, 14)), "1h", "XNYS") == [("2024-01-08 21:00:00", 7)]
    assert missing(stamps, "1h", ALWAYS)


def test_clocks_that_change_move_the_session_and_leave_no_gap() -> None:
    assert missing(new_york_hours("2024-03-04", "2024-03-22"), "1h", "XNYS") == []


def test_a_day_that_was_cut_short_ends_early() -> None:
    # The Friday after Thanksgiving closes at one.
    stamps = new_york_hours("2023-11-22", "2023-11-27")
    kept = (stamps.day != 23) & ~((stamps.day == 24) & (stamps.hour > 13))
    assert missing(stamps[kept], "1h", "XNYS") == []


@pytest.mark.parametrize("calendar", ["XNYS", "XASX", "XTKS", "XHKG"])
def test_days_of_an_exchange_are_one_bar_each_wherever_it_lies(calendar: str) -> None:
    from exchange_calendars import get_calendar

    days = pd.DatetimeIndex(get_calendar(calendar, start="2023-01-01", end="2023-12-31").sessions)
    stamps = (days + pd.Timedelta(days=1)).tz_localize("UTC")
    assert missing(stamps, "1d", calendar) == []
    assert [count for _, count in missing(stamps.delete([20, 21]), "1d", calendar)] == [2]


def test_breaks_at_noon_are_no_gaps() -> None:
    at = [f"2024-01-{day:02} {hour:02}:00" for day in (10, 11) for hour in (10, 11, 12, 14, 15, 16)]
    stamps = pd.DatetimeIndex(at).tz_localize("Asia/Hong_Kong")
    assert missing(stamps, "1h", "XHKG") == []


def test_the_week_of_foreign_exchange_has_no_weekend_in_winter_nor_in_summer() -> None:
    week = closes("2024-03-03 18:00", 120, "1h", "America/New_York")
    stamps = week.append(closes("2024-03-10 18:00", 120, "1h", "America/New_York"))
    assert missing(stamps, "1h", FX) == []
    assert [count for _, count in missing(stamps.delete(50), "1h", FX)] == [1]
    assert [count for _, count in missing(stamps.delete(120), "1h", FX)] == [1]


@pytest.mark.parametrize("bar", ["4h", "12h", "1d"])
def test_weeks_cut_at_the_close_of_new_york_have_no_gaps_in_winter_nor_in_summer(bar: str, tmp_path: Path) -> None:
    opened = [pd.Timestamp("2023-10-01 17:00") + pd.Timedelta(weeks=week) for week in range(30)]
    size = pd.Timedelta(bar)
    naive = [begin + size * number for begin in opened for number in range(1, 1 + pd.Timedelta("5D") // size)]
    stamps = pd.DatetimeIndex(naive).tz_localize("America/New_York").tz_convert("UTC")
    assert missing(stamps, bar, FX) == []
    assert [count for _, count in missing(stamps.delete([40, 41]), bar, FX)] == [2]
    found = ingested(tmp_path, stamps.tz_localize(None), "GBPUSD.FXCM")
    assert (found.quality.rows_rejected, found.quality.gaps.count) == (0, 0)


@pytest.mark.parametrize("sundays", [True, False])
def test_days_of_foreign_exchange_that_are_those_of_utc_have_no_weekends(sundays: bool) -> None:
    days = pd.date_range("2024-01-01", "2024-12-31", tz="UTC")
    kept = days[(days.weekday < 5) | (sundays & (days.weekday == 6))]
    assert missing(kept + pd.Timedelta(days=1), "1d", FX) == []


def test_years_that_an_exchange_knows_nothing_of_are_those_of_weekdays() -> None:
    days = pd.bdate_range("1900-01-01", "1900-03-01")
    assert missing((days + pd.Timedelta(days=1)).tz_localize("UTC"), "1d", "XTKS") == []


@functools.cache
def expected_by(name: str) -> tuple[Calendar, np.ndarray]:
    at = ns(closes("2023-06-05 00:30", 8_000, "30min"))
    spans = calendar_of(name, int(at[0]), int(at[-1]))
    return spans, at[np.diff(spans.expected(at, 1800 * 10**9), prepend=0) > 0][1:]


@given(st.integers(0, 3_000), st.integers(1, 40), st.sampled_from(["XNYS", FX, WEEKDAYS]))
def test_what_is_left_out_is_what_is_missing(start: int, count: int, calendar: str) -> None:
    spans, expected = expected_by(calendar)
    start %= len(expected) - count - 2
    left = np.delete(expected, slice(start + 1, start + 1 + count))
    gaps = find_gaps(left, BarSize.parse("30m"), spans)
    assert [gap.missing_bars for gap in gaps] == [count]


@pytest.mark.parametrize(
    ("instrument", "kind", "calendar"),
    [
        ("BTCUSDT.BINANCE", Kind.CRYPTO, ALWAYS),
        ("BTCUSDT-PERP.BINANCE", Kind.PERPETUAL, ALWAYS),
        ("GBPUSD.FXCM", Kind.FX, FX),
        ("SPY.ARCA", Kind.EQUITY, "XNYS"),
        ("AAPL.NASDAQ", Kind.EQUITY, "XNAS"),
        ("7203.XTKS", Kind.EQUITY, "XTKS"),
        ("ACME.NOWHERE", Kind.EQUITY, WEEKDAYS),
    ],
)
def test_the_calendar_follows_from_kind_and_venue(instrument: str, kind: Kind, calendar: str) -> None:
    assert calendar_name(parse_instrument_id(instrument), kind) == calendar


def test_a_calendar_that_does_not_exist_is_refused() -> None:
    require_calendar("XETR")
    with pytest.raises(OptionError, match="--calendar MARS: unknown"):
        require_calendar("MARS")


# --- through an ingest --------------------------------------------------------------------------------------


def ingested(tmp_path: Path, stamps: pd.DatetimeIndex, instrument: str, calendar: str | None = None) -> IngestResult:
    price = 100.0 + np.arange(len(stamps)) % 7
    frame = pd.DataFrame({"time": stamps, "open": price, "high": price, "low": price, "close": price, "volume": 1.0})
    path = tmp_path / "bars.parquet"
    tmp_path.mkdir(exist_ok=True)
    frame.to_parquet(path)
    return ingest(
        IngestRequest([path], tmp_path / "catalog", instrument, calendar=calendar, read=ReadOptions(stamp="close"))
    )


def test_an_ingest_counts_gaps_by_the_calendar(tmp_path: Path) -> None:
    stamps = new_york_hours("2024-01-08", "2024-01-12").delete(4)
    assert [gap.missing_bars for gap in ingested(tmp_path, stamps, "SPY.ARCA").quality.gaps.told] == [1]
    assert ingested(tmp_path, stamps.delete(5), "SPY.ARCA", ALWAYS).quality.gaps.count == 5


def test_a_day_that_closes_early_is_on_the_grid_of_its_calendar(tmp_path: Path) -> None:
    days = pd.bdate_range("2023-11-20", "2023-11-30").delete(3)
    at = [day + pd.Timedelta(hours=13 if day.day == 24 else 16) for day in days]
    stamps = pd.DatetimeIndex(at).tz_localize("America/New_York")
    assert ingested(tmp_path / "one", stamps, "SPY.ARCA").quality.rows_rejected == 0
    assert ingested(tmp_path / "two", stamps, "SPY.ARCA", WEEKDAYS).quality.rejected == {"off-grid": 1}
