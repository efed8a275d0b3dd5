"""``sage catalog``: what is held, where it came from, what is damaged, and what goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from data.bars import BarSize
from data.catalog import BarCatalog
from data.errors import CatalogError, DataError
from data.ingest import IngestRequest, StrictRejection, ingest
from data.journal import JOURNAL
from data.market import catalog_market
from data.reading import ReadOptions
from tests.data.files import candles, held, write_csv


def sage(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["catalog", *map(str, arguments)])


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Half hours of one coin in two files with a gap between, and hours of another."""
    place = tmp_path / "catalog"
    for name, instrument, frame in (
        ("a.csv", "BTCUSDT.TEST", candles(8)),
        ("b.csv", "BTCUSDT.TEST", candles(4, "2024-01-01 06:00")),
        ("c.csv", "ETHUSDT.TEST", candles(5, every="1h")),
    ):
        path = write_csv(tmp_path / name, frame)
        ingest(IngestRequest([path], place, instrument, price_precision=2, read=ReadOptions(stamp="open")))
    return place


def files(catalog: Path, instrument: str) -> list[Path]:
    return sorted(path for path in (catalog / "data" / "bar").rglob("*.parquet") if instrument in str(path))


def test_everything_held_is_listed(catalog: Path) -> None:
    told = sage("ls", catalog)
    assert told.exit_code == 0, told.output
    assert "BTCUSDT.TEST" in told.stdout and "30m" in told.stdout and "12" in told.stdout
    document = json.loads(sage("ls", catalog, "--json").stdout)
    assert [(one["instrument"], one["bar"], one["rows"], one["files"]) for one in document["holdings"]] == [
        ("BTCUSDT.TEST", "30m", 12, 2), ("ETHUSDT.TEST", "1h", 5, 1),
    ]  # fmt: skip
    assert document["holdings"][0]["last_close"] == "2024-01-01T08:00:00Z"
    # On a narrow terminal nothing is cut off: it goes on in the next line.
    narrow = CliRunner(env={"COLUMNS": "60", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        app, ["catalog", "ls", str(catalog)]
    )
    assert "…" not in narrow.stdout


def test_an_instrument_is_shown_with_its_gaps_and_where_it_came_from(catalog: Path) -> None:
    told = sage("show", catalog, "BTCUSDT.TEST").stdout
    assert "1 with 4 bars missing" in told and "a.csv" in told and "b.csv" in told and "stamp open" in told
    (document,) = json.loads(sage("show", catalog, "BTCUSDT.TEST", "--json").stdout)
    assert document["gaps"] == [{"after": "2024-01-01T04:00:00Z", "before": "2024-01-01T06:30:00Z", "missing_bars": 4}]
    assert len(document["ingests"]) == 2
    newest = document["ingests"][0]
    assert newest["options"] == {"price_precision": 2, "stamp": "open"} and newest["at"].startswith("20")
    assert [len(sha256) for sha256 in newest["sources"].values()] == [64]


def test_the_options_of_an_ingest_are_shown_in_words(tmp_path: Path) -> None:
    place = tmp_path / "catalog"
    bid, ask = (
        write_csv(tmp_path / f"{name}.csv", candles(8, base=base)) for name, base in (("bid", 9.0), ("ask", 9.5))
    )
    ingest(IngestRequest([bid], place, "GBPUSD.FX", ask=[ask], read=ReadOptions(columns={"close": "close"})))
    told = " ".join(sage("show", place, "GBPUSD.FX").stdout.split())
    assert f"ask {ask}" in told and "columns close=close" in told


def test_what_is_not_there_is_said_with_what_is(catalog: Path) -> None:
    told = sage("show", catalog, "XRPUSDT.TEST")
    assert told.exit_code == ExitCode.BAD_DATA
    assert "no bars of XRPUSDT.TEST; the catalog holds BTCUSDT.TEST, ETHUSDT.TEST" in told.stderr
    assert sage("ls", catalog / "none").exit_code == ExitCode.BAD_DATA


def test_a_sound_catalog_is_found_so(catalog: Path) -> None:
    told = sage("check", catalog)
    assert told.exit_code == 0, told.output
    assert "3 files with 17 bars read; all of it is fine" in told.stdout


def test_a_file_that_was_cut_off_is_found(catalog: Path) -> None:
    path = files(catalog, "BTCUSDT")[0]
    path.write_bytes(path.read_bytes()[:-100])
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert str(path) in told.stdout and "ingest its interval again" in told.stdout
    document = json.loads(sage("check", catalog, "--json").stdout)
    assert [Path(one["file"]) for one in document["damage"]] == [path]
    assert "damaged" in sage("ls", catalog).stdout


@pytest.mark.parametrize("seed", range(12))
def test_a_single_bit_that_changed_anywhere_in_the_bars_is_found(catalog: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (path,) = files(catalog, "ETHUSDT")
    raw = bytearray(path.read_bytes())
    with pyarrow.parquet.ParquetFile(path) as opened:
        columns = [opened.metadata.row_group(0).column(index) for index in range(opened.metadata.num_columns)]
    column = columns[int(rng.integers(len(columns)))]
    # From the end of the column's pages: at their beginning is a header, whose loss any reader notices.
    place = column.data_page_offset + column.total_compressed_size - 1 - int(rng.integers(4))
    raw[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(raw)
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED, f"seed {seed}: bit of {column.path_in_schema}\n{told.output}"
    assert str(path) in told.stdout
    opened = BarCatalog(catalog)
    instrument = opened.instrument("ETHUSDT.TEST")
    assert instrument is not None
    with pytest.raises(CatalogError, match="damaged"):
        opened.bars(instrument, BarSize.parse("1h"))


def test_a_file_whose_values_were_altered_is_found(catalog: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    table = pyarrow.parquet.read_table(path, partitioning=None)
    low, high = table.column_names.index("low"), table.column_names.index("high")
    swapped = table.set_column(low, table.schema.field("low"), table.column("high")).set_column(
        high, table.schema.field("high"), table.column("low")
    )
    pyarrow.parquet.write_table(swapped, path)
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and str(path) in told.stdout


def test_a_damaged_file_is_mended_by_what_the_check_advises(catalog: Path, tmp_path: Path) -> None:
    first, _ = files(catalog, "BTCUSDT.TEST")
    first.write_bytes(first.read_bytes()[:-100])
    assert sage("check", catalog).exit_code == ExitCode.CHECK_FAILED
    ingest(IngestRequest([tmp_path / "a.csv"], catalog, "BTCUSDT.TEST"))
    assert sage("check", catalog).exit_code == 0
    assert len(held(catalog, "BTCUSDT.TEST")) == 12
    first.write_bytes(first.read_bytes()[:-100])
    assert sage("rm", catalog, "BTCUSDT.TEST", "--yes").exit_code == 0
    assert sage("check", catalog).exit_code == 0 and not files(catalog, "BTCUSDT.TEST")


def test_a_damaged_file_that_holds_more_than_what_is_ingested_is_not_thrown_away(catalog: Path, tmp_path: Path) -> None:
    first, _ = files(catalog, "BTCUSDT.TEST")
    first.write_bytes(first.read_bytes()[:-100])
    before = first.read_bytes()
    part = write_csv(tmp_path / "part.csv", candles(4))
    with pytest.raises(CatalogError, match="ingest all of its interval again, 2024-01-01T00:30:00Z to"):
        ingest(IngestRequest([part], catalog, "BTCUSDT.TEST"))
    assert first.read_bytes() == before


def test_bars_that_are_not_read_are_named_and_strange_files_are_found(catalog: Path) -> None:
    bids = catalog / "data" / "bar" / "BTCUSDT.TEST-30-MINUTE-BID-EXTERNAL"
    shutil.copytree(files(catalog, "BTCUSDT.TEST")[0].parent, bids)
    told = sage("ls", catalog, "--json")
    assert json.loads(told.stdout)["others"] == [bids.name]
    assert len(json.loads(told.stdout)["holdings"]) == 2
    assert bids.name in sage("check", catalog).stderr
    strange = files(catalog, "ETHUSDT.TEST")[0].with_name("part-0.parquet")
    strange.write_bytes(b"")
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and "its name tells no interval" in told.stdout
    assert sage("ls", catalog).exit_code == 0


def test_damaged_spreads_are_found(catalog: Path, tmp_path: Path) -> None:
    sides = [
        write_csv(tmp_path / f"{name}.csv", candles(8, base=base)) for name, base in (("bid", 100.0), ("ask", 101.0))
    ]
    ingest(IngestRequest(sides[:1], catalog, "GBPUSD.FX", ask=sides[1:]))
    assert sage("check", catalog).exit_code == 0
    (path,) = (catalog / "spreads").iterdir()
    path.write_text(path.read_text()[:-4] + "x\n")
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert f"{path}: damaged" in told.stdout and "ingest bid and ask again" in told.stdout


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "\0\0", '{"staging": "x", "add": [1], "remove": []}',
        '{"staging": "x", "add": [], "remove": ["/etc/x"]}', '{"staging": "x", "add": [], "remove": ["../../x"]}',
    ],
)  # fmt: skip
def test_a_damaged_journal_is_told_of_with_what_to_do(catalog: Path, tmp_path: Path, text: str) -> None:
    journal = catalog / JOURNAL
    journal.write_text(text)
    for arguments in (("ls", catalog), ("show", catalog, "BTCUSDT.TEST"), ("rm", catalog, "BTCUSDT.TEST", "--yes")):
        told = sage(*arguments)
        assert told.exit_code == ExitCode.BAD_DATA, told.output
        assert f"{journal}: the journal of an ingest that was cut off is damaged" in told.stderr
        assert "move it elsewhere" in told.stderr
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and str(journal) in told.stdout
    journal.rename(tmp_path / "elsewhere")
    assert sage("check", catalog).exit_code == 0


def test_a_damaged_definition_of_an_instrument_is_found(catalog: Path) -> None:
    definition = next(path for path in (catalog / "data").rglob("*.parquet") if "/bar/" not in str(path))
    definition.write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match=f"{definition}: the definition of .* cannot be read"):
        catalog_market(catalog, definition.parent.name, None)
    told = sage("show", catalog, definition.parent.name)
    assert told.exit_code == ExitCode.BAD_DATA and str(definition) in told.stderr


def definition_of(catalog: Path, instrument: str) -> Path:
    (path,) = (path for path in (catalog / "data").rglob("*.parquet") if path.parent.name == instrument)
    return path


def test_a_damaged_definition_leaves_the_other_instruments_alone(catalog: Path) -> None:
    definition = definition_of(catalog, "BTCUSDT.TEST")
    definition.write_bytes(b"PAR1")
    told = sage("ls", catalog)
    assert told.exit_code == 0 and "ETHUSDT.TEST" in told.stdout
    assert f"{definition}: the definition of BTCUSDT.TEST cannot be read" in told.stderr
    assert json.loads(sage("ls", catalog, "--json").stdout)["damaged"]
    assert sage("show", catalog, "ETHUSDT.TEST").exit_code == 0
    assert sage("rm", catalog, "ETHUSDT.TEST", "--yes").exit_code == 0


def test_a_check_goes_on_behind_damaged_definitions(catalog: Path) -> None:
    definition, (bars,) = definition_of(catalog, "BTCUSDT.TEST"), files(catalog, "ETHUSDT")
    definition.write_bytes(b"PAR1")
    bars.write_bytes(bars.read_bytes()[:-100])
    told = sage("check", catalog, "--json")
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert [Path(one["file"]) for one in json.loads(told.stdout)["damage"]] == [definition, bars]


@pytest.mark.parametrize(
    ("old", "new"), [(b"BTCUSDT.TEST", b"BTCUSDT.TEXT"), (b"crypto", b"crypta"), (b'{"sage', b'"{sage')]
)
def test_a_definition_with_changed_letters_is_found(catalog: Path, old: bytes, new: bytes) -> None:
    definition = definition_of(catalog, "BTCUSDT.TEST")
    table = pyarrow.parquet.read_table(definition, partitioning=None)
    rows = [{name: _replaced(value, old, new) for name, value in row.items()} for row in table.to_pylist()]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, table.schema), definition)
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and str(definition) in told.stdout


