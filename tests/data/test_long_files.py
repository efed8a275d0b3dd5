"""Files too long to be held at once come to the same bars as those that are not."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import batches, quality, sifting, tables
from data.bars import Bars, joined
from data.calendars import Calendar, calendar_of
from data.errors import DataError
from data.ingest import IngestRequest, IngestResult, ingest
from data.spool import SPOOL_PREFIX, Spool
from tests.data.files import bars, candles, held, tree, write_csv


@pytest.fixture
def short_breath(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows at a time."""
    monkeypatch.setattr(sifting, "HELD_ROWS", 300)
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 8_000)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 250)


def run(sources: list[Path], catalog: Path, **options: object) -> IngestResult:
    return ingest(IngestRequest(sources, catalog, "BTCUSDT.TEST", **options))  # type: ignore[arg-type]


def frames() -> dict[str, pd.DataFrame]:
    """Tables that come in order, and some that do not."""
    good = candles(2_000)
    twice = pd.concat([good.iloc[:1_000], good.iloc[900:]])
    strayed = good.copy()
    strayed.loc[700, "time"] = pd.Timestamp("2030-01-01")
    bad = good.copy()
    bad.loc[[5, 500, 1_500], "high"] = 0.01
    holes = good.drop(index=range(600, 640))
    return {"good": good, "backwards": good.iloc[::-1], "twice": twice, "strayed": strayed, "bad": bad, "holes": holes}


