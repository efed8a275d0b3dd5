"""``sage replay`` from another process, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from tests.cli.test_app import sage


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under a deadline that the model often misses."""
    place = tmp_path_factory.mktemp("late")
    (place / "run.toml").write_text("[data.synthetic]\nbars = 500\n")
    arguments = ["--config", str(place / "run.toml"), "--deadline-ms", "3.2", "--out", str(place / "run"), "--json"]
    done = CliRunner().invoke(app, ["backtest", *arguments])
    assert json.loads(done.stdout)["forecast_failures"]["TIMEOUT"] > 0
    return place / "run"


def test_a_run_with_time_outs_gives_its_hash_in_another_process(late: Path) -> None:
    done = sage("replay", str(late), "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    report, summary = json.loads(done.stdout), json.loads((late / "summary.json").read_text())
    assert report["same"] and report["hash"] == summary["determinism_hash"]
    assert not summary["reproducible"]


def test_a_difference_ends_with_1_and_names_it(late: Path, tmp_path: Path) -> None:
    manifest = json.loads((late / "manifest.json").read_text())
    manifest["config"]["costs"]["fee_bps"] = 7.0
    for file in late.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = CliRunner().invoke(app, ["replay", str(tmp_path)])
    assert done.exit_code == ExitCode.CHECK_FAILED
    assert "fills, row 0" in done.stdout and "commission was" in done.stdout


def test_what_is_no_run_directory_ends_with_3(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        done = CliRunner().invoke(app, ["replay", str(place)])
        assert (done.exit_code, done.stdout) == (ExitCode.BAD_DATA, "")
        assert "sage backtest" in done.stderr and "Traceback" not in done.stderr
