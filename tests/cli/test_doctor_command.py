"""``sage doctor``: what is fine, what is not, and the way to mend it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from data.ingest import IngestRequest, ingest
from tests.conftest import clean_environment
from tests.data.files import candles, write_csv


def sage(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["doctor", *map(str, arguments)])


def findings(*arguments: object) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["section"], one["name"]): one for one in json.loads(sage(*arguments, "--json").stdout)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Places of its own, all of which can be written."""
    for name in ("SAGE_STORE", "SAGE_MODELS", "SAGE_DOWNLOADS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("SAGE_TRIALS", str(tmp_path / "trials" / "trials.jsonl"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.torch
def test_where_nothing_is_in_the_way_it_says_so() -> None:
    told = sage()
    assert told.exit_code == 0, told.output
    assert "nothing is in the way" in told.stdout
    for words in ("nautilus_trader", "embedded", "sound", "cores", "memory", "forecasts", "SAGE_STORE"):
        assert words in told.stdout, words


def test_nothing_is_made_by_looking(home: Path) -> None:
    sage()
    assert not list(home.iterdir())


@pytest.mark.torch
def test_versions_are_those_that_are_installed_and_the_build_of_torch_is_told() -> None:
    import importlib.metadata

    found = findings()
    assert found["versions", "torch"]["told"].startswith(importlib.metadata.version("torch"))
    assert "built for" in found["versions", "torch"]["told"]
    assert found["engine", "runs"]["state"] in {"fine", "note"}


def test_a_place_that_cannot_be_written_is_in_the_way(home: Path) -> None:
    (home / "SAGE_MODELS").write_text("a file")
    told = sage()
    assert told.exit_code == ExitCode.CHECK_FAILED
    assert "cannot be written" in told.stdout and "$SAGE_MODELS" in told.stdout and "in the way" in told.stdout
    assert findings()["places", "models"]["state"] == "wrong"


def test_a_directory_in_the_place_of_the_ledger_is_in_the_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_TRIALS", str(home))
    found = findings()["places", "trials"]
    assert found["state"] == "wrong" and "is a directory" in found["told"]
    assert f"such as {home / 'trials.jsonl'}" in found["mend"]


def test_what_looks_like_markup_is_told_as_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_MODELS", str(home / "[bold]models"))
    assert "[bold]models" in sage().stdout


def test_what_a_place_takes_is_told(home: Path) -> None:
    (home / "runs" / "one").mkdir(parents=True)
    (home / "runs" / "one" / "report.html").write_bytes(b"x" * 2_500_000)
    (home / "SAGE_DOWNLOADS").mkdir()
    found = findings()
    assert "2.5 MB of what runs left" in found["places", "runs"]["told"]
    assert "0.0 MB of files of archives" in found["places", "downloads"]["told"]
    assert found["places", "models"]["told"].count("made when needed") == 1


def test_a_pulled_model_that_is_damaged_is_in_the_way(home: Path) -> None:
    directory = home / "SAGE_MODELS" / f"NX-AI--TiRex@{'a' * 40}"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{")
    found = [one for (section, name), one in findings().items() if section == "models" and name != "embedded"]
    assert [one["state"] for one in found] == ["wrong"] and found[0]["mend"]


@pytest.mark.torch  # What answers without a compiler.
def test_a_compiler_that_is_not_there_is_worth_a_note(home: Path) -> None:
    # A process of its own: this one has its engine already.
    environment = clean_environment() | {"CC": str(home / "no-such-compiler"), "XDG_CACHE_HOME": str(home / "cache")}
    script = Path(sys.executable).with_name("sage")
    told = subprocess.run([script, "doctor", "--json"], env=environment, capture_output=True, text=True, check=False)
    (found,) = [one for one in json.loads(told.stdout) if (one["section"], one["name"]) == ("engine", "runs")]
    assert found["state"] == "note" and "compiler" in found["mend"]


def test_a_catalog_is_looked_at_when_named(home: Path) -> None:
    ingest(IngestRequest([write_csv(home / "bars.csv", candles(8))], home / "catalog", "BTCUSDT.TEST"))
    found = findings("--catalog", home / "catalog")["catalog", str(home / "catalog")]
    assert found["told"] == "8 bars of 1 instruments, 0.0 MB, can be read and written" and found["state"] == "fine"
    (path,) = (home / "catalog" / "data" / "bar").rglob("*.parquet")
    path.write_bytes(b"PAR1")
    told = sage("--catalog", home / "catalog")
    assert told.exit_code == ExitCode.CHECK_FAILED and "sage catalog check" in told.stdout
    assert findings("--catalog", home / "none")["catalog", str(home / "none")]["state"] == "wrong"
