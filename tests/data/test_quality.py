"""Which rows are bars, which are not and why, and where bars are missing."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.bars import Bars, BarSize
from data.errors import DataError
from data.gaps import Gap, Gaps, find_gaps
from data.quality import QualityReport, RejectReason, check
from data.reading import RawBars
from data.spacing import infer_bar_size
from data.times import NOT_A_TIME
from tests.data.files import HALF_HOUR, candles, read, write_csv, write_text

NANOS = HALF_HOUR.nanos
HEADER = "time,open,high,low,close,volume"


def raw_bars(stamps: list[int], close: list[float] | None = None, name: str = "bars.csv") -> RawBars:
    """Rows stamped at half hours counted from the epoch, as if read from a file."""
    count = len(stamps)
    prices = np.array(close) if close is not None else np.full(count, 100.0)
    stamp_ns = np.array(stamps, dtype=np.int64) * NANOS
    return RawBars(
        path=Path(name),
        layout="ohlcv",
        stamp="open",
        stamp_ns=stamp_ns,
        wall_ns=stamp_ns,
        values={**dict.fromkeys(("open", "high", "low", "close"), prices), "volume": np.ones(count)},
        row=np.arange(1, count + 1),
        original=pd.DataFrame({"time": stamps}),
        broken_rows=[],
        notes=[],
    )


def checked(path: Path, size: BarSize = HALF_HOUR) -> tuple[Bars, QualityReport, pd.DataFrame]:
    return check([read(path)], size)


def longest_increasing(stamps: list[int]) -> int:
    tails: list[int] = []
    for stamp in stamps:
        place = bisect_left(tails, stamp)
        tails[place : place + 1] = [stamp]
    return len(tails)


# --- properties ---------------------------------------------------------------------------------------------

STAMPS = st.lists(st.integers(0, 30), min_size=1, max_size=40)


@given(STAMPS)
def test_accepted_bars_run_strictly_forward_and_the_fewest_rows_are_rejected(stamps: list[int]) -> None:
    bars, report, _ = check([raw_bars(stamps)], HALF_HOUR)
    steps = np.diff(stamps)
    backwards = len(steps) >= 2 and (steps < 0).sum() > (steps > 0).sum()
    assert (np.diff(bars.ts_close_ns) > 0).all()
    assert len(bars) == longest_increasing(stamps[::-1] if backwards else stamps)
    assert len(bars) + report.rows_rejected == report.rows_read == len(stamps)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1.0, 0.0, -1.0, float("nan")])), min_size=1, max_size=40)
)
def test_every_row_is_accepted_or_rejected_exactly_once(rows: list[tuple[int, float]]) -> None:
    stamps, close = [stamp for stamp, _ in rows], [price for _, price in rows]
    bars, report, rejected = check([raw_bars(stamps, close)], HALF_HOUR)
    assert rejected["row"].is_unique
    left = [stamps[index] for index in range(len(rows)) if index + 1 not in set(rejected["row"])]
    assert sorted(left) == ((bars.ts_close_ns - NANOS) // NANOS).tolist()
    assert report.rows_accepted == len(bars) == len(rows) - len(rejected)
    assert report.rejected == rejected["reason"].value_counts().to_dict()


@given(st.permutations(range(12)))
def test_shuffled_rows_are_never_reordered_in_secret(stamps: list[int]) -> None:
    bars, _, rejected = check([raw_bars(stamps)], HALF_HOUR)
    assert set(rejected["reason"]) <= {str(RejectReason.OUT_OF_ORDER)}
    assert len(bars) + len(rejected) == 12


@given(STAMPS, st.integers(0, 40))
@settings(max_examples=50)
def test_files_cut_anywhere_give_the_same_bars_as_the_whole(stamps: list[int], cut: int) -> None:
    ordered = sorted(set(stamps))
    parts = [raw_bars(part, name=name) for name, part in (("b", ordered[cut:]), ("a", ordered[:cut])) if part]
    assert check(parts, HALF_HOUR)[0].sha256() == check([raw_bars(ordered)], HALF_HOUR)[0].sha256()


# --- reasons ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-01-01 02:00,1,2", RejectReason.BROKEN_ROW),
        ("soon,1,2,1,2,5", RejectReason.BAD_TIME),
        (",1,2,1,2,5", RejectReason.BAD_TIME),
        ("2024-01-01 02:00,1,2,,2,5", RejectReason.NAN),
        ("2024-01-01 02:00,1,2,1,nan,5", RejectReason.NAN),
        ("2024-01-01 02:00,1,inf,1,2,5", RejectReason.NAN),
        ("2024-01-01 02:00,1,2,1,2,", RejectReason.NAN),
        ("2024-01-01 02:00,0,2,0,2,5", RejectReason.NON_POSITIVE),
        ("2024-01-01 02:00,1,2,-1,2,5", RejectReason.NON_POSITIVE),
        ("2024-01-01 02:00,1,2,1,2,-5", RejectReason.BAD_VOLUME),
        ("2024-01-01 02:00,1,1e20,1,2,5", RejectReason.TOO_LARGE),
        ("2024-01-01 02:00,1,2,1,2,1e20", RejectReason.TOO_LARGE),
        ("2024-01-01 02:00,1,1.5,1,2,5", RejectReason.INCONSISTENT),
        ("2024-01-01 02:00,1,2,1.5,2,5", RejectReason.INCONSISTENT),
        ("2024-01-01 02:07,1,2,1,2,5", RejectReason.OFF_GRID),
        ("2024-01-01 01:30,1,2,1,2,5", RejectReason.CONFLICT),
        ("2023-12-31 02:00,1,2,1,2,5", RejectReason.OUT_OF_ORDER),
        ("2034-12-31 02:00,1,2,1,2,5", RejectReason.OUT_OF_ORDER),
    ],
)
def test_a_bad_row_is_rejected_for_its_reason_and_alone(tmp_path: Path, row: str, reason: RejectReason) -> None:
    lines = candles().to_csv(index=False).splitlines()
    lines.insert(5, row)
    bars, report, rejected = checked(write_text(tmp_path / "bars.csv", *lines))
    assert len(bars) == 8
    assert report.rejected == {str(reason): 1}
    assert (report.rows_read, report.rows_accepted, report.rows_rejected) == (9, 8, 1)
    assert rejected[["row", "reason", "fields"]].to_numpy().tolist() == [[6, str(reason), row]]


@pytest.mark.parametrize("stamp", ["open", "close"])
def test_a_bar_that_closes_before_nautilus_clock_begins_is_rejected(tmp_path: Path, stamp: str) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(6, "1969-12-29", "1D"))
    bars, report, rejected = check([read(path, stamp=stamp)], BarSize.parse("1d"))
    first = 4 if stamp == "close" else 3
    assert bars.ts_close_ns.tolist() == [day * 86_400 * 10**9 for day in range(1, 7 - first)]
    assert report.rejected == {"before 1970": first}
    assert rejected["row"].tolist() == list(range(2, 2 + first))


def test_where_several_reasons_apply_the_first_is_given(tmp_path: Path) -> None:
    lines = candles().to_csv(index=False).splitlines()
    lines.insert(5, "2024-01-01 02:07,-1,nan,-1,2,-5")
    assert checked(write_text(tmp_path / "bars.csv", *lines))[1].rejected == {"NaN or missing": 1}


def test_rejected_rows_name_their_file_even_when_names_repeat(tmp_path: Path) -> None:
    raws = []
    for folder, start in (("2023", "2023-12-01"), ("2024", "2024-01-01")):
        (tmp_path / folder).mkdir()
        lines = candles(start=start).to_csv(index=False).splitlines()
        lines[3] += ",7"
        raws.append(read(write_text(tmp_path / folder / "bars.csv", *lines)))
    _, report, rejected = check(raws, HALF_HOUR)
    assert rejected["file"].tolist() == [str(tmp_path / "2023" / "bars.csv"), str(tmp_path / "2024" / "bars.csv")]
    assert rejected["row"].tolist() == [4, 4]
    assert report.rejected == {"wrong number of fields": 2}


def test_a_stamp_from_the_far_future_condemns_only_itself() -> None:
    bars, report, rejected = check([raw_bars([0, 1, 900, 2, 3, 4])], HALF_HOUR)
    assert len(bars) == 5
    assert rejected["row"].tolist() == [3]
    assert report.rejected == {"out of order": 1}


def test_files_are_put_in_order_of_time_though_one_begins_with_a_bad_stamp() -> None:
    first, second = raw_bars([900, 0, 1, 2, 3], name="first"), raw_bars([10, 11, 12, 13], name="second")
    bars, report, rejected = check([second, first], HALF_HOUR)
    assert len(bars) == 8
    assert rejected[["file", "row"]].to_numpy().tolist() == [["first", 1]]
    assert report.rejected == {"out of order": 1}


def test_of_two_files_that_overlap_the_later_one_gives_only_what_is_new() -> None:
    bars, report, _ = check([raw_bars([0, 1, 2, 3], name="a"), raw_bars([2, 3, 4, 5], name="b")], HALF_HOUR)
    assert len(bars) == 6
    assert report.rejected == {"duplicate": 2}


def test_a_file_from_new_to_old_is_read_backwards_with_its_own_row_numbers(tmp_path: Path) -> None:
    frame = candles().iloc[::-1].reset_index(drop=True)
    frame.loc[2, "high"] = 0.5
    bars, report, rejected = checked(write_csv(tmp_path / "bars.csv", frame))
    assert len(bars) == 7
    assert rejected["row"].tolist() == [4]
    assert any("new to old" in note for note in report.notes)


def test_a_backward_file_with_one_row_out_of_place_is_still_read_backwards() -> None:
    bars, report, _ = check([raw_bars([9, 8, 7, 2, 6, 5, 4])], HALF_HOUR)
    assert len(bars) == 6
    assert report.rejected == {"out of order": 1}


# --- grids and gaps -----------------------------------------------------------------------------------------


def test_the_close_is_one_bar_behind_the_open(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    stamped_at_open, _, _ = check([read(path)], HALF_HOUR)
    stamped_at_close, _, _ = check([read(path, stamp="close")], HALF_HOUR)
    assert stamped_at_open.ts_close_ns[0] == pd.Timestamp("2024-01-01 00:30").value
    assert stamped_at_close.ts_close_ns[0] == pd.Timestamp("2024-01-01 00:00").value


def test_the_grid_is_the_one_that_most_rows_lie_on(tmp_path: Path) -> None:
    hourly_from_half_past = candles(8, "2024-01-01 09:30", "1h")
    bars, report, _ = checked(write_csv(tmp_path / "bars.csv", hourly_from_half_past), BarSize.parse("1h"))
    assert (len(bars), report.rejected) == (8, {})


@pytest.mark.parametrize("with_offset", [True, False])
def test_days_stay_on_their_grid_when_the_clocks_change(tmp_path: Path, with_offset: bool) -> None:
    frame = candles(10, "2024-03-06", "1D")
    if with_offset:
        frame["time"] = frame["time"].dt.tz_localize("America/New_York").astype(str)
    path = write_csv(tmp_path / "bars.csv", frame)
    raw = read(path) if with_offset else read(path, tz="America/New_York")
    bars, report, _ = check([raw], BarSize.parse("1d"))
    assert (len(bars), report.rejected, report.gaps.count) == (10, {}, 0)
    assert sorted(set(np.diff(bars.ts_close_ns) // 10**9)) == [82_800, 86_400]


def test_a_gap_is_reported_with_its_length(tmp_path: Path) -> None:
    frame = candles(10).drop(index=[3, 4, 8])
    _, report, _ = checked(write_csv(tmp_path / "bars.csv", frame))
    assert [gap.missing_bars for gap in report.gaps.told] == [2, 1]
    assert report.gaps.missing_bars == 3
    assert report.as_dict()["gaps"] == [
        {"after": "2024-01-01T01:30:00Z", "before": "2024-01-01T03:00:00Z", "missing_bars": 2},
        {"after": "2024-01-01T04:00:00Z", "before": "2024-01-01T05:00:00Z", "missing_bars": 1},
    ]


def test_a_rejected_row_leaves_a_gap(tmp_path: Path) -> None:
    frame = candles()
    frame.loc[3, "close"] = np.nan
    _, report, _ = checked(write_csv(tmp_path / "bars.csv", frame))
    assert [gap.missing_bars for gap in report.gaps.told] == [1]


def test_an_hour_more_or_less_in_a_day_hides_no_missing_day() -> None:
    hours = np.array([0, 24, 47, 94, 119], dtype=np.int64)
    gaps = find_gaps(hours * 3600 * 10**9, BarSize.parse("1d"))
    assert [gap.missing_bars for gap in gaps] == [1]


def test_of_very_many_gaps_all_are_counted_and_the_longest_told_in_their_order() -> None:
    found = [Gap(step, step + 1, 1 + step % 100) for step in range(5_000)]
    gaps = Gaps.of(iter(found), most=100)
    assert (gaps.count, gaps.missing_bars) == (5_000, sum(gap.missing_bars for gap in found))
    assert len(gaps.told) == 100 and {gap.missing_bars for gap in gaps.told} == {99, 100}
    assert [gap.after_ns for gap in gaps.told] == sorted(gap.after_ns for gap in gaps.told)


# --- bar sizes ----------------------------------------------------------------------------------------------


def test_the_bar_size_is_the_most_frequent_spacing() -> None:
    assert infer_bar_size([raw_bars([0, 1, 2, 5, 6, 7])], None) == HALF_HOUR


def test_a_bar_size_that_does_not_fit_is_refused() -> None:
    raw = raw_bars(list(range(8)))
    for other in ("1m", "15m", "1h", "1d"):
        with pytest.raises(DataError, match=f"rows are 30m apart, but --bar says {other}"):
            infer_bar_size([raw], BarSize.parse(other))
    assert infer_bar_size([raw], HALF_HOUR) == HALF_HOUR


def test_a_single_row_needs_the_bar_size_given() -> None:
    with pytest.raises(DataError, match=r"too few rows.*--bar"):
        infer_bar_size([raw_bars([1])], None)
    assert infer_bar_size([raw_bars([1])], HALF_HOUR) == HALF_HOUR


@pytest.mark.parametrize("given_size", [None, "1d"])
def test_weekly_bars_are_refused(given_size: str | None) -> None:
    weekly = raw_bars([336 * week for week in range(8)])
    with pytest.raises(DataError, match="rows are 7 days apart"):
        infer_bar_size([weekly], BarSize.parse(given_size) if given_size else None)


def test_thinly_traded_minutes_may_be_mostly_missing(tmp_path: Path) -> None:
    frame = candles(60, every="1min").iloc[[0, 2, 5, 6, 11, 13, 20, 21, 24, 40, 44]]
    path = write_csv(tmp_path / "bars.csv", frame)
    assert infer_bar_size([read(path)], BarSize.parse("1m")) == BarSize(60)


@pytest.mark.parametrize(
    ("days", "bar"), [(["2024-01-05", "2024-01-08"], "1d"), (["2024-01-05 15:30", "2024-01-08 09:30"], "30m")]
)
def test_a_few_rows_may_have_a_night_or_a_weekend_between_them(tmp_path: Path, days: list[str], bar: str) -> None:
    raw = read(write_csv(tmp_path / "bars.csv", candles(2).assign(time=days)))
    assert infer_bar_size([raw], BarSize.parse(bar)) == BarSize.parse(bar)


def test_a_few_rows_that_are_no_whole_number_of_bars_apart_are_refused(tmp_path: Path) -> None:
    raw = read(write_csv(tmp_path / "bars.csv", candles(2, every="90min")))
    for other in ("1h", "1d"):
        with pytest.raises(DataError, match=f"but --bar says {other}"):
            infer_bar_size([raw], BarSize.parse(other))


def test_files_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    half_hours = read(write_csv(tmp_path / "a-30m.csv"))
    hours = read(write_csv(tmp_path / "a-1h.csv", candles(start="2024-02-01", every="1h")))
    with pytest.raises(DataError, match=r"30m in .*a-30m.csv, 1h in .*a-1h.csv"):
        infer_bar_size([half_hours, hours], None)


def test_rows_without_a_time_do_not_disturb_the_size() -> None:
    raw = raw_bars([0, 1, 2, 3])
    raw.stamp_ns[1] = NOT_A_TIME
    assert infer_bar_size([raw], HALF_HOUR) == HALF_HOUR