@pytest.mark.parametrize("name", frames())
def test_a_long_file_comes_to_the_same_bars_and_the_same_counts(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = write_csv(tmp_path / "bars.csv", frames()[name])
    whole = run([path], tmp_path / "whole")
    request.getfixturevalue("short_breath")
    parts = run([path], tmp_path / "parts")
    assert held(tmp_path / "parts").sha256() == held(tmp_path / "whole").sha256()
    assert parts.quality.rejected == whole.quality.rejected
    assert parts.quality.gaps == whole.quality.gaps
    assert (parts.quality.rows_read, parts.bars_written) == (whole.quality.rows_read, whole.bars_written)
    assert (parts.price_precision, parts.size_precision) == (whole.price_precision, whole.size_precision)
    assert not list((tmp_path / "parts").glob(f"{SPOOL_PREFIX}*"))


def test_rows_that_leave_the_grid_of_their_long_file_are_rejected(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    frame = candles(3_000)
    frame.loc[1_900:, "time"] += pd.Timedelta("10min")
    path = write_csv(tmp_path / "bars.csv", frame)
    whole = run([path], tmp_path / "whole")
    request.getfixturevalue("short_breath")
    parts = run([path], tmp_path / "parts")
    assert parts.quality.rejected == whole.quality.rejected == {"off-grid": 1_100}
    assert held(tmp_path / "parts").sha256() == held(tmp_path / "whole").sha256()


@pytest.mark.parametrize("clock", ["America/New_York", "UTC"])
def test_the_grid_of_a_long_file_follows_sessions_or_the_clock_though_its_beginning_fits_both(
    tmp_path: Path, request: pytest.FixtureRequest, clock: str
) -> None:
    """Bars of four hours from New York's evening, or at the same hours UTC: in winter there is no difference."""
    days = pd.bdate_range("2024-01-01", "2024-05-31").union(pd.date_range("2024-01-07", "2024-05-26", freq="W-SUN"))
    begins = (days + pd.Timedelta("17h" if clock == "America/New_York" else "22h")).tz_localize(clock)
    hours = np.sort(np.concatenate([begins.tz_convert("UTC").asi8 + 4 * 3600 * 10**9 * step for step in range(6)]))
    frame = candles(len(hours), every="4h").assign(time=pd.to_datetime(hours))
    path = write_csv(tmp_path / "fx.csv", frame)
    whole = ingest(IngestRequest([path], tmp_path / "whole", "GBPUSD.FXCM"))
    request.getfixturevalue("short_breath")
    parts = ingest(IngestRequest([path], tmp_path / "parts", "GBPUSD.FXCM"))
    assert parts.quality.rejected == whole.quality.rejected == {}
    assert (parts.bars_written, parts.quality.gaps) == (len(frame), whole.quality.gaps)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("blank", "rejected"), [(1_500, {"NaN or missing": 1_500}), (3_000, {})])
def test_volume_that_begins_further_down_is_not_lost(
    tmp_path: Path, request: pytest.FixtureRequest, suffix: str, blank: int, rejected: dict[str, int]
) -> None:
    frame, path = candles(3_000), tmp_path / f"bars{suffix}"
    frame.loc[: blank - 1, "volume"] = np.nan
    write_csv(path, frame) if suffix == ".csv" else frame.to_parquet(path)
    whole = run([path], tmp_path / "whole")
    request.getfixturevalue("short_breath")
    parts = run([path], tmp_path / "parts")
    assert parts.quality.rejected == whole.quality.rejected == rejected
    assert held(tmp_path / "parts").sha256() == held(tmp_path / "whole").sha256()
    assert held(tmp_path / "parts").volume.sum() == frame["volume"].sum()


@pytest.mark.usefixtures("short_breath")
def test_broken_rows_keep_their_numbers_in_long_files(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(1_000))
    lines = path.read_text().splitlines()
    for number in (300, 700, 1_000):
        lines[number] = "one,two"
    lines.insert(500, "")
    path.write_text("\n".join(lines) + "\n")
    found = run([path], tmp_path / "catalog")
    assert found.rejected_path is not None
    rejected = pd.read_csv(found.rejected_path)
    assert rejected["row"].tolist() == [301, 702, 1_002] and set(rejected["reason"]) == {"wrong number of fields"}
    assert found.bars_written == 997


@pytest.mark.usefixtures("short_breath")
@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_typed_files_are_long_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bars{suffix}"
    getattr(candles(1_500), f"to_{suffix[1:]}")(path)
    assert run([path], tmp_path / "catalog").bars_written == 1_500
    assert held(tmp_path / "catalog").close.tolist() == candles(1_500)["close"].tolist()


@pytest.mark.usefixtures("short_breath")
def test_many_files_make_one_series_whatever_their_order(tmp_path: Path) -> None:
    frame = candles(2_000)
    paths = [write_csv(tmp_path / f"{part}.csv", frame.iloc[500 * part : 500 * part + 500]) for part in (2, 0, 3, 1)]
    run(paths, tmp_path / "catalog")
    assert held(tmp_path / "catalog").close.tolist() == frame["close"].tolist()


@pytest.mark.usefixtures("short_breath")
def test_the_same_long_file_again_changes_nothing_and_a_changed_one_replaces(tmp_path: Path) -> None:
    frame = candles(1_200)
    run([write_csv(tmp_path / "bars.csv", frame)], tmp_path / "catalog")
    before = tree(tmp_path / "catalog")
    assert run([tmp_path / "bars.csv"], tmp_path / "catalog").outcome == "unchanged"
    assert tree(tmp_path / "catalog") == before
    frame.loc[600, "close"] += 0.01
    found = run([write_csv(tmp_path / "bars.csv", frame.iloc[400:800])], tmp_path / "catalog")
    assert (found.outcome, found.bars_before) == ("replaced", 400)
    assert held(tmp_path / "catalog").close.tolist() == frame["close"].tolist()


@pytest.mark.usefixtures("short_breath")
def test_a_later_file_of_wider_bars_is_refused_in_a_long_source_too(tmp_path: Path) -> None:
    fine = write_csv(tmp_path / "a.csv", candles(1_000, every="1min"))
    wide = write_csv(tmp_path / "b.csv", candles(20, "2024-02-01", every="1h"))
    with pytest.raises(DataError, match=r"b\.csv: bars are 1h apart, and before that 1m"):
        run([fine, wide], tmp_path / "catalog")


@pytest.mark.usefixtures("short_breath")
def test_two_last_rows_run_as_their_file_runs(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    candles(502).iloc[::-1].to_parquet(path)
    found = run([path], tmp_path / "catalog")
    assert (found.bars_written, found.quality.rows_rejected) == (502, 0)


@pytest.mark.usefixtures("short_breath")
def test_a_long_file_with_a_footer_loses_the_footer_alone(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(500))
    block = (path.stat().st_size // 8_000) * 8_000
    path.write_text(path.read_text().ljust(block + 7_990, "\n") + "\n\n\n\nthat,is,all,of,it,really\n" * 9)
    found = run([path], tmp_path / "catalog")
    assert found.bars_written == 500 and found.quality.rejected == {"unreadable time": 9}


@pytest.mark.usefixtures("short_breath")
def test_gaps_before_the_head_of_a_long_source_are_found(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01 23:00", "2024-06-28 20:00", freq="h")
    week = hours[
        (hours.weekday < 4) | ((hours.weekday == 4) & (hours.hour < 21)) | ((hours.weekday == 6) & (hours.hour > 22))
    ]
    frame = candles(len(week), every="1h").assign(time=week).drop(index=range(200, 210)).iloc[::-1]
    found = ingest(IngestRequest([write_csv(tmp_path / "fx.csv", frame)], tmp_path / "catalog", "GBPUSD.FXCM"))
    assert [gap.missing_bars for gap in found.quality.gaps.told if gap.missing_bars > 5] == [10]


@pytest.mark.usefixtures("short_breath")
def test_bars_of_another_size_further_down_are_refused_with_their_row(tmp_path: Path) -> None:
    frame = pd.concat([candles(1_000), candles(1_000, "2024-02-01", every="5min")])
    with pytest.raises(DataError, match=r"bars.csv: from row \d+ bars are 5m apart, and before that 30m"):
        run([write_csv(tmp_path / "bars.csv", frame)], tmp_path / "catalog")
    assert not (tmp_path / "catalog" / "data").exists()


def test_two_long_sides_come_to_the_same_as_two_short_ones(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bid = candles(2_000)
    ask = bid.assign(**{name: bid[name] + 0.02 + 0.01 * (bid.index % 7) for name in ("open", "high", "low", "close")})
    paths = (
        write_csv(tmp_path / "bid.csv", bid.drop(index=[*range(300, 333), 1_999])),
        write_csv(tmp_path / "ask.csv", ask.drop(index=range(900, 1_300))),
    )
    whole = run(paths[:1], tmp_path / "whole", ask=paths[1:])
    request.getfixturevalue("short_breath")
    parts = run(paths[:1], tmp_path / "parts", ask=paths[1:])
    assert held(tmp_path / "parts").sha256() == held(tmp_path / "whole").sha256()
    assert parts.quality.rejected == whole.quality.rejected == {"one side only": 434}
    assert parts.quality.gaps == whole.quality.gaps and parts.bars_written == 1_566
    assert parts.spreads is not None and whole.spreads is not None
    for name in ("hour", "half_spread_bps", "bars"):
        np.testing.assert_allclose(getattr(parts.spreads, name), getattr(whole.spreads, name), rtol=1e-12)
    assert not list((tmp_path / "parts").glob(f"{SPOOL_PREFIX}*"))


@pytest.mark.usefixtures("short_breath")
def test_what_a_killed_ingest_has_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    dead = tmp_path / "catalog" / f"{SPOOL_PREFIX}dead"
    dead.write_text("left")
    with Spool(tmp_path / "catalog") as at_work:
        at_work.append(bars(), dead)
        run([write_csv(tmp_path / "bars.csv", candles(500))], tmp_path / "catalog")
        assert not dead.exists() and len(list(at_work.by_middle())) == 1
    assert not list((tmp_path / "catalog").glob(f"{SPOOL_PREFIX}*"))


def test_a_line_without_an_end_and_a_header_without_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("time,open,high,low,close\n" + "x" * (17 * 2**20) + ",1,1,1,1\n")
    with pytest.raises(DataError) as caught:
        run([path], tmp_path / "catalog")
    assert len(str(caught.value)) < 500
    path.write_text(",".join(f"column{number}" for number in range(100_000)) + "\n")
    with pytest.raises(DataError, match="first line has more than 64 KiB"):
        run([path], tmp_path / "catalog")


def test_progress_of_one_long_file_is_steady(tmp_path: Path, short_breath: None) -> None:
    heard: list[tuple[str, int, int]] = []
    path = write_csv(tmp_path / "bars.csv", candles(3_000))
    ingest(IngestRequest([path], tmp_path / "catalog", "BTCUSDT.TEST"), lambda *told: heard.append(told))
    reading = [done for what, done, _ in heard if what == "reading"]
    assert len(reading) > 8 and reading == sorted(reading)
    assert float(np.diff(reading).max()) <= 300


@pytest.mark.parametrize("most", [10**6, 300])
def test_a_file_that_reaches_back_over_a_shorter_one_costs_doubles_and_no_more(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    frame = candles(3_000)
    parts = {"a": frame[:1_000], "b": frame[1_000:1_050], "c": frame[900:]}
    paths = [write_csv(tmp_path / f"{name}.csv", part) for name, part in parts.items()]
    whole = run(paths, tmp_path / "whole")
    request.getfixturevalue("short_breath")
    monkeypatch.setattr(quality, "MERGED_ROWS", most)
    found = run(paths, tmp_path / "parts")
    assert held(tmp_path / "parts").sha256() == held(tmp_path / "whole").sha256()
    assert found.quality.rejected == whole.quality.rejected == {"duplicate": 150}


def test_files_that_each_repeat_a_bar_are_not_held_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "HELD_ROWS", 300)
    monkeypatch.setattr(quality, "MERGED_ROWS", 500)
    most = 0
    risen = quality._risen

    def watched(group: list[tuple[Bars, Path]], reject: Callable[[pd.DataFrame], None]) -> object:
        nonlocal most
        most = max(most, sum(len(part) for part, _ in group))
        return risen(group, reject)

    monkeypatch.setattr(quality, "_risen", watched)
    frame = candles(6_001)
    paths = [write_csv(tmp_path / f"{at:05}.csv", frame[at : at + 201]) for at in range(0, 6_000, 200)]
    found = run(paths, tmp_path / "catalog")
    assert held(tmp_path / "catalog").close.tolist() == frame["close"].tolist()
    assert found.quality.rejected == {"duplicate": 29}
    assert 500 < most < 1_000


@pytest.mark.parametrize("after", ["", "+02:00"])
def test_stamps_that_change_between_an_offset_and_none_are_no_times_of_the_same_file(
    tmp_path: Path, request: pytest.FixtureRequest, after: str
) -> None:
    frame = candles(600)
    before = "" if after else "+02:00"
    frame["time"] = frame["time"].astype(str) + pd.Series([before] * 310 + [after] * 290)
    path = write_csv(tmp_path / "bars.csv", frame)
    whole = run([path], tmp_path / "whole")
    assert whole.quality.rejected == {"unreadable time": 290}
    request.getfixturevalue("short_breath")
    try:
        assert run([path], tmp_path / "parts").quality.rejected == whole.quality.rejected
    except DataError as error:
        assert "is not read as a time" in str(error)


@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_a_file_of_one_batch_is_read_some_rows_at_a_time(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 250)
    table = pa.Table.from_pandas(candles(1_100))
    path = tmp_path / f"bars{suffix}"
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    assert [len(part.frame) for part in tables.open_tables(path)] == [250, 250, 250, 250, 100]


def test_a_file_in_parts_is_judged_as_the_one_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 250)
    path = tmp_path / "bars.parquet"
    candles(502).iloc[::-1].to_parquet(path)
    found = run([path], tmp_path / "back")
    assert (found.bars_written, found.quality.rows_rejected) == (502, 0)
    thin = pd.concat([candles(250, every="1min"), candles(8, "2024-01-02", every="2min")], ignore_index=True)
    thin.to_parquet(path)
    found = run([path], tmp_path / "thin", bar="1m")
    assert (found.bars_written, found.quality.rows_rejected) == (258, 0)


@pytest.mark.usefixtures("short_breath")
def test_one_calendar_does_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(name: str, first_ns: int, last_ns: int) -> Calendar:
        made.append(name)
        return calendar_of(name, first_ns, last_ns)

    monkeypatch.setattr(sifting, "calendar_of", counted)
    for number, day in enumerate(pd.bdate_range("2024-01-02", periods=20)):
        write_csv(tmp_path / f"{number:02}.csv", candles(60, str(day + pd.Timedelta(hours=15)), every="1min"))
    found = ingest(IngestRequest([tmp_path], tmp_path / "catalog", "SPY.ARCA", calendar="weekdays"))
    assert found.bars_written == 1_200 and len(made) <= 4


def test_a_letter_of_another_encoding_far_down_costs_its_row_alone(tmp_path: Path) -> None:
    frame = candles(4_000).assign(venue="K\u00f6ln")
    path = write_csv(tmp_path / "bars.csv", frame)
    lines = path.read_bytes().split(b"\n")
    assert sum(map(len, lines[:3_000])) > 2**16
    lines[3_000] = b"K\xf6ln,too"
    lines[3_500] = lines[3_500].replace("K\u00f6ln".encode(), b"K\xf6ln")
    path.write_bytes(b"\n".join(lines))
    found = run([path], tmp_path / "catalog")
    assert (found.bars_written, found.quality.rejected) == (3_999, {"wrong number of fields": 1})


@given(seed=st.integers(0, 10**6), most=st.sampled_from([50, 10**6]))
@settings(max_examples=30, deadline=None)
def test_parts_that_overlap_lose_doubles_and_nothing_else(seed: int, most: int) -> None:
    """Files of stretches of one series, in parts, with the most that is held at once."""
    rng = np.random.default_rng(seed)
    series = bars(0, 400)
    rejected: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "MERGED_ROWS", most)
        with Spool(Path(name)) as spool, Spool(Path(name)) as into:
            covered = np.zeros(400, dtype=bool)
            count = 0
            for file in range(int(rng.integers(2, 7))):
                begin = int(rng.integers(0, 300))
                end = int(rng.integers(begin + 20, 400))
                covered[begin:end] = True
                count += end - begin
                cuts = np.unique([begin, *rng.integers(begin, end, 3), end]).tolist()
                for low, high in itertools.pairwise(cuts):
                    spool.append(series[slice(low, high)], Path(f"{file}.csv"))
            found = joined([*quality._in_order(spool, into, rejected.append)])
    assert found.ts_close_ns.tolist() == series.ts_close_ns[covered].tolist(), f"seed {seed}"
    assert sum(map(len, rejected)) == count - int(covered.sum()), f"seed {seed}"