def _replaced(value: object, old: bytes, new: bytes) -> object:
    if isinstance(value, str):
        return value.replace(old.decode(), new.decode())
    return value.replace(old, new) if isinstance(value, bytes) else value


def test_a_bit_that_changed_in_a_definition_is_found(catalog: Path) -> None:
    definition = definition_of(catalog, "BTCUSDT.TEST")
    raw = definition.read_bytes()
    with pyarrow.parquet.ParquetFile(definition) as opened:
        column = opened.metadata.row_group(0).column(opened.schema_arrow.names.index("raw_symbol"))
    place = raw.index(b"BTCUSDT", column.dictionary_page_offset or column.data_page_offset)
    definition.write_bytes(raw[:place] + b"X" + raw[place + 1 :])
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and str(definition) in told.stdout


def test_bars_without_a_definition_are_found_and_mended_by_an_ingest(catalog: Path, tmp_path: Path) -> None:
    definition = definition_of(catalog, "ETHUSDT.TEST")
    before = definition.read_bytes()
    definition.unlink()
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert "have no definition of their instrument, ETHUSDT.TEST; ingest them again" in " ".join(told.stdout.split())
    told = sage("show", catalog, "ETHUSDT.TEST")
    assert told.exit_code == ExitCode.BAD_DATA and "no definition" in told.stderr
    with pytest.raises(CatalogError, match="no definition of their instrument"):
        catalog_market(catalog, "ETHUSDT.TEST", None)
    # Without the precision of the first time: that of the bars that are there is taken.
    done = ingest(IngestRequest([tmp_path / "c.csv"], catalog, "ETHUSDT.TEST", read=ReadOptions(stamp="open")))
    assert done.outcome == "unchanged" and any("definition" in note for note in done.quality.notes)
    assert definition.read_bytes() == before
    assert sage("check", catalog).exit_code == 0


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_bars_go_without_a_readable_definition(catalog: Path, damage: str) -> None:
    definition = definition_of(catalog, "ETHUSDT.TEST")
    if damage == "missing":
        definition.unlink()
    else:
        definition.write_bytes(b"PAR1")
    told = sage("rm", catalog, "ETHUSDT.TEST", "--yes")
    assert told.exit_code == 0 and "removed 5 bars of 1h" in told.stdout, told.output
    assert not definition.exists() and not files(catalog, "ETHUSDT")
    assert sage("check", catalog).exit_code == 0


