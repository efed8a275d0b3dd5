"""From files to the catalog and the report beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.feather
import pytest

from data import sifting
from data.bars import BarSize
from data.catalog import BarCatalog, Outcome
from data.errors import AmbiguousSource, CatalogError, DataError, OptionError
from data.finding import find_files
from data.ingest import IngestRequest, IngestResult, StrictRejection, ingest
from data.instruments import Kind
from data.reading import ReadOptions
from data.rejects import Rejects
from data.reports import REPORTS_DIR
from tests.data.files import candles, held, kline_lines, tree, write_csv, write_text


def run(*sources: Path, catalog: Path, instrument: str = "BTCUSDT.TEST", **options: object) -> IngestResult:
    return ingest(IngestRequest(sources, catalog, instrument, **options))  # type: ignore[arg-type]


def report_of(result: IngestResult) -> dict[str, object]:
    document: dict[str, object] = json.loads(result.report_path.read_text())
    return document


# --- what goes in comes out ---------------------------------------------------------------------------------


def test_bars_are_held_by_their_close_with_every_value_equal(tmp_path: Path) -> None:
    result = run(write_csv(tmp_path / "bars.csv"), catalog=tmp_path / "catalog")
    bars, expected = held(tmp_path / "catalog"), candles()
    closes = expected["time"] + pd.Timedelta("30min")
    assert bars.ts_close_ns.tolist() == [stamp.value for stamp in closes]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).tolist() == expected[name].tolist()
    assert (result.outcome, result.bars_written, result.bar) == (Outcome.ADDED, 8, "30m")
    assert result.interval == "2024-01-01T00:30:00Z to 2024-01-01T04:00:00Z"


def test_stamps_at_the_close_are_the_time_at_which_a_bar_is_known(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "bars.csv"), catalog=tmp_path / "catalog", read=ReadOptions(stamp="close"))
    assert held(tmp_path / "catalog").ts_close_ns[0] == candles()["time"].iloc[0].value


def test_files_of_different_epoch_units_make_one_series(tmp_path: Path) -> None:
    old = write_text(tmp_path / "BTCUSDT-30m-2024-12.csv", *kline_lines(8, "2024-12-31 20:00", unit="ms"))
    new = write_text(tmp_path / "BTCUSDT-30m-2025-01.csv", *kline_lines(8, "2025-01-01", unit="us"))
    result = run(new, old, catalog=tmp_path / "catalog")
    assert result.bars_written == 16
    assert result.quality.gaps.count == 0
    assert (np.diff(held(tmp_path / "catalog").ts_close_ns) == 1800 * 10**9).all()


def test_a_single_bar_is_ingested_when_its_size_is_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(1))
    with pytest.raises(DataError, match="--bar"):
        run(path, catalog=tmp_path / "catalog")
    assert run(path, catalog=tmp_path / "catalog", bar="30m").bars_written == 1


@pytest.mark.parametrize("price", [1e-8, 123_456_789.25])
def test_prices_of_any_size_come_back_equal(tmp_path: Path, price: float) -> None:
    prices = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), [price] * 8))
    path = write_csv(tmp_path / "bars.csv", candles().assign(**prices))
    run(path, catalog=tmp_path / "catalog")
    assert set(held(tmp_path / "catalog").close) == {price}


def test_scaled_prices_lose_the_noise_of_scaling(tmp_path: Path) -> None:
    prices = pd.DataFrame({name: 158_613.0 + np.arange(8) for name in ("open", "high", "low", "close")})
    path = write_csv(tmp_path / "bars.csv", candles().assign(**prices))
    result = run(path, catalog=tmp_path / "c", instrument="GBPUSD.FX", read=ReadOptions(price_scale=1e-5))
    assert result.price_precision == 5
    assert held(tmp_path / "c", "GBPUSD.FX").close[:2].tolist() == [1.58613, 1.58614]


def test_a_digit_that_is_not_kept_is_told(tmp_path: Path) -> None:
    prices = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), [123456.123456781] * 8))
    result = run(write_csv(tmp_path / "bars.csv", candles().assign(**prices)), catalog=tmp_path / "catalog")
    assert result.price_precision == 8
    assert [note for note in result.quality.notes if "rounded to 8 decimals" in note]


def test_a_series_of_endless_digits_that_falls_far_is_held_to_the_end(tmp_path: Path) -> None:
    close = 12345678.123456789 / 7.3 ** np.arange(9)
    frame = candles(9).assign(**dict.fromkeys(("open", "high", "low", "close"), close))
    result = run(write_csv(tmp_path / "bars.csv", frame), catalog=tmp_path / "catalog")
    assert held(tmp_path / "catalog").close == pytest.approx(close, rel=5e-9)
    assert any("more digits than a tick has" in note for note in result.quality.notes)


# --- precision and instrument -------------------------------------------------------------------------------


def test_precision_comes_from_the_data_or_is_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    inferred = run(path, catalog=tmp_path / "a")
    assert (inferred.price_precision, inferred.size_precision) == (2, 4)
    given = run(path, catalog=tmp_path / "b", price_precision=1, size_precision=0)
    assert (given.price_precision, given.size_precision) == (1, 0)
    assert held(tmp_path / "b").open[1] == 100.2
    assert any("prices rounded to 1 decimals" in note for note in given.quality.notes)


def test_an_instrument_stays_as_its_first_ingest_fixed_it(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    run(write_csv(tmp_path / "a.csv"), catalog=catalog)
    finer = write_csv(tmp_path / "b.csv", candles(start="2024-02-01").assign(close=100.123, high=200.0))
    before = tree(catalog)
    with pytest.raises(DataError, match=r"3 decimals, but it was fixed at 2.*--price-precision 2"):
        run(finer, catalog=catalog)
    for option in ({"price_precision": 3}, {"size_precision": 1}, {"kind": Kind.PERPETUAL}):
        with pytest.raises(DataError, match="first ingest"):
            run(finer, catalog=catalog, **option)
    assert tree(catalog) == before
    assert run(finer, catalog=catalog, price_precision=2).outcome is Outcome.ADDED
    assert held(catalog).close[-1] == 100.12


def test_prices_that_would_round_to_nothing_are_refused(tmp_path: Path) -> None:
    tiny = dict.fromkeys(("open", "high", "low", "close"), 0.001)
    with pytest.raises(DataError, match="vanish at 2 decimals"):
        run(write_csv(tmp_path / "bars.csv", candles().assign(**tiny)), catalog=tmp_path / "c", price_precision=2)
    assert not (tmp_path / "c").exists()


def test_an_instrument_that_cannot_be_made_leaves_no_trace(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match="no pair of currencies"):
        run(path, catalog=tmp_path / "c", instrument="SPY.TEST", kind=Kind.CRYPTO)
    with pytest.raises(OptionError, match=r"SYMBOL\.VENUE"):
        run(path, catalog=tmp_path / "c", instrument="SPY")
    assert not (tmp_path / "c").exists()


def test_the_longest_identifier_leaves_room_for_every_name_of_a_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / f"{'b' * 200}.csv", candles().assign(low=[-1.0, *candles()["low"][1:]]))
    name = f"{'A' * 123}.TEST"
    assert run(path, catalog=tmp_path / "c", instrument=name, kind=Kind.EQUITY).bars_written == 7
    with pytest.raises(StrictRejection):
        run(path, catalog=tmp_path / "c", instrument=name, strict=True)


def test_spaces_around_an_identifier_do_no_harm(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    run(path, catalog=tmp_path / "c", instrument=" BTCUSDT.TEST ")
    assert run(path, catalog=tmp_path / "c").outcome is Outcome.UNCHANGED


# --- again ------------------------------------------------------------------------------------------------


def test_two_series_are_not_mixed_into_one(tmp_path: Path) -> None:
    one, other = candles(40), candles(40, base=300.0)
    mixed = pd.concat([one, other]).sort_values("time", kind="stable")
    for frame in (mixed, pd.concat([one, other])):
        path = write_csv(tmp_path / "mixed.csv", frame)
        with pytest.raises(AmbiguousSource, match="40 of 80 rows are at the time of another one"):
            ingest(IngestRequest([path], tmp_path / "catalog", "BTCUSDT.TEST"))
    corrected = pd.concat([one, other[:3]]).sort_values("time", kind="stable")
    found = ingest(IngestRequest([write_csv(tmp_path / "few.csv", corrected)], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert found.quality.rejected == {"same time at another price": 3}


def test_the_same_file_twice_changes_nothing_at_all(tmp_path: Path) -> None:
    frame = candles()
    frame.loc[3, "low"] = 1e6
    path = write_csv(tmp_path / "bars.csv", frame)
    run(path, catalog=tmp_path / "catalog")
    before = tree(tmp_path / "catalog")
    again = run(path, catalog=tmp_path / "catalog")
    assert (again.outcome, again.bars_written, again.bars_before) == (Outcome.UNCHANGED, 0, 7)
    assert tree(tmp_path / "catalog") == before


def test_a_changed_file_replaces_its_interval_and_says_so(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    run(path, catalog=tmp_path / "catalog")
    frame = candles()
    frame.loc[3, "volume"] = 777.0
    changed = run(write_csv(path, frame), catalog=tmp_path / "catalog")
    assert (changed.outcome, changed.bars_written, changed.bars_before) == (Outcome.REPLACED, 8, 8)
    assert held(tmp_path / "catalog").volume[3] == 777.0
    assert report_of(changed)["outcome"] == "replaced"


def test_a_partial_overlap_keeps_the_bars_outside_of_it(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "a.csv", candles(10)), catalog=tmp_path / "catalog")
    later = candles(10, "2024-01-01 02:30", base=200.0)
    result = run(write_csv(tmp_path / "b.csv", later), catalog=tmp_path / "catalog")
    assert (result.outcome, result.bars_before) == (Outcome.REPLACED, 5)
    assert held(tmp_path / "catalog").open.tolist() == [*candles(10)["open"][:5], *later["open"]]


@pytest.mark.parametrize("long", [False, True])
def test_a_missing_file_leaves_the_bars_alone_that_it_held(
    tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sifting, "HELD_ROWS", 10 if long else 10**6)
    catalog = tmp_path / "catalog"
    days = [
        write_csv(tmp_path / f"{day}.csv", candles(48, f"2024-01-0{day}", base=100.0 + day)) for day in (1, 2, 3, 4)
    ]
    run(*days, catalog=catalog)
    for day in (1, 4):
        write_csv(tmp_path / f"{day}.csv", candles(48, f"2024-01-0{day}", base=200.0 + day))
    result = run(days[0], days[3], catalog=catalog)
    assert (result.outcome, result.bars_written, result.bars_before) == (Outcome.REPLACED, 96, 96)
    assert held(catalog).open[::48].tolist() == [201.0, 102.0, 103.0, 204.0] and len(held(catalog)) == 192
    told = (
        "96 bars of before stay where these have none for more than a day, 2024-01-02T00:30:00Z to 2024-01-04T00:00:00Z"
    )
    assert told in report_of(result)["notes"]  # type: ignore[operator]
    assert run(days[0], days[3], catalog=catalog).outcome is Outcome.UNCHANGED


def test_what_a_new_version_of_a_file_leaves_out_goes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(48))
    run(path, catalog=tmp_path / "catalog")
    result = run(write_csv(path, candles(48).drop(index=range(10, 40))), catalog=tmp_path / "catalog")
    assert result.outcome is Outcome.REPLACED and len(held(tmp_path / "catalog")) == 18


def test_bars_that_an_earlier_reading_of_the_same_file_left_are_told_of(tmp_path: Path) -> None:
    catalog, path = tmp_path / "catalog", write_csv(tmp_path / "bars.csv", candles(10))
    run(path, catalog=catalog)
    result = run(path, catalog=catalog, read=ReadOptions(stamp="close"))
    assert (result.outcome, len(held(catalog))) == (Outcome.REPLACED, 11)
    (told,) = [note for note in result.quality.notes if "earlier reading" in note]
    assert told.startswith(
        "1 bars stay outside of these, 2024-01-01T05:00:00Z, from an earlier reading of the same files"
    )
    assert f"sage catalog rm {catalog} BTCUSDT.TEST --bar 30m" in told
    assert told in report_of(result)["notes"]  # type: ignore[operator]


def test_bars_that_an_earlier_reading_left_are_told_of_until_they_are_gone(tmp_path: Path) -> None:
    catalog, path = tmp_path / "catalog", write_csv(tmp_path / "bars.csv", candles(10))
    run(path, catalog=catalog)
    for _ in range(3):
        result = run(path, catalog=catalog, read=ReadOptions(stamp="close"))
        assert [note for note in report_of(result)["notes"] if "earlier reading" in note]  # type: ignore[attr-defined]
    assert result.outcome is Outcome.UNCHANGED
    # Read as it was at first, it has that bar, and lacks the first one of the reading between.
    result = run(path, catalog=catalog)
    (told,) = [note for note in result.quality.notes if "earlier reading" in note]
    assert "1 bars stay outside of these, 2024-01-01T00:00:00Z" in told and "with stamp close" in told
    for file in (catalog / "data" / "bar").rglob("*.parquet"):
        file.unlink()
    result = run(path, catalog=catalog)
    assert not [note for note in report_of(result)["notes"] if "earlier reading" in note]  # type: ignore[attr-defined]


def test_bars_that_another_ingest_explains_are_not_told_as_left(tmp_path: Path) -> None:
    catalog, path = tmp_path / "catalog", write_csv(tmp_path / "bars.csv", candles(10))
    run(path, catalog=catalog)
    run(write_csv(tmp_path / "next.csv", candles(10, "2024-01-01 04:30")), catalog=catalog)
    result = run(path, catalog=catalog, read=ReadOptions(stamp="close"))
    assert not [note for note in result.quality.notes if "earlier reading" in note]


def test_two_sizes_of_one_instrument_live_side_by_side(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "a.csv"), catalog=tmp_path / "catalog")
    run(write_csv(tmp_path / "b.csv", candles(every="1h")), catalog=tmp_path / "catalog")
    sizes = BarCatalog(tmp_path / "catalog").bar_sizes("BTCUSDT.TEST")
    assert sizes == ["1-HOUR-LAST-EXTERNAL", "30-MINUTE-LAST-EXTERNAL"]
    assert len(held(tmp_path / "catalog", size=BarSize.parse("1h"))) == 8


# --- report -------------------------------------------------------------------------------------------------


def dirty(path: Path) -> Path:
    """Eight bars of which rows 4 (NaN) and 6 (one field too many) are none, and a duplicate in row 10."""
    lines = candles().to_csv(index=False).splitlines()
    lines[3] = lines[3].replace("100.25", "")
    lines[5] += ",9"
    lines.append(lines[-1])
    return write_text(path, *lines)


def test_the_report_counts_what_was_read_written_and_rejected(tmp_path: Path) -> None:
    result = run(dirty(tmp_path / "bars.csv"), catalog=tmp_path / "catalog")
    report = report_of(result)
    assert result.report_path.parent == tmp_path / "catalog" / REPORTS_DIR
    assert (report["rows_read"], report["rows_accepted"], report["rows_written"]) == (9, 6, 6)
    assert report["rejected"] == {"wrong number of fields": 1, "NaN or missing": 1, "duplicate": 1}
    assert report["missing_bars"] == 2
    assert report["layouts"] == {str(tmp_path / "bars.csv"): "ohlcv"}


def test_rejected_rows_lie_beside_the_report_with_their_numbers_and_fields(tmp_path: Path) -> None:
    path = dirty(tmp_path / "bars.csv")
    result = run(path, catalog=tmp_path / "catalog")
    assert result.rejected_path is not None
    assert result.rejected_path.parent == result.report_path.parent
    lines = path.read_text().splitlines()
    rejected = pd.read_csv(result.rejected_path)
    assert sorted(zip(rejected["row"], rejected["reason"], strict=True)) == [
        (4, "NaN or missing"), (6, "wrong number of fields"), (10, "duplicate"),
    ]  # fmt: skip
    for row, fields in zip(rejected["row"], rejected["fields"], strict=True):
        assert fields == lines[row - 1]


def test_files_of_one_name_in_two_directories_have_two_reports(tmp_path: Path) -> None:
    results = []
    for folder, start in (("2023", "2023-12-01"), ("2024", "2024-01-01")):
        (tmp_path / folder).mkdir()
        frame = candles(start=start)
        frame.loc[2, "open"] = -1.0
        results.append(run(write_csv(tmp_path / folder / "bars.csv", frame), catalog=tmp_path / "catalog"))
    paths = [result.rejected_path for result in results]
    assert len(set(paths)) == 2
    assert all(path is not None and path.exists() for path in paths)


@pytest.mark.parametrize("letter", ["a", "ü"])
def test_a_file_with_as_long_a_name_as_there_is_has_its_report(tmp_path: Path, letter: str) -> None:
    path = dirty(tmp_path / f"{letter * (250 // len(letter.encode()))}.csv")
    result = run(path, catalog=tmp_path / "catalog")
    assert report_of(result)["rows_written"] == 6
    assert result.rejected_path is not None and len(pd.read_csv(result.rejected_path)) == 3


def test_a_report_that_cannot_be_saved_is_told_and_comes_with_the_next_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = write_csv(tmp_path / "bars.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Rejects, "save", no_space)
        with pytest.raises(CatalogError, match=r"the bars are in the catalog, but the report .* \(No space left"):
            run(path, catalog=tmp_path / "catalog")
    assert len(held(tmp_path / "catalog")) == 8
    result = run(path, catalog=tmp_path / "catalog")
    assert result.outcome is Outcome.UNCHANGED and report_of(result)["sources"]


def test_a_file_cleaned_up_since_leaves_no_rejected_rows_behind(tmp_path: Path) -> None:
    path = dirty(tmp_path / "bars.csv")
    first = run(path, catalog=tmp_path / "catalog")
    second = run(write_csv(path), catalog=tmp_path / "catalog")
    assert second.rejected_path is None
    assert first.rejected_path is not None and not first.rejected_path.exists()


def test_strict_writes_no_bars_but_the_rejected_rows(tmp_path: Path) -> None:
    with pytest.raises(StrictRejection, match="3 of 9 rows rejected under --strict"):
        run(dirty(tmp_path / "bars.csv"), catalog=tmp_path / "catalog", strict=True)
    written = {Path(name).parts[0] for name in tree(tmp_path / "catalog")}
    assert written == {REPORTS_DIR}
    report = next((tmp_path / "catalog" / REPORTS_DIR).glob("*.json"))
    assert json.loads(report.read_text())["rows_rejected"] == 3


def test_strict_leaves_the_bars_of_an_earlier_ingest_alone(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "bars.csv"), catalog=tmp_path / "catalog")
    before = tree(tmp_path / "catalog" / "data")
    with pytest.raises(StrictRejection):
        run(dirty(tmp_path / "bars.csv"), catalog=tmp_path / "catalog", strict=True)
    assert tree(tmp_path / "catalog" / "data") == before


def test_strict_lets_a_clean_file_pass(tmp_path: Path) -> None:
    assert run(write_csv(tmp_path / "bars.csv"), catalog=tmp_path / "catalog", strict=True).bars_written == 8


def test_a_file_with_no_good_row_is_an_error_that_counts_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 8 rows are rejected: 8 non-positive price"):
        run(write_csv(tmp_path / "bars.csv", candles().assign(low=0.0)), catalog=tmp_path / "catalog")
    assert not (tmp_path / "catalog").exists()


# --- finding files ------------------------------------------------------------------------------------------


def test_a_directory_means_the_bar_files_in_it(tmp_path: Path) -> None:
    for name in ("b.csv", "a.feather", "c.ZIP", "notes.md", "c.ZIP.CHECKSUM", "._b.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()
    assert [path.name for path in find_files([tmp_path])[0]] == ["a.feather", "b.csv", "c.ZIP"]


def test_a_directory_of_several_layouts_makes_one_series(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    write_text(folder / "a.csv", *kline_lines(8))
    frame = candles(8, "2024-01-01 04:00").rename(columns={"time": "date"})
    frame["date"] = frame["date"].dt.tz_localize("UTC")
    pyarrow.feather.write_feather(frame, folder / "b.feather")
    candles(8, "2024-01-01 08:00").to_parquet(folder / "c.parquet")
    result = run(folder, catalog=tmp_path / "catalog")
    assert sorted(result.layouts.values()) == ["binance-kline", "freqtrade-feather", "ohlcv"]
    assert (result.bars_written, result.quality.gaps.count) == (24, 0)


def test_a_file_named_twice_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="more than once"):
        find_files([path, tmp_path / "folder" / ".." / "bars.csv"])
