"""Layouts of LEAN, of brokers, of NautilusTrader itself, and tables of closes alone."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from data import batches
from data.bars import BarSize
from data.errors import AmbiguousSource, DataError, OptionError
from data.ingest import IngestRequest, IngestResult, ingest
from data.reading import ReadOptions
from data.sources import read_source
from data.times import NOT_A_TIME
from tests.data.files import HALF_HOUR, candles, held, opens, read, write_csv, write_text

HOUR = BarSize.parse("1h")


def zipped(path: Path, lines: list[str], member: str = "spy.csv") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, "\n".join(lines) + "\n")
    return path


def run(source: Path, catalog: Path, instrument: str, **options: object) -> IngestResult:
    return ingest(IngestRequest([source], catalog, instrument, **options))  # type: ignore[arg-type]


# --- LEAN ---------------------------------------------------------------------------------------------------


LEAN_HOURS = [
    "20240308 09:00,973100,975300,970300,970300,384500",
    "20240308 10:00,970200,971300,965300,970500,585900",
    "20240311 09:00,969100,972200,968800,970000,147900",
]


def test_lean_hours_have_prices_by_ten_thousand_and_the_time_of_new_york(tmp_path: Path) -> None:
    raw = read(zipped(tmp_path / "spy.zip", LEAN_HOURS))
    assert (raw.layout, raw.stamp) == ("lean-equity", "open")
    # Clocks went forward between the two days.
    assert opens(raw) == ["2024-03-08 14:00:00", "2024-03-08 15:00:00", "2024-03-11 13:00:00"]
    result = run(zipped(tmp_path / "spy.zip", LEAN_HOURS), tmp_path / "catalog", "SPY.ARCA")
    bars = held(tmp_path / "catalog", "SPY.ARCA", HOUR)
    assert result.price_precision == 2 and bars.open.tolist() == [97.31, 97.02, 96.91]
    assert bars.volume.tolist() == [384500.0, 585900.0, 147900.0]
    assert str(pd.Timestamp(bars.ts_close_ns[0])) == "2024-03-08 15:00:00"


def test_a_table_that_names_its_columns_is_not_read_as_lean(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match="names its columns"):
        read(path, layout="lean-equity")


def test_lean_minutes_take_their_date_from_the_name_of_the_zip(tmp_path: Path) -> None:
    lines = [
        f"{60_000 * (570 + minute)},{973100 + minute},973300,973000,{973200},{100 + minute}" for minute in range(5)
    ]
    raw = read(zipped(tmp_path / "20240311_trade.zip", lines, "20240311_spy_minute_trade.csv"))
    assert raw.layout == "lean-equity"
    assert opens(raw)[0] == "2024-03-11 13:30:00" and opens(raw)[-1] == "2024-03-11 13:34:00"


def test_a_lean_zip_that_is_named_by_no_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"99999999_trade.zip: its name tells no day"):
        read(zipped(tmp_path / "99999999_trade.zip", ["34200000,973100,973300,973000,973200,100"]))


def test_lean_quotes_are_refused_with_the_reason(tmp_path: Path) -> None:
    lines = [f"{60_000 * minute},973100,973300,973000,973200,5,973200,973400,973100,973300,7" for minute in range(3)]
    with pytest.raises(DataError, match=r"LEAN quotes.*give the zip of trades"):
        read(zipped(tmp_path / "20240311_quote.zip", lines))


def test_a_share_that_once_cost_a_few_cents_is_still_known_as_leans(tmp_path: Path) -> None:
    raw = read(zipped(tmp_path / "penny.zip", [*LEAN_HOURS, "20240311 10:00,990,1020,980,999,147900"]))
    assert raw.layout == "lean-equity" and raw.values["open"][3] == pytest.approx(0.099)
    minute = "34200000,990,995,980,985,100"
    assert read(zipped(tmp_path / "20240311_trade.zip", [minute])).values["open"][0] == pytest.approx(0.099)


def test_whole_prices_of_few_digits_are_ambiguous_until_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "penny.zip", [f"20240308 {hour:02}:00,990,995,980,985,147900" for hour in range(9, 15)])
    with pytest.raises(AmbiguousSource, match=r"such as 990 may be prices.*--layout ohlcv or --layout lean-equity"):
        read(path)
    assert read(path, layout="lean-equity").values["open"][0] == pytest.approx(0.099)
    assert read(path, layout="ohlcv").values["open"][0] == 990.0


def test_a_lean_zip_may_be_read_otherwise(tmp_path: Path) -> None:
    path = zipped(tmp_path / "spy.zip", LEAN_HOURS)
    plain = read(path, layout="ohlcv")
    assert plain.values["open"][0] == 973100.0 and opens(plain)[0] == "2024-03-08 09:00:00"
    assert opens(read(path, tz="UTC"))[0] == "2024-03-08 09:00:00"
    with pytest.raises(OptionError, match="--stamp close"):
        read(path, stamp="close")


# --- brokers ------------------------------------------------------------------------------------------------


BROKER = [
    "Date,open,high,low,close,tick_volume",
    "2024-03-08 23:00:00,128611.00000000001,128618.0,128572.0,128599.0,1032",
    "2024-03-11 00:00:00,128597.0,128618.0,128573.0,128573.99999999999,1220",
    "2024-03-11 01:00:00,128573.0,128618.0,128573.0,128600.0,1220",
]


def test_a_brokers_points_and_server_time_are_known_by_the_pair(tmp_path: Path) -> None:
    raw = read(write_text(tmp_path / "GBPUSDh1.csv", *BROKER))
    assert (raw.layout, raw.stamp) == ("broker-fx", "open")
    # Seven hours ahead of New York, whose clocks went forward on the 10th.
    assert opens(raw) == ["2024-03-08 21:00:00", "2024-03-10 21:00:00", "2024-03-10 22:00:00"]
    run(write_text(tmp_path / "GBPUSDh1.csv", *BROKER), tmp_path / "catalog", "GBPUSD.FX")
    assert held(tmp_path / "catalog", "GBPUSD.FX", HOUR).close.tolist() == [1.28599, 1.28574, 1.286]
    run(write_text(tmp_path / "USDJPYh1.csv", *BROKER), tmp_path / "catalog", "USDJPY.FX")
    assert held(tmp_path / "catalog", "USDJPY.FX", HOUR).close.tolist() == [128.599, 128.574, 128.6]


def test_scaled_prices_of_an_unknown_pair_ask_for_their_scale(tmp_path: Path) -> None:
    path = write_text(tmp_path / "h1.csv", *BROKER)
    with pytest.raises(AmbiguousSource, match="--price-scale 1e-5, or 1e-3"):
        read(path)
    assert read(path, price_scale=1e-5).values["close"][0] == pytest.approx(1.28599)


def test_prices_that_are_prices_are_left_as_they_are(tmp_path: Path) -> None:
    frame = candles(8, every="1h").set_axis(["Date", "open", "high", "low", "close", "tick_volume"], axis=1)
    raw = read(write_csv(tmp_path / "GBPUSDh1.csv", frame))
    assert raw.layout == "ohlcv" and raw.values["open"][0] == 100.0


@pytest.mark.parametrize("name", ["XAUUSDh1.csv", "BTCUSDh1.csv", "EURHUFh1.csv"])
def test_metals_coins_and_rarer_currencies_ask_for_their_scale_too(tmp_path: Path, name: str) -> None:
    with pytest.raises(AmbiguousSource, match="--price-scale"):
        read(write_text(tmp_path / name, *BROKER))


@pytest.mark.parametrize(
    ("tz", "first"),
    [
        ("America/New_York+07:00", "22:00"),
        ("America/New_York", "05:00"),
        ("Etc/GMT-2", "22:00"),
        ("Etc/GMT+3", "03:00"),
    ],
)  # fmt: skip
def test_a_clock_may_be_ahead_of_a_zone(tmp_path: Path, tz: str, first: str) -> None:
    assert opens(read(write_csv(tmp_path / "bars.csv"), tz=tz))[0].endswith(f"{first}:00")


# --- closes alone -------------------------------------------------------------------------------------------


def test_a_table_of_closes_alone_is_one_of_bars_without_a_range(tmp_path: Path) -> None:
    lines = ["date,close,ret", "1985-10-01,112.139999,", "1985-10-02,110.824997,-0.0117", "1985-10-03,110.87,0.0004"]
    path = write_text(tmp_path / "NDX.csv", *lines)
    assert any("closes alone" in note for note in read(path).notes)
    run(path, tmp_path / "catalog", "NDX.INDEX")
    bars = held(tmp_path / "catalog", "NDX.INDEX", BarSize.parse("1d"))
    assert bars.open.tolist() == bars.high.tolist() == bars.low.tolist() == bars.close.tolist()
    assert bars.close.tolist() == [112.139999, 110.824997, 110.87]


# --- NautilusTrader, Arrow ----------------------------------------------------------------------------------


def test_bars_of_another_catalog_come_over_as_they_are(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "bars.csv", candles(20, base=0.1)), tmp_path / "one", "BTCUSDT.TEST")
    result = run(tmp_path / "one", tmp_path / "two", "BTCUSDT.TEST")
    assert set(result.layouts.values()) == {"nautilus"}
    assert held(tmp_path / "one").sha256() == held(tmp_path / "two").sha256()
    assert run(tmp_path / "one", tmp_path / "two", "BTCUSDT.TEST").outcome == "unchanged"


def test_a_catalog_of_several_sizes_asks_for_one(tmp_path: Path) -> None:
    run(write_csv(tmp_path / "a.csv", candles(20)), tmp_path / "one", "BTCUSDT.TEST")
    run(write_csv(tmp_path / "b.csv", candles(20, every="1h")), tmp_path / "one", "BTCUSDT.TEST")
    with pytest.raises(DataError, match=r"are 1-HOUR-LAST-EXTERNAL, 30-MINUTE-LAST-EXTERNAL; say which with --bar"):
        run(tmp_path / "one", tmp_path / "two", "BTCUSDT.TEST")
    assert run(tmp_path / "one", tmp_path / "two", "BTCUSDT.TEST", bar="30m").bars_written == 20
    with pytest.raises(DataError, match=r"are none; it holds BTCUSDT\.TEST; name what it has"):
        run(tmp_path / "one", tmp_path / "two", "ETHUSDT.TEST")
    with pytest.raises(OptionError, match="is the catalog that the bars are to go to"):
        run(tmp_path / "one", tmp_path / "one", "BTCUSDT.TEST")


def test_values_of_64_bit_builds_are_read_too(tmp_path: Path) -> None:
    ts = np.arange(3, dtype=np.int64) * HALF_HOUR.nanos + HALF_HOUR.nanos
    raw = pa.array([(100_250_000_000 + index).to_bytes(8, "little", signed=True) for index in (0, 0, 0)], pa.binary(8))
    names = ("open", "high", "low", "close", "volume")
    metadata = {"bar_type": "BTCUSDT.TEST-30-MINUTE-LAST-EXTERNAL", "price_precision": "2", "size_precision": "3"}
    # What a bar is stamped with may be its open; it is known at its close.
    columns = {**dict.fromkeys(names, raw), "ts_event": ts - HALF_HOUR.nanos, "ts_init": ts}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "bars.parquet")
    found = read(tmp_path / "bars.parquet")
    assert found.layout == "nautilus" and found.values["close"].tolist() == [100.25] * 3
    assert found.stamp == "close" and found.stamp_ns.tolist() == ts.tolist()
    with pytest.raises(OptionError, match="--stamp open"):
        read(tmp_path / "bars.parquet", stamp="open")


@pytest.mark.parametrize(
    "told", [{}, {"price_precision": "two"}, {"price_precision": "-4"}, {"price_precision": "400"}]
)
def test_nautilus_bars_that_do_not_tell_their_decimals_are_refused(tmp_path: Path, told: dict[str, str]) -> None:
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1, 2], pa.int64()))
    table = pa.table(values | {"ts_init": [1, 2]})
    path = tmp_path / "bars.parquet"
    pyarrow.parquet.write_table(table.replace_schema_metadata({"bar_type": "X", "size_precision": "0", **told}), path)
    with pytest.raises(DataError, match=f"its price_precision is {told.get('price_precision', 'nothing')}"):
        read(path)


@pytest.mark.parametrize("stamp", [None, 2**64 - 3])
def test_a_nautilus_bar_without_a_time_is_none(tmp_path: Path, stamp: int | None) -> None:
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1, 2, 3], pa.int64()))
    told = {"bar_type": "X", "price_precision": "0", "size_precision": "0"}
    table = pa.table(values | {"ts_init": pa.array([1, stamp, 3], pa.uint64())}).replace_schema_metadata(told)
    pyarrow.parquet.write_table(table, tmp_path / "bars.parquet")
    if stamp is None:
        with pytest.raises(DataError, match="empty values, which NautilusTrader never writes"):
            read(tmp_path / "bars.parquet")
    else:
        assert read(tmp_path / "bars.parquet").stamp_ns.tolist() == [1, NOT_A_TIME, 3]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_is_read_as_a_file_and_as_a_stream(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pandas(candles(), preserve_index=False)
    path = tmp_path / "bars.arrow"
    make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with make(str(path), table.schema) as writer:
        writer.write_table(table)
    raw = read(path)
    assert raw.layout == "ohlcv" and raw.values["close"].tolist() == candles()["close"].tolist()


# --- archives that mean no good -----------------------------------------------------------------------------


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as member:
        line = b"0,1,1,1,1,1\n" * 100_000
        for _ in range(80):
            member.write(line)
    with pytest.raises(DataError, match="a zip bomb, refused"):
        read(path)


def test_a_gzip_bomb_is_refused_before_all_of_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(b"time,open,high,low,close,volume\n")
        line = b"2024-01-01 00:00,1,1,1,1,1\n" * 40_000
        for _ in range(80):
            stream.write(line)
    with pytest.raises(DataError, match="a bomb, refused"):
        # All parts: how far ahead of them the file is read is a matter of luck.
        list(read_source(path, ReadOptions()))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
def test_a_table_of_long_texts_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_CHUNK_BYTES", 2**20)
    path = tmp_path / f"bars{suffix}"
    table = pa.Table.from_pandas(candles(1_000).assign(note="x" * 5_000))
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
        assert path.stat().st_size < 100_000
    else:
        with (pa.ipc.new_file if suffix == ".arrow" else pa.ipc.new_stream)(str(path), table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=r"rows of 5,0\d\d bytes; a row of bars has about a hundred"):
        list(read_source(path, ReadOptions()))


def test_a_parquet_file_that_unpacks_to_very_much_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BOMB_BYTES", 2**20)
    table = pa.Table.from_pandas(candles(1_000).assign(note="x" * 50_000))
    pyarrow.parquet.write_table(table, tmp_path / "bars.parquet", use_dictionary=False, compression="zstd")
    with pytest.raises(DataError, match="a bomb, refused"):
        read(tmp_path / "bars.parquet")


def test_a_parquet_table_of_many_columns_is_read_fewer_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_CHUNK_BYTES", 2**20)
    more = pd.DataFrame({f"feature_{index}": candles(3_000)["open"] for index in range(60)})
    more.join(candles(3_000)).to_parquet(tmp_path / "bars.parquet")
    parts = list(read_source(tmp_path / "bars.parquet", ReadOptions()))
    assert [len(part.row) for part in parts] == [992, 992, 992, 24]


def test_texts_and_lists_beside_the_bars_do_no_harm(tmp_path: Path) -> None:
    frame = candles().assign(time=candles()["time"].astype(str), tags=[["a", "b"]] * 8, venue="Köln", note=None)
    for kind in (pa.string(), pa.large_string()):
        table = pa.Table.from_pandas(frame)
        at = table.schema.get_field_index("time")
        pyarrow.parquet.write_table(
            table.set_column(at, "time", table.column(at).cast(kind)), tmp_path / "bars.parquet"
        )
        raw = read(tmp_path / "bars.parquet")
        assert opens(raw)[1] == "2024-01-01 00:30:00" and raw.original["venue"].tolist() == ["Köln"] * 8


@pytest.mark.parametrize("member", ["../../bars.csv", "/etc/bars.csv", "..\\bars.csv"])
def test_a_path_that_leads_out_of_a_zip_is_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(DataError, match="leads out of the archive; refused"):
        read(zipped(tmp_path / "bars.zip", LEAN_HOURS, member))
