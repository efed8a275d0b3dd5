"""``sage store`` as people call it: what it says, what it leaves, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.exits import ExitCode
from cli.store import parse_size
from data.errors import OptionError
from regime.serving.store import ForecastStore
from tests.regime.stores import KEY, OTHER_KEY, filled, held, part_of, part_paths


def store(*arguments: object, **environment: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment})
    return runner.invoke(app, ["store", *map(str, arguments)])


def test_info_names_the_place_the_model_and_the_amount(tmp_path: Path) -> None:
    filled(tmp_path, range(1000), range(1000, 1500))
    result = store("info", "--dir", tmp_path)
    assert result.exit_code == ExitCode.OK, result.output
    for said in (str(tmp_path), KEY.checkpoint_sha256[:16], KEY.engine, "1,500", "float32 cpu", "512"):
        assert said in result.stdout


def test_info_as_json_is_all_that_goes_to_stdout(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 30))
    part = part_of(tmp_path, 1)
    part.write_bytes(b"")
    ForecastStore(tmp_path, KEY)
    result = store("info", "--dir", tmp_path, "--json")
    assert result.exit_code == ExitCode.OK
    told = json.loads(result.stdout)
    assert told["directory"] == str(tmp_path)
    (key,) = told["keys"]
    assert (key["forecasts"], key["parts"], key["damaged"]) == (20, 1, [f"{part.name}.damaged"])
    assert key["key"]["engine"] == KEY.engine
    assert key["checkpoint_id"] == KEY.checkpoint_sha256[:16]
    assert key["last_use"].endswith("+00:00")
    assert part.name in store("info", "--dir", tmp_path).stdout


@pytest.mark.parametrize("command", ["info", "prune"])
def test_a_missing_store_is_said_to_be_empty(tmp_path: Path, command: str) -> None:
    result = store(command, "--dir", tmp_path / "nowhere")
    assert result.exit_code == ExitCode.OK
    assert f"{tmp_path / 'nowhere'}: no forecasts are kept here" in result.stdout
    assert not (tmp_path / "nowhere").exists()


def test_without_dir_it_is_the_store_that_backtests_use(tmp_path: Path) -> None:
    filled(tmp_path / "kept", range(10))
    result = store("info", "--json", SAGE_STORE=str(tmp_path / "kept"))
    assert [key["digest"] for key in json.loads(result.stdout)["keys"]] == [KEY.digest]


def test_prune_merges_and_keeps_every_forecast(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 30))
    result = store("prune", "--dir", tmp_path)
    assert result.exit_code == ExitCode.OK, result.output
    assert "2 into 1" in result.stdout
    assert len(part_paths(tmp_path)) == 1
    assert held(ForecastStore(tmp_path, KEY), range(30)) == list(range(30))


def test_prune_all_removes_everything_and_a_dry_run_nothing(tmp_path: Path) -> None:
    filled(tmp_path, range(10))
    filled(tmp_path, range(10), key=OTHER_KEY)
    foretold = json.loads(store("prune", "--dir", tmp_path, "--all", "--dry-run", "--json").stdout)
    assert len(store("info", "--dir", tmp_path, "--json").stdout) > 500
    done = json.loads(store("prune", "--dir", tmp_path, "--all", "--json").stdout)
    assert (foretold["dry_run"], done["dry_run"]) == (True, False)
    assert foretold["removed_keys"] == done["removed_keys"]
    assert sorted(done["removed_keys"]) == sorted([KEY.digest, OTHER_KEY.digest])
    assert done["bytes_after"] == 0
    assert "no forecasts" in store("info", "--dir", tmp_path).stdout


def test_prune_keeps_to_the_size_asked_for(tmp_path: Path) -> None:
    filled(tmp_path, range(500), range(500, 1000))
    result = store("prune", "--dir", tmp_path, "--max-size", "100kB", "--json")
    assert json.loads(result.stdout)["removed_parts"] == 1
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 100_000
    assert json.loads(store("prune", "--dir", tmp_path, "--unused-days", "1", "--json").stdout)["removed_parts"] == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("2B", 2), ("500MB", 500_000_000), ("1.5 kB", 1500), ("2gib", 2 << 30), ("1KB", 1000)],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "5 apples", "1e9", "1,5GB", "nan", "٣MB"])
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="500MB"):
        parse_size(text)


@pytest.mark.parametrize(
    "options", [["--max-size", "plenty"], ["--unused-days", "-1"], ["--all", "--max-size", "1GB"]], ids=" ".join
)
def test_options_that_make_no_sense_end_with_2_and_remove_nothing(tmp_path: Path, options: list[str]) -> None:
    filled(tmp_path, range(10))
    result = store("prune", "--dir", tmp_path, *options)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert held(ForecastStore(tmp_path, KEY), range(10)) == list(range(10))


@pytest.mark.parametrize("command", ["info", "prune"])
def test_a_file_instead_of_a_store_ends_with_6_and_one_message(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("precious")
    result = store(command, "--dir", tmp_path / "file")
    assert result.exit_code == ExitCode.INTERNAL
    assert result.stdout == ""
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.stderr
