"""Foreign layouts: recognised, read, or refused with a reason."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from data import tables
from data.errors import AmbiguousSource, DataError, OptionError
from data.reading import ReadOptions, together
from data.sources import read_source
from tests.data.files import candles, kline_lines, opens, read, write_csv, write_text

FIRST = "2024-01-01 00:00:00"


def assert_is_candles(path: Path, **options: object) -> None:
    """The file holds ``candles()``, stamped at their opens."""
    raw, expected = read(path, **options), candles()
    assert raw.stamp_ns.tolist() == expected["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64).tolist()
    for name in ("open", "high", "low", "close", "volume"):
        assert raw.values[name].tolist() == expected[name].tolist()


# --- Binance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_binance_klines_are_known_without_a_header(tmp_path: Path, unit: str) -> None:
    path = write_text(tmp_path / "BTCUSDT-30m-2024-01.csv", *kline_lines(unit=unit))
    raw = read(path)
    assert (raw.layout, raw.stamp, raw.notes) == ("binance-kline", "open", [f"time: epoch {unit}"])
    assert raw.row.tolist() == list(range(1, 9))
    assert_is_candles(path)


@pytest.mark.parametrize(
    "header",
    [
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
        "taker_buy_quote_volume,ignore",
        "Open time,Open,High,Low,Close,Volume,Close time,Quote asset volume,Number of trades,"
        "Taker buy base asset volume,Taker buy quote asset volume,Ignore",
    ],
)
def test_binance_klines_are_known_by_their_header(tmp_path: Path, header: str) -> None:
    path = write_text(tmp_path / "klines.csv", header, *kline_lines())
    assert read(path).layout == "binance-kline"
    assert read(path).row[0] == 2
    assert_is_candles(path)


def test_binance_klines_are_read_from_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-30m-2024-01.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-30m-2024-01.csv", "\n".join(kline_lines()))
    assert read(path).layout == "binance-kline"
    assert_is_candles(path)


def test_klines_of_mixed_units_are_refused_by_row(tmp_path: Path) -> None:
    lines = kline_lines(3) + kline_lines(3, "2025-01-01", unit="us")
    path = write_text(tmp_path / "klines.csv", *lines)
    with pytest.raises(DataError, match=r"mixed within the file: ms \(first in row 1\), us \(first in row 4\)"):
        read(path)


def test_klines_are_never_stamped_at_their_close(tmp_path: Path) -> None:
    path = write_text(tmp_path / "klines.csv", *kline_lines())
    with pytest.raises(OptionError, match="--stamp close"):
        read(path, stamp="close")


# --- freqtrade ----------------------------------------------------------------------------------------------


def freqtrade_frame() -> pd.DataFrame:
    frame = candles().rename(columns={"time": "date"})
    frame["date"] = frame["date"].dt.tz_localize("UTC").dt.as_unit("ms")
    return frame


def test_freqtrade_feather_is_known_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "BTC_USDT-30m.feather"
    pyarrow.feather.write_feather(freqtrade_frame(), path)
    assert (read(path).layout, read(path).stamp) == ("freqtrade-feather", "open")
    assert_is_candles(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"time": "nope"}}, "--columns: .* read as freqtrade-feather, whose columns are known"),
        ({"tz": "America/New_York"}, "--tz America/New_York: .* say themselves when they are"),
        ({"time_format": "%Q"}, "--time-format: .* in no format of text"),
        ({"stamp": "close"}, "--stamp close does not fit"),
    ],
)
def test_options_that_have_no_say_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "BTC_USDT-30m.feather"
    freqtrade_frame().to_feather(path)
    with pytest.raises(OptionError, match=message):
        read(path, **options)


def test_another_feather_is_read_as_a_plain_table(tmp_path: Path) -> None:
    path = tmp_path / "bars.feather"
    pyarrow.feather.write_feather(candles(), path)
    assert read(path).layout == "ohlcv"
    assert_is_candles(path)


def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match="Binance klines have 12"):
        read(path, layout="binance-kline")
    with pytest.raises(DataError, match="no column date"):
        read(path, layout="freqtrade-feather")


# --- plain tables -------------------------------------------------------------------------------------------


def test_a_plain_csv_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    assert_is_candles(write_csv(tmp_path / "bars.csv"))


@pytest.mark.parametrize(
    "names",
    [
        ("Date", "Open", "High", "Low", "Close", "Volume"),
        ("timestamp", "o", "h", "l", "c", "v"),
        ("<DATETIME>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>"),
        ("Gmt time", " Open", " High", " Low", " Close", " Volume"),
        ("", "open", "high", "low", "close", "volume"),
    ],
)
def test_columns_are_known_by_many_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert_is_candles(write_csv(tmp_path / "bars.csv", candles().set_axis(list(names), axis=1)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_any_usual_delimiter_is_found_with_and_without_a_header(tmp_path: Path, delimiter: str, header: bool) -> None:
    path = tmp_path / "bars.txt"
    candles().to_csv(path, index=False, header=header, sep=delimiter)
    assert_is_candles(path)
    assert read(path).row[0] == (2 if header else 1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", [True, False])
def test_byte_order_marks_do_no_harm(tmp_path: Path, encoding: str, header: bool) -> None:
    path = tmp_path / "bars.csv"
    candles().to_csv(path, index=False, header=header, encoding=encoding)
    assert_is_candles(path)


def test_windows_line_ends_and_quotes_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    candles().to_csv(path, index=False, lineterminator="\r\n", quoting=1)
    assert_is_candles(path)


@pytest.mark.parametrize("name", ["bars.csv.gz", "bars.zip"])
def test_packed_text_is_unpacked_whatever_its_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    candles().to_csv(path, index=False)
    with path.open("rb") as stream:
        assert stream.read(2) in {b"\x1f\x8b", b"PK"}
    assert_is_candles(path)


@pytest.mark.parametrize("with_index", [True, False])
def test_parquet_is_read_with_its_time_as_a_column_or_an_index(tmp_path: Path, with_index: bool) -> None:
    path = tmp_path / "bars.parquet"
    frame = candles().set_index("time") if with_index else candles()
    frame.to_parquet(path)
    assert_is_candles(path)


def test_parquet_with_an_unnamed_time_index_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    candles().set_index("time").rename_axis(None).to_parquet(path)
    assert_is_candles(path)


def test_an_index_that_repeats_a_column_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    frame = candles()
    frame.index = pd.DatetimeIndex(frame["time"], name="time")
    frame.to_parquet(path)
    assert_is_candles(path)


def test_parquet_of_decimals_and_text_is_read(tmp_path: Path) -> None:
    frame = candles()
    columns = {
        name: pa.array(frame[name].map("{:.2f}".format)).cast(pa.decimal128(12, 2)) for name in ("open", "high", "low")
    }
    table = pa.table(
        {"time": frame["time"].astype(str).tolist(), **columns, "close": frame["close"].astype(str).tolist()}
        | {"volume": frame["volume"].astype("int64")}
    )
    pyarrow.parquet.write_table(table, tmp_path / "bars.parquet")
    assert_is_candles(tmp_path / "bars.parquet")


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "date=2024-01-01"
    folder.mkdir()
    candles().to_parquet(folder / "bars.parquet")
    assert_is_candles(folder / "bars.parquet")


def test_named_columns_override_the_names(tmp_path: Path) -> None:
    frame = candles().set_axis(["when", "first price", "top", "bottom", "end", "size"], axis=1)
    columns = {"time": "when", "open": "first price", "high": "top", "low": "bottom", "close": "end", "volume": "size"}
    assert_is_candles(write_csv(tmp_path / "bars.csv", frame), columns=columns)


def test_columns_without_a_header_are_named_by_position(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    candles()[["volume", "close", "low", "high", "open", "time"]].to_csv(path, index=False, header=False)
    with pytest.raises(AmbiguousSource, match="--columns time=0,open=1"):
        read(path)
    columns = {"time": "5", "open": "4", "high": "3", "low": "2", "close": "1", "volume": "0"}
    assert_is_candles(path, columns=columns)


def test_a_name_that_the_file_lacks_is_an_error_that_lists_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"volume=Vol.*'time', 'open'"):
        read(write_csv(tmp_path / "bars.csv"), columns={"volume": "Vol"})


def test_an_unknown_field_layout_scale_or_zone_is_an_error_of_the_options(tmp_path: Path) -> None:
    for options in ({"columns": {"price": "x"}}, {"price_scale": 0.0}, {"tz": "Mars/Olympus"}):
        with pytest.raises(OptionError):
            ReadOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--layout excel: unknown; the layouts are binance-kline, freqtrade-feather"):
        read(write_csv(tmp_path / "bars.csv"), layout="excel")


def test_stamps_are_opens_unless_said_or_named_otherwise(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    assert read(path).stamp == "open"
    assert any("--stamp close" in note for note in read(path).notes)
    assert read(path, stamp="close").stamp == "close"
    named = write_csv(tmp_path / "named.csv", candles().rename(columns={"time": "close_time"}))
    assert read(named).stamp == "close"
    assert read(named, stamp="open").stamp == "open"


def test_the_time_zone_moves_naive_stamps_across_a_change_of_clocks(tmp_path: Path) -> None:
    frame = candles(4, "2024-03-08 09:30", "1D")
    raw = read(write_csv(tmp_path / "bars.csv", frame), tz="America/New_York")
    assert opens(raw) == [
        "2024-03-08 14:30:00", "2024-03-09 14:30:00", "2024-03-10 13:30:00", "2024-03-11 13:30:00",
    ]  # fmt: skip


def test_the_price_scale_multiplies_prices_and_no_volume(tmp_path: Path) -> None:
    raw = read(write_csv(tmp_path / "bars.csv"), price_scale=1e-4)
    assert raw.values["open"][0] == pytest.approx(0.01)
    assert raw.values["volume"][0] == 10.0


def test_a_time_format_is_used_as_given(tmp_path: Path) -> None:
    frame = candles()
    frame["time"] = frame["time"].dt.strftime("%d.%m.%y %Hh%M")
    assert_is_candles(write_csv(tmp_path / "bars.csv", frame), time_format="%d.%m.%y %Hh%M")


def test_without_a_volume_column_volume_is_nought_and_said_so(tmp_path: Path) -> None:
    raw = read(write_csv(tmp_path / "bars.csv", candles().drop(columns="volume")))
    assert raw.values["volume"].tolist() == [0.0] * 8
    assert any("no volume column" in note for note in raw.notes)


def test_an_empty_volume_column_counts_as_none(tmp_path: Path) -> None:
    raw = read(write_csv(tmp_path / "bars.csv", candles().assign(volume=np.nan)))
    assert raw.values["volume"].tolist() == [0.0] * 8
    assert any("is empty" in note for note in raw.notes)


# --- vendors ------------------------------------------------------------------------------------------------


def test_metatrader_exports_have_date_and_time_in_two_columns(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "EURUSD_M30.csv",
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>",
        "2024.01.02\t00:00:00\t1.10427\t1.10429\t1.10425\t1.10429\t15\t0\t12",
        "2024.01.02\t00:30:00\t1.10428\t1.10433\t1.10428\t1.10433\t20\t0\t10",
    )
    with pytest.raises(AmbiguousSource, match=r"'<TICKVOL>' and '<VOL>'.*--columns 'volume=<TICKVOL>'"):
        read(path)
    raw = read(path, columns={"volume": "<TICKVOL>"})
    assert opens(raw) == ["2024-01-02 00:00:00", "2024-01-02 00:30:00"]
    assert raw.values["volume"].tolist() == [15.0, 20.0]


def test_headerless_metatrader_files_are_read_by_position(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "EURUSD30.csv", "2024.01.02,00:30,1.1,1.3,1.0,1.2,15", "2024.01.02,01:00,1.2,1.3,1.1,1.2,9"
    )
    raw = read(path)
    assert opens(raw) == ["2024-01-02 00:30:00", "2024-01-02 01:00:00"]
    assert raw.values["high"].tolist() == [1.3, 1.3]


def test_histdata_files_are_read(tmp_path: Path) -> None:
    path = write_text(tmp_path / "DAT.csv", "20240102 000000;1.1;1.3;1.0;1.2;0", "20240102 000100;1.2;1.3;1.1;1.2;0")
    assert opens(read(path)) == ["2024-01-02 00:00:00", "2024-01-02 00:01:00"]


def test_yahoo_files_are_read_with_the_unadjusted_close(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "SPY.csv",
        "Date,Open,High,Low,Close,Adj Close,Volume",
        "2024-01-02,472.160004,473.670013,470.489990,472.649994,468.115295,123623700",
        "2024-01-03,470.429993,471.190002,468.170013,468.790009,464.292328,103585900",
    )
    raw = read(path)
    assert raw.values["close"].tolist() == [472.649994, 468.790009]
    assert opens(raw) == ["2024-01-02 00:00:00", "2024-01-03 00:00:00"]


def test_stooq_files_are_read(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "spy.us.txt",
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
        "SPY.US,5,20240102,153000,472.1,473.6,470.4,472.6,1000,0",
        "SPY.US,5,20240102,153500,472.6,473.6,470.4,472.5,1001,0",
    )
    assert opens(read(path)) == ["2024-01-02 15:30:00", "2024-01-02 15:35:00"]


def test_dukascopy_files_are_read_once_day_and_month_are_clear(tmp_path: Path) -> None:
    head, row = "Gmt time,Open,High,Low,Close,Volume", ".01.2020 00:00:00.000,1.1,1.3,1.0,1.2,15.5"
    short = write_text(tmp_path / "short.csv", head, *(f"{day:02}{row}" for day in (1, 2)))
    with pytest.raises(AmbiguousSource, match=r"--time-format '%d.%m.%Y %H:%M:%S.%f'"):
        read(short)
    assert opens(read(short, time_format="%d.%m.%Y %H:%M:%S.%f"))[1] == "2020-01-02 00:00:00"
    long = write_text(tmp_path / "long.csv", head, *(f"{day:02}{row}" for day in range(1, 15)))
    assert opens(read(long))[1] == "2020-01-02 00:00:00"


def test_cryptodatadownload_files_name_their_candidates_and_work_once_told(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "Binance_BTCUSDT_1h.csv",
        "https://www.CryptoDataDownload.com",
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT",
        "1704070800000,2024-01-01 01:00:00,BTC/USDT,42500,42600,42400,42550,10.5,446775",
        "1704067200000,2024-01-01 00:00:00,BTC/USDT,42400,42550,42350,42500,11.5,488750",
    )
    with pytest.raises(AmbiguousSource, match=r"'unix' and 'date' may each be the time.*--columns time=unix"):
        read(path)
    with pytest.raises(AmbiguousSource, match="'Volume BTC' and 'Volume USDT' may each be the volume"):
        read(path, columns={"time": "unix"})
    raw = read(path, columns={"time": "unix", "volume": "Volume BTC"})
    assert raw.values["volume"].tolist() == [10.5, 11.5]
    assert raw.row.tolist() == [3, 4]


def test_a_header_may_hold_a_name_that_begins_with_digits(tmp_path: Path) -> None:
    frame = candles().assign(**{"24h_change": 0.1})
    assert_is_candles(write_csv(tmp_path / "bars.csv", frame))


# --- refused ------------------------------------------------------------------------------------------------


def test_a_zip_with_several_tables_names_them(tmp_path: Path) -> None:
    path = tmp_path / "bars.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "y")
    with pytest.raises(AmbiguousSource, match=r"2 tables \(a.csv, b.csv\)"):
        read(path)


def test_notes_beside_the_table_in_a_zip_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bars.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a.csv", "x")
        archive.writestr("checksum.sha256", "y")
        archive.writestr("a.csv", candles().to_csv(index=False))
    assert_is_candles(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,open,high,low,close,volume"], "a header but no rows"),
        (["", "", ""], "no rows"),
        (["Dear reader", "this is no table"], "one column only"),
        (["Dear reader, this is no table", "of bars, as you see"], "no time column"),
        (["time,open,high,low", "2024-01-01,1,2,1"], "no close column among 'time', 'open'"),
        (["time,open,high,low,close", "2024-01-01", "2024-01-02"], "most rows do not have the 5 fields"),
        (["time,open,high,low,close", "2024-01-01,a,b,c,d"], "column 'open' holds 'a'"),
        (["time,open,high,low,close", '2024-01-01,"1,000.5","1,001.0",999,"1,000.0"'], "thousands separators"),
        (["time;open;high;low;close", "2024-01-01;1,5;1,6;1,4;1,5"], "'1,5'; write numbers with a decimal point"),
        (["2024-01-01;1,5;1,6;1,4;1,5", "2024-01-02;1,5;1,6;1,4;1,5"], "'1,5'; write numbers"),
        (["date,open,close", "2024-01-01,1,1"], "no high column"),
        (["<html>", "<body>nothing, here</body>"], "one column only"),
        ([",".join("x" * 2000)], "2000 columns"),
    ],
)
def test_text_that_is_no_table_of_bars_says_why(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write_text(tmp_path / "bars.csv", *lines))


def test_thousands_separators_in_a_few_rows_are_no_loss_of_those_rows(tmp_path: Path) -> None:
    lines = [f"2024-01-{day:02},999,999,999,999" for day in range(1, 10)]
    path = write_text(tmp_path / "bars.csv", "time,open,high,low,close", *lines, '2024-01-10,"1,000",999,999,999')
    with pytest.raises(DataError, match="'1,000'"):
        read(path)


def test_damaged_files_say_so(tmp_path: Path) -> None:
    whole = tmp_path / "bars.zip"
    candles(2000).to_csv(whole, index=False)
    packed = gzip.compress(candles(2000).to_csv(index=False).encode())
    pyarrow.feather.write_feather(candles(), tmp_path / "whole.feather")
    candles().to_parquet(tmp_path / "whole.parquet")
    zipped = whole.read_bytes()
    damaged = {
        "cut.zip": zipped[: len(zipped) // 2],
        "corrupt.zip": zipped[:200] + b"\xff" * 400 + zipped[600:],
        "cut.csv.gz": packed[: len(packed) // 2],
        "corrupt.csv.gz": packed[:200] + b"\xff" * 400 + packed[600:],
        "cut.feather": (tmp_path / "whole.feather").read_bytes()[:200],
        "cut.parquet": (tmp_path / "whole.parquet").read_bytes()[:200],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="damaged or cut off"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["bars.feather", "bars.parquet", "bars.arrows"])
@pytest.mark.parametrize("seed", range(3))
def test_a_typed_file_with_changed_bits_is_read_or_refused(tmp_path: Path, name: str, seed: int) -> None:
    """A text that points outside of the file would end the process."""
    frame = candles(100).assign(venue=[f"Köln {row}" for row in range(100)])
    table, path = pa.Table.from_pandas(frame.set_index("time")), tmp_path / name
    if path.suffix == ".feather":
        pyarrow.feather.write_feather(frame, path, compression="uncompressed")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 8 * len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            list(read_source(path, ReadOptions()))
        except DataError:
            refused += 1
    assert 0 < refused < 60


@pytest.mark.parametrize("damage", ["cut off within a letter", "half a pair of surrogates"])
def test_utf_16_that_is_none_further_down_says_so(tmp_path: Path, damage: str) -> None:
    raw = candles(2_000).to_csv(index=False).encode("utf-16")
    half = raw[:100_000] + "\ud800".encode("utf-16-le", "surrogatepass") + raw[100_002:]
    (tmp_path / "bars.csv").write_bytes(raw[:-1] if damage.startswith("cut") else half)
    with pytest.raises(DataError, match="damaged or cut off"):
        read(tmp_path / "bars.csv")


def test_a_zip_with_a_password_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bars.zip"
    candles().to_csv(path, index=False)
    raw = bytearray(path.read_bytes())
    raw[6] |= 1  # the encryption flags of the member and of the directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="password"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bars.csv", b"", "is empty"),
        ("bars.zip", b"PK\x05\x06" + b"\x00" * 18, "empty or damaged"),
        ("bars.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "neither text nor a format known"),
        ("bars.xls", b"\xd0\xcf\x11\xe0\x00\x00\x00\x00" * 100, "neither text nor a format known"),
        ("bars.csv", b"time,open\n" + b"1,2\n" * 20_000 + b"\xff,2\n", "no high column"),
        ("bars.zip", b"time,open,high,low,close\n", "not a zip file"),
        ("bars.parquet", b"time,open,high,low,close\n", "not a parquet file"),
    ],
)
def test_what_is_no_table_at_all_says_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nowhere" / "bars.csv")


def test_a_pipe_is_refused_and_a_link_to_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(write_csv(tmp_path / "bars.csv"))
    assert_is_candles(tmp_path / "link.csv")
    out, into = os.pipe()
    try:
        os.write(into, (tmp_path / "bars.csv").read_bytes())
        os.close(into)
        with pytest.raises(DataError, match="a pipe or a device, not a regular file; save what it holds to a file"):
            read(Path(f"/dev/fd/{out}"))
    finally:
        os.close(out)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    path.chmod(0)
    with pytest.raises(DataError, match="permissions"):
        read(path)


# --- several instruments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["symbol", "Ticker", "<NAME>", "Pair", "INSTRUMENT"])
def test_rows_of_several_instruments_are_refused_by_name(tmp_path: Path, name: str) -> None:
    frame = pd.concat([candles().assign(**{name: "AAPL"}), candles().assign(**{name: "MSFT"})])
    path = write_csv(tmp_path / "bars.csv", frame.sort_values("time"))
    with pytest.raises(AmbiguousSource, match=r"names several instruments \(AAPL, MSFT\); .* a file of their own"):
        read(path)


def test_a_second_instrument_further_down_a_long_file_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 8_000)
    frame = candles(1_000).assign(symbol=["AAPL"] * 900 + ["MSFT"] * 100)
    parts = read_source(write_csv(tmp_path / "bars.csv", frame), ReadOptions())
    assert len(next(parts).row) < 900
    with pytest.raises(AmbiguousSource, match="AAPL, MSFT"):
        list(parts)


def test_one_instruments_name_beside_blanks_and_a_repeated_header_does_no_harm(tmp_path: Path) -> None:
    lines = candles().assign(symbol=["AAPL", "", *["AAPL "] * 6]).to_csv(index=False).splitlines()
    raw = read(write_text(tmp_path / "bars.csv", *lines, lines[0]))
    assert raw.values["close"][:8].tolist() == candles()["close"].tolist()


# --- row numbers --------------------------------------------------------------------------------------------


def test_rows_keep_their_numbers_beside_broken_and_blank_ones(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "bars.csv",
        "# a comment",
        "",
        "time,open,high,low,close,volume",
        "2024-01-01 00:00,1,2,1,2,5",
        "2024-01-01 00:30,1,2",
        "",
        "2024-01-01 01:00,1,2,1,2,5",
        "   ",
        "2024-01-01 01:30,1,2,1,2,5,6,7",
        "2024-01-01 02:00,1,2,1,2,5",
        "",
    )
    raw = read(path)
    assert raw.row.tolist() == [4, 7, 10]
    assert raw.broken_rows == [(5, "2024-01-01 00:30,1,2"), (9, "2024-01-01 01:30,1,2,1,2,5,6,7")]


def test_rows_keep_their_numbers_in_a_file_of_many_blocks(tmp_path: Path) -> None:
    lines = candles(120_000, every="1min").to_csv(index=False).splitlines()
    lines[100_000] += ",7"
    parts = list(read_source(write_text(tmp_path / "bars.csv", *lines), ReadOptions()))
    assert len(parts) > 1
    raw = together(parts)
    assert [row for row, _ in raw.broken_rows] == [100_001]
    assert raw.row.tolist() == [*range(2, 100_001), *range(100_002, 120_002)]
