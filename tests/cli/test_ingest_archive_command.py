"""``sage ingest binance:SYMBOL`` as people call it: what is kept, told, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from data.archive import download
from data.archive.download import Patience
from tests.archive import LoopbackArchive
from tests.data.files import held, kline_lines

SPOT = "data/spot/monthly/klines/BTCUSDT/30m/BTCUSDT-30m-{}.zip"
COIN = "data/futures/cm/monthly/klines/BTCUSD_PERP/30m/BTCUSD_PERP-30m-{}.zip"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackArchive]:
    """Two months, the later one in microseconds, as the real one has them from 2025 on."""
    monkeypatch.setattr(download, "Patience", lambda: Patience(attempts=2, pause_s=0.01))
    with LoopbackArchive() as running:
        running.put(SPOT.format("2024-12"), kline_lines(48 * 31, "2024-12-01"))
        running.put(SPOT.format("2025-01"), kline_lines(48 * 31, "2025-01-01", unit="us"))
        yield running


def ingest(archive: LoopbackArchive, tmp_path: Path, *options: object, symbol: str = "BTCUSDT") -> Result:
    arguments = ["ingest", f"binance:{symbol}", "--bar", "30m", "--catalog", tmp_path / "catalog", "--archive",
                 archive.address, "--downloads", tmp_path / "kept", *options]  # fmt: skip
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


MONTHS = ("--from", "2024-12", "--to", "2025-01")


def test_months_of_two_epoch_units_become_one_series_under_the_archives_name(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    done = ingest(archive, tmp_path, *MONTHS, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["instrument"], document["kind"], document["rows_written"]) == ("BTCUSDT.BINANCE", "crypto", 2_976)
    assert document["gaps"] == [] and len(held(tmp_path / "catalog", "BTCUSDT.BINANCE")) == 2_976
    again = ingest(archive, tmp_path, *MONTHS, "--json")
    assert json.loads(again.stdout)["outcome"] == "unchanged" and set(archive.fetched().values()) == {1}


def test_a_replaced_file_is_told_of_and_replaces_its_bars(archive: LoopbackArchive, tmp_path: Path) -> None:
    ingest(archive, tmp_path, *MONTHS)
    archive.put(SPOT.format("2024-12"), kline_lines(48 * 31 - 1, "2024-12-01"))
    told = ingest(archive, tmp_path, *MONTHS)
    assert told.exit_code == 0, told.output
    assert "the archive has replaced it since it was fetched" in told.stdout and "REPLACING" in told.stdout


def test_a_replaced_file_is_told_of_by_the_first_ingest_that_is_not_refused(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    ingest(archive, tmp_path, *MONTHS)
    archive.put(SPOT.format("2024-12"), [*kline_lines(48 * 31 - 1, "2024-12-01"), "broken"])
    refused = ingest(archive, tmp_path, *MONTHS, "--strict")
    assert refused.exit_code == ExitCode.BAD_DATA, refused.output
    told, silent = (ingest(archive, tmp_path, *MONTHS).stdout for _ in range(2))
    assert "the archive has replaced it" in told and "the archive has replaced it" not in silent


def test_futures_are_perpetuals_with_a_header_in_their_files(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.put(COIN.format("2024-12"), kline_lines(48, "2024-12-01"), header=True)
    done = ingest(archive, tmp_path, "--from", "2024-12", "--to", "2024-12", "--market", "cm", "--json",
                  symbol="BTCUSD_PERP")  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["instrument"], document["kind"]) == ("BTCUSD_PERP.BINANCE", "perpetual")


def test_a_missing_month_is_told_of_and_refused_under_strict(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.put(SPOT.format("2025-03"), kline_lines(48 * 31, "2025-03-01", unit="us"))
    months = ("--from", "2024-12", "--to", "2025-03")
    told = ingest(archive, tmp_path, *months)
    assert told.exit_code == 0 and "not in the archive: BTCUSDT-30m-2025-02.zip" in told.stdout
    strict = ingest(archive, tmp_path, *months, "--strict")
    assert strict.exit_code == ExitCode.BAD_DATA and "1 files are missing" in strict.stderr


def test_a_month_that_went_missing_takes_none_of_the_bars_that_came_from_it(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    archive.put(SPOT.format("2025-02"), kline_lines(48 * 28, "2025-02-01", unit="us"))
    months = ("--from", "2024-12", "--to", "2025-02")
    ingest(archive, tmp_path, *months)
    del archive.files[SPOT.format("2025-01")]
    shutil.rmtree(tmp_path / "kept")
    told = ingest(archive, tmp_path, *months)
    assert told.exit_code == 0 and "1,488 bars of before stay" in told.stdout, told.output
    assert len(held(tmp_path / "catalog", "BTCUSDT.BINANCE")) == 48 * (31 + 31 + 28)


def test_an_archive_that_cannot_be_reached_is_one_line_that_names_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "Patience", lambda: Patience(attempts=2, pause_s=0.01))
    with LoopbackArchive() as gone:
        pass
    told = ingest(gone, tmp_path, *MONTHS)
    assert told.exit_code == ExitCode.INTERNAL, told.output
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("sage:")]
    assert "cannot be reached" in line and SPOT.format("2024-12") in line and "Traceback" not in told.stderr
    assert not (tmp_path / "catalog").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--from", "2024-12", "--to", "2025-01", "--market", "moon"), ExitCode.USAGE, "--market moon"),
        (("--to", "2025-01"), ExitCode.USAGE, "--from 2024-01"),
        (("--from", "2024-12", "--archive", "http://[::1"), ExitCode.USAGE, "--archive http://[::1: is no address"),
        (("--from", "1999-01", "--to", "2012-01"), ExitCode.BAD_DATA, "has no 30m bars"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: tuple[str, ...], code: ExitCode, message: str, archive: LoopbackArchive, tmp_path: Path
) -> None:
    told = ingest(archive, tmp_path, *options)
    assert told.exit_code == code and message in told.stderr, told.output


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--instrument", "BTCUSDT"), ExitCode.USAGE, "is not SYMBOL.VENUE"),
        (("--calendar", "moon"), ExitCode.USAGE, "--calendar moon: unknown"),
        (("--layout", "moon"), ExitCode.USAGE, "--layout moon: unknown"),
        ((), ExitCode.BAD_DATA, "is a file, not a catalog directory"),
    ],
)
def test_what_can_be_refused_beforehand_is_before_anything_is_fetched(
    options: tuple[str, ...], code: ExitCode, message: str, archive: LoopbackArchive, tmp_path: Path
) -> None:
    if not options:
        (tmp_path / "catalog").write_text("a file")
    told = ingest(archive, tmp_path, *MONTHS, *options)
    assert told.exit_code == code and message in told.stderr, told.output
    assert not archive.asked


def test_a_symbol_that_the_archive_does_not_have_is_bad_data(archive: LoopbackArchive, tmp_path: Path) -> None:
    told = ingest(archive, tmp_path, *MONTHS, symbol="NOSUCHCOIN")
    assert told.exit_code == ExitCode.BAD_DATA and "has no 30m bars of NOSUCHCOIN" in told.stderr
    assert not (tmp_path / "catalog").exists()


def test_options_of_an_archive_go_with_no_file(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["ingest", "bars.csv", "--catalog", str(tmp_path), "--from", "2024-01"])
    assert told.exit_code == ExitCode.USAGE and "--from is for bars of an archive" in told.stderr
