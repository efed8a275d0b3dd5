"""Time stamps as files write them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from data.errors import AmbiguousSource, DataError, OptionError
from data.times import NOT_A_TIME, Times, parse_times


def parse(*values: object, tz: str | None = None, time_format: str | None = None) -> Times:
    return parse_times(pd.Series(list(values)), "file.csv, column 'time'", tz, time_format)


def utc(times: Times) -> list[str]:
    return [str(pd.Timestamp(ns)) for ns in times.utc_ns]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("as_text", [False, True])
def test_epochs_are_told_apart_by_their_magnitude(unit: str, as_text: bool) -> None:
    stamps = pd.date_range("2024-01-01", periods=3, freq="30min")
    epochs = stamps.as_unit(unit).asi8.tolist()
    times = parse(*(str(epoch) if as_text else epoch for epoch in epochs))
    assert times.description == f"epoch {unit}"
    assert times.utc_ns.tolist() == stamps.asi8.tolist()


def test_epochs_written_as_floats_keep_their_fractions() -> None:
    assert utc(parse("1704067200.0", "1704067200.5")) == ["2024-01-01 00:00:00", "2024-01-01 00:00:00.500000"]


def test_an_epoch_that_is_no_number_is_no_time() -> None:
    times = parse("1704067200000", "", "1704067260000")
    assert times.utc_ns[1] == NOT_A_TIME
    assert times.utc_ns[2] == 1_704_067_260 * 10**9


def test_mixed_epoch_units_name_the_rows_where_each_begins() -> None:
    column = pd.Series([1704067200000, 1704067260000, 1704067320000000], index=[2, 3, 5])
    with pytest.raises(DataError, match=r"ms \(first in row 2\), us \(first in row 5\)"):
        parse_times(column, "file", None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31 00:30", "2024-01-31 00:30:00"),
        ("2024-1-31 4:05", "2024-01-31 04:05:00"),
        ("2024-01-31T00:30:00.250Z", "2024-01-31 00:30:00.250000"),
        ("2024-01-31 00:30:00+02:00", "2024-01-30 22:30:00"),
        ("2024-01-31 00:30:00-0500", "2024-01-31 05:30:00"),
        ("2024-01-31 00:30:00+00", "2024-01-31 00:30:00"),
        ("2024-01-31 00:30:00 UTC", "2024-01-31 00:30:00"),
        ("2024/01/31 00:30", "2024-01-31 00:30:00"),
        ("2024.01.31 00:30", "2024-01-31 00:30:00"),
        ("20240131", "2024-01-31 00:00:00"),
        ("20240131 0930", "2024-01-31 09:30:00"),
        ("20240131 09:30:15", "2024-01-31 09:30:15"),
        ("20240131 09", "2024-01-31 09:00:00"),
        ("20240131T0930", "2024-01-31 09:30:00"),
        ("202401310930", "2024-01-31 09:30:00"),
        ("20240131093015", "2024-01-31 09:30:15"),
        ("31.01.2024 00:30:00.000", "2024-01-31 00:30:00"),
        ("31.01.2024 00:30:00.000 GMT+0100", "2024-01-30 23:30:00"),
        ("31/1/2024 4:30", "2024-01-31 04:30:00"),
        ("1/31/2024 4:30", "2024-01-31 04:30:00"),
        ("1/31/2024 4:30 PM", "2024-01-31 16:30:00"),
        ("2024-01-31 4:30 pm", "2024-01-31 16:30:00"),
        ("Jan 31, 2024", "2024-01-31 00:00:00"),
        ("31-Jan-2024", "2024-01-31 00:00:00"),
        ("Wednesday, January 31st 2024 4:30 p.m.", "2024-01-31 16:30:00"),
        ("09:30 31 Jan 2024", "2024-01-31 09:30:00"),
        ("Wed Jan 31 2024 09:30:00 GMT", "2024-01-31 09:30:00"),
        ("20240131T003000Z", "2024-01-31 00:30:00"),
        ("20240131T0030Z", "2024-01-31 00:30:00"),
        ("20240131T003000+0100", "2024-01-30 23:30:00"),
        ("20240131T003000.250+01", "2024-01-30 23:30:00.250000"),
        ("20240131003000Z", "2024-01-31 00:30:00"),
        ("2024-01-31T00Z", "2024-01-31 00:00:00"),
        ("2024-01-31T0030-0500", "2024-01-31 05:30:00"),
        ("Wed Jan 31 00:30:00 UTC 2024", "2024-01-31 00:30:00"),
        ("Wed Jan 31 00:30:00 +0100 2024", "2024-01-30 23:30:00"),
    ],
)
def test_a_date_is_read_as_it_was_meant(text: str, expected: str) -> None:
    assert utc(parse(text, text)) == [expected, expected]


@pytest.mark.parametrize("digits", [10, 12, 14])
@pytest.mark.parametrize("kind", [str, int, float])
@pytest.mark.parametrize("every", ["1D", "1h"])
def test_dates_of_digits_alone_are_no_epochs(digits: int, kind: type, every: str) -> None:
    stamps = pd.date_range("2024-01-01", periods=60, freq=every)
    written = [kind(stamp.strftime("%Y%m%d%H%M%S")[:digits]) for stamp in stamps]
    times = parse(*written)
    assert times.description == "YYYYMMDD dates, taken as UTC"
    assert times.utc_ns.tolist() == stamps.asi8.tolist()


@pytest.mark.parametrize("text", [False, True])
def test_a_date_of_digits_that_there_is_not_is_no_time(text: bool) -> None:
    stamps = [202401010000, 202413010000, 202401030000, 202402300000, 202401050000]
    times = parse(*map(str, stamps)) if text else parse(*stamps)
    assert (times.utc_ns == NOT_A_TIME).tolist() == [False, True, False, True, False]
    assert utc(times)[4] == "2024-01-05 00:00:00"


@pytest.mark.parametrize(("start", "unit"), [("1976-01-08", "ms"), ("2030-03-17", "s")])
@pytest.mark.parametrize("every", ["1min", "5min", "30min", "1h", "1D"])
def test_epochs_with_as_many_digits_as_a_date_stay_epochs(start: str, unit: str, every: str) -> None:
    stamps = pd.date_range(start, periods=40, freq=every)
    times = parse(*stamps.as_unit(unit).asi8.tolist())
    assert times.description == f"epoch {unit}"
    assert times.utc_ns.tolist() == stamps.asi8.tolist()


def test_later_rows_are_dates_or_epochs_as_the_earlier_ones_were() -> None:
    dates = pd.Series(["202401010000", "202401020000"])
    assert utc(parse_times(dates, "file", None, None, "YYYYMMDD dates, taken as UTC"))[0] == "2024-01-01 00:00:00"
    assert utc(parse_times(dates, "file", None, None, "epoch ms"))[0] == "1976-05-31 14:30:10"


def test_the_order_of_day_and_month_is_told_from_the_whole_file() -> None:
    assert utc(parse("01.02.2024", "13.02.2024"))[0] == "2024-02-01 00:00:00"
    assert utc(parse("01/02/2024", "01/13/2024"))[0] == "2024-01-02 00:00:00"


def test_day_and_month_that_cannot_be_told_apart_are_an_error_whose_advice_works() -> None:
    stamp = "01.02.2024 00:30:00.000"
    with pytest.raises(AmbiguousSource, match="day first or month first") as caught:
        parse(stamp)
    formats = re.findall(r"--time-format '([^']+)'", str(caught.value))
    read = [utc(parse(stamp, time_format=time_format)) for time_format in formats]
    assert read == [["2024-02-01 00:30:00"], ["2024-01-02 00:30:00"]]


def test_a_year_of_two_digits_is_ambiguous() -> None:
    with pytest.raises(AmbiguousSource, match=r"two digits.*'%d/%m/%y %H:%M'"):
        parse("25/12/23 00:30")


@pytest.mark.parametrize("text", ["09:30", "hello", "45292.5"])
def test_what_is_no_full_date_is_never_guessed(text: str) -> None:
    with pytest.raises(DataError, match="not read as a time"):
        parse(text, text)


@pytest.mark.parametrize(
    "text",
    [
        "31 Jan 2024 09:30 EST",
        "Jan 10 2024 09:30:00.000 EST",
        "Jan 10 2024 09:30:00,250 PST",
        "Wed Jan 10 09:30:00 EST 2024",
        "Jan 10 2024 9:30 AM EST",
        "Jan 10 2024 9:30AM EST",
        "20240131 093000 EST",
        "09:30 Jan 10 2024 CET",
        "Jan 10 2024 09 MART",
    ],
)
def test_a_zone_by_name_is_never_passed_over(text: str) -> None:
    with pytest.raises(DataError, match="not read as a time"):
        parse(text, text)


@pytest.mark.parametrize(
    "text", ["00:30 UTC 31 Jan 2024", "20240131 12:30 AM +01:00", "20240131 0030-0500", "20240131T003000,5z"]
)
def test_an_offset_in_an_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not read as a time"):
        parse(text, text)
    times = parse("20240131 00:00", "20240131 00:30", text)
    assert (times.utc_ns == NOT_A_TIME).tolist() == [False, False, True]


def test_an_empty_time_column_is_an_error() -> None:
    with pytest.raises(DataError, match="empty"):
        parse("", "")


@pytest.mark.parametrize("stamp", ["2024-01-01 00:30+01:00", "2024-01-01T0030Z", "2024-01-01T00-05"])
def test_a_single_stamp_with_an_offset_among_naive_ones_is_no_time(stamp: str) -> None:
    times = parse("2024-01-01 00:00", stamp, "2024-01-01 01:00")
    assert times.utc_ns[1] == NOT_A_TIME
    assert NOT_A_TIME not in times.utc_ns[[0, 2]]


def test_naive_stamps_follow_the_clocks_of_their_zone() -> None:
    times = parse("2024-03-08 09:30", "2024-03-11 09:30", tz="America/New_York")
    assert utc(times) == ["2024-03-08 14:30:00", "2024-03-11 13:30:00"]
    assert np.diff(times.wall_ns).tolist() == [3 * 86_400 * 10**9]


def test_the_hour_that_occurs_twice_and_the_one_that_never_does_are_no_times() -> None:
    times = parse("2024-03-10 02:30", "2024-11-03 01:30", "2024-06-03 01:30", tz="America/New_York")
    assert (times.utc_ns == NOT_A_TIME).tolist() == [True, True, False]


@pytest.mark.parametrize("typed", [False, True])
def test_stamps_with_offsets_keep_their_own_wall_clock(typed: bool) -> None:
    texts = ["2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00"]
    column = pd.to_datetime(pd.Series(texts), utc=True).dt.tz_convert("America/New_York") if typed else pd.Series(texts)
    times = parse_times(column, "file", None, None)
    assert utc(times) == ["2024-03-08 05:00:00", "2024-03-11 04:00:00"]
    assert (times.wall_ns % (86_400 * 10**9) == 0).all()


@pytest.mark.parametrize("far", ["9999-12-31", "0001-01-01"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("aware", [False, True])
def test_a_typed_stamp_that_nanoseconds_do_not_reach_is_no_time(far: str, zone: str | None, aware: bool) -> None:
    column = pd.Series(np.array(["2024-01-01", far, "2024-01-02"], dtype="datetime64[ms]"))
    times = parse_times(column.dt.tz_localize("UTC") if aware else column, "file", zone, None)
    assert (times.utc_ns == NOT_A_TIME).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", [str, int, float])
def test_an_epoch_that_nanoseconds_do_not_reach_is_no_time(kind: type) -> None:
    times = parse(*map(kind, (1_704_067_200_000, 9_999_999_999_999, 1_704_067_260_000)))
    assert (times.utc_ns == NOT_A_TIME).tolist() == [False, True, False]


def test_a_given_format_overrides_detection() -> None:
    assert utc(parse("02-01-24 at 03h", time_format="%d-%m-%y at %Hh")) == ["2024-01-02 03:00:00"]
    assert utc(parse("2024-01-02 03:00 +0100", time_format="%Y-%m-%d %H:%M %z")) == ["2024-01-02 02:00:00"]


def test_an_impossible_format_or_zone_is_an_error_of_the_options() -> None:
    with pytest.raises(OptionError, match="%Q"):
        parse("2024-01-01", time_format="%Q")
    with pytest.raises(OptionError, match="Atlantis"):
        parse("2024-01-01", tz="Europe/Atlantis")
