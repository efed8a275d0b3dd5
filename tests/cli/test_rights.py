"""Commands of somebody to whom rights are missing: one message that says where, and exit code 3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from data.ingest import IngestRequest, ingest
from sage.doctor import State, examine
from tests.data.files import candles, write_csv
from tests.rights import closed, open_folder


def sage(*arguments: object) -> Result:
    environment = {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a file of bars, a catalog of them, and room for more."""
    with open_folder() as folder:
        for name in ("source", "parent", "new"):
            (folder / name).mkdir()
            (folder / name).chmod(0o777)
        path = write_csv(folder / "source" / "bars.csv", candles(8))
        ingest(IngestRequest([path], folder / "parent" / "catalog", "BTCUSDT.TEST"))
        for path in (folder / "parent").rglob("*"):
            path.chmod(0o777)
        yield folder


@pytest.fixture
def doctor(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places that anybody may look at; and what is imported on the way, which not anybody may."""
    for name in ("SAGE_STORE", "SAGE_MODELS", "SAGE_DOWNLOADS", "SAGE_TRIALS"):
        monkeypatch.setenv(name, str(place / name))
    monkeypatch.chdir(place)
    examine(place / "parent" / "catalog")


CLOSED: dict[str, Callable[[Path], Path]] = {
    "all bars": lambda catalog: catalog / "data" / "bar",
    "bars of a kind": lambda catalog: next((catalog / "data" / "bar").iterdir()),
    "an instrument": lambda catalog: next((catalog / "data" / "currency_pair").iterdir()),
    "all of it": lambda catalog: catalog,
    "its parent": lambda catalog: catalog.parent,
}


@pytest.mark.parametrize("what", CLOSED)
@pytest.mark.parametrize("command", ["ls", "check"])
def test_a_catalog_that_may_not_be_read_exits_with_3(place: Path, command: str, what: str) -> None:
    catalog = place / "parent" / "catalog"
    assert sage("catalog", command, catalog).exit_code == 0
    with closed(CLOSED[what](catalog)):
        told = sage("catalog", command, catalog)
    assert told.exit_code == ExitCode.BAD_DATA, told.output
    assert "Permission denied; check its rights" in told.stderr and "Traceback" not in told.stderr


def test_a_file_that_may_not_be_read_is_told_among_what_is_wrong(place: Path) -> None:
    catalog = place / "parent" / "catalog"
    (path,) = (catalog / "data" / "bar").rglob("*.parquet")
    with closed(path):
        told = sage("catalog", "check", catalog)
    assert told.exit_code == ExitCode.CHECK_FAILED and f"{path}: may not be read; check its rights" in told.stdout


@pytest.mark.parametrize("what", ["source", "source/bars.csv", "parent", "parent/catalog", "parent/catalog/data/bar"])
def test_an_ingest_to_which_rights_are_missing_exits_with_3(place: Path, what: str) -> None:
    into = place / ("new" if what.startswith("source") else "parent") / "catalog"
    source = place / "source" / ("" if what == "source" else "bars.csv")
    with closed(place / what):
        told = sage("ingest", source, "--catalog", into, "--instrument", "BTCUSDT.TEST", "--bar", "30m")
    assert told.exit_code == ExitCode.BAD_DATA, told.output
    assert "rights" in told.stderr and str(place / what) in told.stderr and "Traceback" not in told.stderr


@pytest.mark.parametrize("what", CLOSED)
def test_the_doctor_tells_of_a_catalog_that_may_not_be_read(place: Path, what: str, doctor: None) -> None:
    catalog = place / "parent" / "catalog"
    with closed(CLOSED[what](catalog)):
        told = sage("doctor", "--catalog", catalog, "--json")
    found = {one["section"]: one for one in json.loads(told.stdout)}
    assert found["catalog"]["state"] == "wrong" and "Permission denied" in found["catalog"]["told"]


def test_the_doctor_tells_what_of_a_catalog_may_not_be_written(place: Path, doctor: None) -> None:
    catalog = place / "parent" / "catalog"
    (catalog / "data" / "bar").chmod(0o555)
    with closed():
        (found,) = [one for one in examine(catalog) if one.section == "catalog"]
    assert found.state is State.NOTE and f"nothing can be written in {catalog / 'data' / 'bar'}" in found.told


def test_a_run_that_may_not_be_read_is_listed_as_a_problem(place: Path) -> None:
    for name in ("fine", "closed"):
        (place / "runs" / name).mkdir(parents=True)
        (place / "runs" / name / "stress.json").write_text("{}")
    with closed(place / "runs" / "closed"):
        told = json.loads(sage("runs", "ls", place / "runs", "--json").stdout)
        shown = sage("runs", "ls", place / "runs")
        one = sage("runs", "show", place / "runs" / "closed")
    assert {Path(run["run"]).name: run["kind"] for run in told} == {"fine": "stress", "closed": None}
    assert "closed: cannot be read (Permission denied); check its rights" in shown.stdout
    assert one.exit_code == ExitCode.BAD_DATA and "check its rights" in one.stderr
    with closed(place / "runs"):
        assert sage("runs", "ls", place / "runs").exit_code == ExitCode.BAD_DATA