def test_a_bit_that_changed_in_what_a_file_says_of_its_decimals_is_found(catalog: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    raw = path.read_bytes()
    place = raw.rindex(b"price_precision") + len(b"price_precision")
    place = raw.index(b"2", place)
    path.write_bytes(raw[:place] + b"0" + raw[place + 1 :])
    assert pyarrow.parquet.read_metadata(path).metadata[b"price_precision"] == b"0"
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert "says that its price_precision is 0, where it is 2" in " ".join(told.stdout.split())
    with pytest.raises(CatalogError, match="price_precision"):
        catalog_market(catalog, "ETHUSDT.TEST", None)


def test_a_damaged_file_ends_no_process_that_would_trade_on_it(catalog: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    raw = bytearray(path.read_bytes())
    raw[100:200] = bytes(100)
    path.write_bytes(raw)
    with pytest.raises(CatalogError, match="damaged"):
        catalog_market(catalog, "ETHUSDT.TEST", None)


def test_a_damaged_catalog_is_no_source_of_another(catalog: Path, tmp_path: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    with pyarrow.parquet.ParquetFile(path) as opened:
        column = opened.metadata.row_group(0).column(opened.schema_arrow.names.index("close"))
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        ingest(IngestRequest([catalog], tmp_path / "copy", "ETHUSDT.TEST"))


def test_bars_that_two_of_nautilus_files_share_are_told_as_doubles(catalog: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    first, second = files(catalog, "BTCUSDT.TEST")
    shutil.copy(first, source / first.name)
    shutil.copy(first, source / "again.parquet")
    shutil.copy(second, source / second.name)
    found = ingest(IngestRequest([source], tmp_path / "copy", "BTCUSDT.TEST"))
    assert (found.bars_written, found.quality.rejected) == (12, {"duplicate": 8})
    assert found.rejected_path is not None and len(pd.read_csv(found.rejected_path)) == 8


def test_where_bars_came_from_goes_with_them(catalog: Path, tmp_path: Path) -> None:
    sage("rm", catalog, "BTCUSDT.TEST", "--yes")
    ingest(IngestRequest([write_csv(tmp_path / "new.csv", candles(4))], catalog, "BTCUSDT.TEST"))
    told = sage("show", catalog, "BTCUSDT.TEST").stdout
    assert "new.csv" in told and "a.csv" not in told


def test_a_strict_refusal_leaves_what_tells_of_earlier_bars(catalog: Path, tmp_path: Path) -> None:
    frame = candles(8)
    frame.loc[2, "low"] = -1.0
    path = write_csv(tmp_path / "a.csv", frame)
    with pytest.raises(StrictRejection):
        ingest(IngestRequest([path], catalog, "BTCUSDT.TEST", strict=True))
    assert "a.csv" in sage("show", catalog, "BTCUSDT.TEST").stdout


def test_files_that_overlap_are_found(catalog: Path) -> None:
    first = files(catalog, "BTCUSDT")[0]
    table = pyarrow.parquet.read_table(first, partitioning=None)
    start, _, end = first.stem.partition("_")
    name = f"{start.replace('T00-30', 'T01-00')}_{end}.parquet"
    pyarrow.parquet.write_table(table.slice(1), first.with_name(name))
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert name in told.stdout and f"overlaps {first.name}" in told.stdout


def test_a_file_with_the_name_of_another_interval_is_found(catalog: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    shutil.move(path, path.with_name(path.name.replace("2024-01-01T05", "2024-01-01T07")))
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and "another interval" in told.stdout


def test_bars_from_before_nautilus_clock_begins_are_found_and_not_traded(catalog: Path) -> None:
    (path,) = files(catalog, "ETHUSDT")
    table = pyarrow.parquet.read_table(path, partitioning=None)
    closes = pa.array(np.arange(-2, 3).astype(np.uint64) * np.uint64(3_600 * 10**9))
    for name in ("ts_event", "ts_init"):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), closes)
    name = "1969-12-31T22-00-00-000000000Z_1970-01-01T02-00-00-000000000Z.parquet"
    pyarrow.parquet.write_table(table, path.with_name(name))
    path.unlink()
    told = sage("check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert "holds bars from before 1970" in told.stdout and "sage catalog rm" in told.stdout
    with pytest.raises(CatalogError, match="before 1970"):
        catalog_market(catalog, "ETHUSDT.TEST", None)


def test_bars_go_with_their_instrument_and_others_stay(catalog: Path) -> None:
    told = sage("rm", catalog, "BTCUSDT.TEST", "--yes")
    assert told.exit_code == 0, told.output
    assert "removed 12 bars of 30m of BTCUSDT.TEST" in told.stdout
    document = json.loads(sage("ls", catalog, "--json").stdout)
    assert [one["instrument"] for one in document["holdings"]] == ["ETHUSDT.TEST"]
    assert len(held(catalog, "ETHUSDT.TEST", BarSize.parse("1h"))) == 5
    path = write_csv(catalog.parent / "again.csv", candles(3, base=0.5))
    assert ingest(IngestRequest([path], catalog, "BTCUSDT.TEST")).bars_written == 3


@pytest.mark.parametrize(
    "other", ["trade_tick/BTCUSDT.TEST", "bar/BTCUSDT.TEST-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL"]
)
def test_what_else_is_held_of_an_instrument_stays_and_keeps_it(catalog: Path, other: str) -> None:
    ticks = catalog / "data" / other / "2024.parquet"
    ticks.parent.mkdir(parents=True)
    ticks.write_bytes(b"ticks")
    assert sage("rm", catalog, "BTCUSDT.TEST", "--yes").exit_code == 0
    assert ticks.exists() and not files(catalog, "BTCUSDT.TEST-30")
    assert list(BarCatalog(catalog).instruments()) == ["BTCUSDT.TEST", "ETHUSDT.TEST"]


def test_an_instrument_whose_name_begins_alike_keeps_no_other(catalog: Path, tmp_path: Path) -> None:
    ingest(IngestRequest([tmp_path / "a.csv"], catalog, "BTCUSDT.TEST-2", read=ReadOptions(stamp="open")))
    assert sage("rm", catalog, "BTCUSDT.TEST", "--yes").exit_code == 0
    assert list(BarCatalog(catalog).instruments()) == ["BTCUSDT.TEST-2", "ETHUSDT.TEST"]


def test_nothing_goes_unasked(catalog: Path) -> None:
    told = sage("rm", catalog, "BTCUSDT.TEST")
    assert told.exit_code == ExitCode.USAGE and "say --yes" in told.stderr
    assert len(held(catalog)) == 12


def test_times_are_closes_of_the_bars(catalog: Path) -> None:
    (document,) = json.loads(sage("show", catalog, "ETHUSDT.TEST", "--bar", "1h", "--json").stdout)
    assert document["gaps"] == [] and document["rows"] == 5
    assert pd.Timestamp(document["first_close"]) == pd.Timestamp("2024-01-01T01:00:00Z")


@pytest.mark.parametrize("command", ["show", "rm"])
def test_a_size_that_is_not_held_is_answered_with_those_that_are(catalog: Path, command: str) -> None:
    told = sage(command, catalog, "BTCUSDT.TEST", "--bar", "5m", *(("--yes",) if command == "rm" else ()))
    assert told.exit_code == ExitCode.BAD_DATA, told.output
    assert "no bars of BTCUSDT.TEST 5m; the catalog holds BTCUSDT.TEST 30m" in told.stderr
