"""``sage ingest`` as people call it: exit codes, one clear message, JSON on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from tests.conftest import clean_environment
from tests.data.files import candles, held, kline_lines, tree, write_csv, write_text


def sage(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, [str(a) for a in arguments])


def ingest(source: Path, catalog: Path, *options: object, instrument: str = "BTCUSDT.TEST") -> Result:
    return sage("ingest", source, "--catalog", catalog, "--instrument", instrument, *options)


def assert_refused(result: Result, code: int, message: str) -> None:
    """One message on stderr, no traceback, nothing on stdout."""
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


# --- the real console script --------------------------------------------------------------------------------


def console(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("sage")
    return subprocess.run(
        [str(script), *map(str, arguments)], capture_output=True, text=True, check=False, env=clean_environment()
    )


def test_the_console_script_prints_only_json_on_stdout_and_progress_on_stderr(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    ended = console("ingest", path, "--catalog", tmp_path / "c", "--instrument", "BTCUSDT.TEST", "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["outcome"], report["rows_read"], report["rows_written"]) == ("added", 8, 8)
    assert "reading" in ended.stderr
    assert "Warning" not in ended.stderr


def test_the_console_script_ends_with_one_message_on_bad_data(tmp_path: Path) -> None:
    ended = console("ingest", tmp_path / "none.csv", "--catalog", tmp_path / "c", "--instrument", "BTCUSDT.TEST")
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert f"sage: {tmp_path / 'none.csv'}: no such file" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "c").exists()


# --- output -------------------------------------------------------------------------------------------------


def test_the_summary_names_layout_counts_gaps_and_report(tmp_path: Path) -> None:
    frame = candles(12).drop(index=[5, 6])
    frame.loc[2, "low"] = -1.0
    result = ingest(write_csv(tmp_path / "bars.csv", frame), tmp_path / "c")
    assert result.exit_code == 0, result.stderr
    for text in ("ohlcv", "1 non-positive price", "9 bars", "2 bars after", "rejected.csv", "ingest-reports"):
        assert text in result.stdout


def test_the_detected_layout_is_printed(tmp_path: Path) -> None:
    result = ingest(write_text(tmp_path / "klines.csv", *kline_lines()), tmp_path / "c")
    assert "binance-kline" in result.stdout


def test_a_second_and_a_changed_ingest_say_what_they_did(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    assert "BTCUSDT.TEST 30m: added" in ingest(path, tmp_path / "c").stdout
    assert "nothing: the catalog holds these 8 bars already" in ingest(path, tmp_path / "c").stdout
    write_csv(path, candles(base=200.0))
    assert "REPLACING 8 in the same interval" in ingest(path, tmp_path / "c").stdout


def test_a_damaged_file_that_is_replaced_is_called_one(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    ingest(path, tmp_path / "c")
    (bars,) = (tmp_path / "c" / "data" / "bar").rglob("*.parquet")
    bars.write_bytes(b"PAR1")
    told = ingest(path, tmp_path / "c").stdout
    assert "8 bars, REPLACING a damaged file" in told and "BTCUSDT.TEST 30m: replaced" in told


def test_json_holds_counts_gaps_and_the_place_of_rejected_rows(tmp_path: Path) -> None:
    frame = candles(12).drop(index=[5, 6])
    frame.loc[2, "low"] = -1.0
    result = ingest(write_csv(tmp_path / "bars.csv", frame), tmp_path / "c", "--json")
    report = json.loads(result.stdout)
    assert report["rejected"] == {"non-positive price": 1}
    assert [gap["missing_bars"] for gap in report["gaps"]] == [1, 2]
    assert Path(report["rejected_file"]).exists()
    assert json.loads(Path(report["report"]).read_text())["rows_read"] == 10


# --- options ------------------------------------------------------------------------------------------------


def test_every_option_reaches_the_reader(tmp_path: Path) -> None:
    frame = candles(4, every="1h").set_axis(["when", "o1", "h1", "l1", "c1", "n"], axis=1)
    frame["when"] = frame["when"].dt.strftime("%d.%m.%y %H:%M")
    path = write_csv(tmp_path / "bars.csv", frame)
    result = ingest(
        path, tmp_path / "c", "--bar", "1h", "--layout", "ohlcv", "--stamp", "close", "--tz", "America/New_York",
        "--columns", "time=when,open=o1", "--columns", "high=h1,low=l1,close=c1,volume=n",
        "--time-format", "%d.%m.%y %H:%M", "--price-scale", "0.01", "--kind", "equity",
        "--price-precision", "4", "--size-precision", "0", "--strict", "--json", instrument="SPY.ARCA",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["interval"] == "2024-01-01T05:00:00Z to 2024-01-01T08:00:00Z"
    assert report["price_precision"] == 4


@pytest.mark.parametrize(
    "options",
    [
        ["--bar", "7m"],
        ["--bar", "1w"],
        ["--layout", "excel"],
        ["--stamp", "middle"],
        ["--kind", "bond"],
        ["--tz", "Mars/Olympus"],
        ["--columns", "price=x"],
        ["--columns", "time"],
        ["--price-scale", "0"],
        ["--price-scale", "nan"],
        ["--price-scale", "much"],
        ["--price-precision", "17"],
        ["--size-precision", "-1"],
        ["--time-format", "%Q"],
        ["--instrument", "BTCUSDT"],
        ["--instrument", "BTC/USDT.X"],
        ["--no-such-option"],
    ],
)
def test_an_unknown_option_or_value_exits_with_2_and_writes_nothing(tmp_path: Path, options: list[str]) -> None:
    result = ingest(write_csv(tmp_path / "bars.csv"), tmp_path / "c", *options)
    assert_refused(result, 2, options[0].removeprefix("--"))
    assert not (tmp_path / "c").exists()


def test_missing_arguments_exit_with_2(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv")
    assert sage("ingest").exit_code == 2
    assert sage("ingest", path, "--catalog", tmp_path / "c").exit_code == 2
    assert sage("ingest", path, "--instrument", "BTCUSDT.TEST").exit_code == 2


# --- bad data -----------------------------------------------------------------------------------------------


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Each with what its message must say."""
    (folder / "empty.csv").write_bytes(b"")
    candles(2000).to_csv(folder / "whole.zip", index=False)
    (folder / "cut.zip").write_bytes((folder / "whole.zip").read_bytes()[:5000])
    (folder / "paper.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n\x00\x01")
    (folder / "no bars").mkdir()
    (folder / "no bars" / "notes.md").write_text("none")
    (folder / "catalog").write_text("")
    mixed = [*kline_lines(3), *kline_lines(3, "2025-01-01", unit="us")]
    return {
        "missing": (folder / "none.csv", "no such file"),
        "empty": (folder / "empty.csv", "is empty"),
        "truncated zip": (folder / "cut.zip", "damaged or cut off"),
        "binary": (folder / "paper.pdf", "neither text nor a format known"),
        "no bars": (folder / "no bars", "directory without bar files"),
        "text": (write_text(folder / "letter.txt", "Dear all", "no table here"), "one column only"),
        "header only": (write_text(folder / "head.csv", "time,open,high,low,close,volume"), "a header but no rows"),
        "columns": (write_csv(folder / "ab.csv", candles().drop(columns="open")), "no open column"),
        "mixed units": (write_text(folder / "mixed.csv", *mixed), "us (first in row 4)"),
        "weekly": (write_csv(folder / "weekly.csv", candles(every="7D")), "7 days apart"),
        "one row": (write_csv(folder / "one.csv", candles(1)), "--bar"),
        "no good row": (write_csv(folder / "bad.csv", candles().assign(low=0)), "all 8 rows are rejected"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing", "empty", "truncated zip", "binary", "no bars", "text", "header only", "columns", "mixed units",
        "weekly", "one row", "no good row",
    ],
)  # fmt: skip
def test_bad_data_exits_with_3_and_one_message_and_writes_nothing(tmp_path: Path, case: str) -> None:
    path, message = bad_files(tmp_path)[case]
    result = ingest(path, tmp_path / "c")
    assert_refused(result, 3, message)
    assert str(path) in result.stderr
    assert sum(line.startswith("sage: ") for line in result.stderr.splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_bad_data_leaves_an_existing_catalog_as_it_was(tmp_path: Path) -> None:
    ingest(write_csv(tmp_path / "bars.csv"), tmp_path / "c")
    before = tree(tmp_path / "c")
    for path, message in bad_files(tmp_path).values():
        assert_refused(ingest(path, tmp_path / "c"), 3, message)
    assert tree(tmp_path / "c") == before


def test_one_bad_file_among_good_ones_stops_them_all(tmp_path: Path) -> None:
    good, bad = write_csv(tmp_path / "a.csv"), write_text(tmp_path / "b.csv", "time,open,high,low,close")
    result = sage("ingest", good, bad, "--catalog", tmp_path / "c", "--instrument", "BTCUSDT.TEST")
    assert_refused(result, 3, "b.csv: a header but no rows")
    assert not (tmp_path / "c").exists()


def test_strict_exits_with_3_and_writes_no_bars(tmp_path: Path) -> None:
    frame = candles()
    frame.loc[2, "low"] = -1.0
    result = ingest(write_csv(tmp_path / "bars.csv", frame), tmp_path / "c", "--strict")
    assert_refused(result, 3, "1 of 8 rows rejected under --strict")
    assert not (tmp_path / "c" / "data").exists()
    assert list((tmp_path / "c" / "ingest-reports").glob("*.refused.csv"))


def test_a_catalog_that_is_a_file_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    assert_refused(ingest(write_csv(tmp_path / "bars.csv"), tmp_path / "c"), 3, "is a file")


@pytest.mark.skipif(not os.path.ismount("/sys"), reason="needs /sys, where nobody can make folders")
def test_a_catalog_where_nothing_can_be_written_exits_with_3(tmp_path: Path) -> None:
    assert_refused(ingest(write_csv(tmp_path / "bars.csv"), Path("/sys/sage-catalog")), 3, "check its rights")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_catalog_without_rights_exits_with_3_before_anything_is_read(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert_refused(ingest(tmp_path / "no-such.csv", closed), 3, f"nothing can be written in {closed}")


@pytest.mark.parametrize("option", [("--price-precision", "16"), ("--size-precision", "16")])
def test_more_decimals_than_can_be_held_exit_with_3(tmp_path: Path, option: tuple[str, str]) -> None:
    frame = candles()
    frame["volume"] = frame["close"] = frame["open"] = frame["high"] = frame["low"] = 40_000.0
    assert_refused(ingest(write_csv(tmp_path / "bars.csv", frame), tmp_path / "c", *option), 3, option[0])


def test_an_ambiguous_file_exits_with_3_and_works_once_told(tmp_path: Path) -> None:
    frame = candles().assign(Volume_USDT=1.0).rename(columns={"volume": "Volume BTC", "Volume_USDT": "Volume USDT"})
    path = write_csv(tmp_path / "bars.csv", frame)
    assert_refused(ingest(path, tmp_path / "c"), 3, "'Volume BTC' and 'Volume USDT'")
    assert ingest(path, tmp_path / "c", "--columns", "volume=Volume BTC").exit_code == 0
    assert held(tmp_path / "c").volume.tolist() == candles()["volume"].tolist()


# --- two sides ----------------------------------------------------------------------------------------------


def test_the_bid_may_be_named_like_the_ask(tmp_path: Path) -> None:
    bid, ask = candles(8), candles(8, base=100.5)
    paths = write_csv(tmp_path / "bid.csv", bid), write_csv(tmp_path / "ask.csv", ask)
    options = ("--catalog", tmp_path / "c", "--instrument", "GBPUSD.FX", "--json")
    done = sage("ingest", "--bid", paths[0], "--ask", paths[1], *options)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["rows_written"] == 8 and report["half_spread_bps_by_hour"] is not None
    assert sage("ingest", paths[0], "--ask", paths[1], *options).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--bid", "a.csv"), "name the other one with --ask"), (("a.csv", "--bid", "b.csv", "--ask", "c.csv"), "--bid"),
     ((), "name a SOURCE")],
)  # fmt: skip
def test_one_side_alone_and_no_source_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    told = sage("ingest", *arguments, "--catalog", tmp_path / "c", "--instrument", "GBPUSD.FX")
    assert_refused(told, 2, message)
