"""When bars close across a change of clocks, and at their last moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import sifting, tables
from data.bars import BarSize
from data.closes import closes_of
from data.ingest import IngestRequest, ingest
from data.quality import check
from data.reading import RawBars
from data.times import NOT_A_TIME
from tests.data.files import candles, held, read, write_csv, write_text

ZONE = "America/New_York"
FORMS = ("wall clock", "offset", "typed")


def written(folder: Path, stamps: pd.DatetimeIndex, form: str) -> RawBars:
    """Rows stamped at these opens, which carry a zone, in one of the forms in which files have them."""
    frame = candles(len(stamps))
    if form == "typed":
        frame.assign(time=stamps).to_parquet(folder / "bars.parquet")
        return read(folder / "bars.parquet")
    if form == "offset":
        return read(write_csv(folder / "bars.csv", frame.assign(time=stamps.astype(str))))
    return read(write_csv(folder / "bars.csv", frame.assign(time=stamps.tz_localize(None))), tz=str(stamps.tz))


def hours(raw: RawBars, size: str) -> list[float]:
    """How long each bar lasts."""
    return ((closes_of(raw, BarSize.parse(size)) - raw.stamp_ns) / 3.6e12).tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("size", "start", "expected"),
    [
        ("1d", "2024-11-01", [24.0, 24.0, 25.0, 24.0]),
        ("1d", "2024-03-08", [24.0, 24.0, 23.0, 24.0]),
        ("12h", "2024-11-02 12:00", [12.0, 13.0, 12.0, 12.0]),
        ("4h", "2024-11-02 20:00", [4.0, 5.0, 4.0, 4.0]),
        ("4h", "2024-03-09 20:00", [4.0, 3.0, 4.0, 4.0]),
    ],
)
def test_a_bar_of_a_wall_clock_closes_by_it(
    tmp_path: Path, form: str, size: str, start: str, expected: list[float]
) -> None:
    wall = pd.date_range(start, periods=4, freq=size.replace("d", "D"))
    assert hours(written(tmp_path, wall.tz_localize(ZONE), form), size) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start", ["2024-11-02 20:00", "2024-03-10 00:00"])
@pytest.mark.parametrize("size", ["30min", "1h", "2h", "4h", "12h"])
def test_bars_counted_in_utc_keep_their_length_whatever_the_clock_shows(
    tmp_path: Path, form: str, start: str, size: str
) -> None:
    stamps = pd.date_range(start, periods=40, freq=size, tz="UTC").tz_convert(ZONE)
    raw = written(tmp_path, stamps, form)
    size = size.removesuffix("in")
    lengths = {hour for hour, ns in zip(hours(raw, size), raw.stamp_ns, strict=True) if ns != NOT_A_TIME}
    full = BarSize.parse(size).seconds / 3_600
    # Of the two hours of one name the clock alone tells neither: what they may be is known late, never early.
    assert min(lengths) == full and (lengths == {full} or (form, size) == ("wall clock", "2h"))


@pytest.mark.parametrize("form", ["wall clock", "typed"])
def test_the_last_bar_of_a_file_and_the_one_before_a_gap_are_never_known_early(tmp_path: Path, form: str) -> None:
    days = pd.DatetimeIndex(["2023-11-05", "2023-11-07", "2024-11-02", "2024-11-03"]).tz_localize(ZONE)
    assert hours(written(tmp_path, days, form), "1d") == [25.0, 24.0, 24.0, 25.0]


def test_a_double_and_rows_without_a_time_change_no_close(tmp_path: Path) -> None:
    frame = candles(6).assign(time=["2024-11-02", "soon", "2024-11-03", "2024-11-03", "", "2024-11-04"])
    raw = read(write_csv(tmp_path / "bars.csv", frame), tz=ZONE)
    assert np.array(hours(raw, "1d"))[[0, 2, 3, 5]].tolist() == [24.0, 25.0, 25.0, 24.0]


@pytest.mark.parametrize("far", ["2262-04-10 18:00", "1677-09-22"])
def test_a_stamp_at_the_end_of_all_nanoseconds_does_no_harm(tmp_path: Path, far: str) -> None:
    frame = candles(3).assign(time=["2024-11-02", "2024-11-03", far])
    raw = read(write_csv(tmp_path / "bars.csv", frame), tz=f"{ZONE}+07:00")
    assert hours(raw, "1d")[:2] == [24.0, 25.0]


def test_a_clock_of_a_server_closes_its_days_at_its_own_midnight(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(4, "2024-11-01", "1D"))
    assert hours(read(path, tz=f"{ZONE}+07:00"), "1d") == [24.0, 24.0, 25.0, 24.0]


@pytest.mark.parametrize("tz", [None, ZONE])
def test_a_stamp_at_the_close_is_the_close(tmp_path: Path, tz: str | None) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(4, "2024-11-01", "1D"))
    assert set(hours(read(path, tz=tz, stamp="close"), "1d")) == {0.0}


@pytest.mark.parametrize("short", ["1ms", "1us", "1s"])
@pytest.mark.parametrize("size", ["15s", "1m", "1h", "1d"])
def test_a_close_at_the_last_moment_is_moved_up_to_the_full_time(tmp_path: Path, short: str, size: str) -> None:
    wanted = BarSize.parse(size)
    stamps = pd.date_range("2024-01-01 09:30", periods=6, freq=f"{wanted.seconds}s")
    path = write_csv(tmp_path / "bars.csv", candles(6).assign(time=stamps - pd.Timedelta(short)))
    bars, report, _ = check([read(path, stamp="close")], wanted)
    assert bars.ts_close_ns.tolist() == stamps.as_unit("ns").asi8.tolist()
    assert [note for note in report.notes if "moved up to the full time" in note] and not report.rejected


def test_closes_of_binance_in_a_plain_table_are_full_minutes(tmp_path: Path) -> None:
    rows = [f"{1_704_067_259_999 + 60_000 * minute},1,2,1,2,5" for minute in range(4)]
    path = write_text(tmp_path / "bars.csv", "close_time,open,high,low,close,volume", *rows)
    bars, _, _ = check([read(path)], BarSize(60))
    assert (bars.ts_close_ns % (60 * 10**9)).tolist() == [0] * 4


def test_of_a_long_file_every_part_is_moved_and_a_full_time_and_none_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sifting, "HELD_ROWS", 300)
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 8_000)
    stamps = candles(1_000)["time"] - pd.Timedelta("1ms")
    stamps[700] += pd.Timedelta("1ms")
    frame = candles(1_000).assign(close_time=stamps.astype(str)).drop(columns="time")
    frame.loc[900, "close_time"] = "soon"
    result = ingest(IngestRequest([write_csv(tmp_path / "bars.csv", frame)], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert result.quality.rejected == {"unreadable time": 1}
    assert (held(tmp_path / "catalog").ts_close_ns % (60 * 10**9) == 0).all()


@pytest.mark.parametrize("stamp", ["open", "close"])
def test_closes_at_other_times_and_opens_stay_as_they_are(tmp_path: Path, stamp: str) -> None:
    late = pd.Timedelta("1ms") if stamp == "close" else -pd.Timedelta("1ms")
    path = write_csv(tmp_path / "bars.csv", candles().assign(time=candles()["time"] + late))
    bars, report, _ = check([read(path, stamp=stamp)], BarSize.parse("30m"))
    assert set(bars.ts_close_ns % (60 * 10**9)) == {late.value % (60 * 10**9)}
    assert not any("moved" in note for note in report.notes)
    assert any("if they are closes, give --stamp close" in note for note in report.notes) == (stamp == "open")
