"""The command line: help, version, exit codes, and stdout kept for results."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from regime.model.checkpoint import find_checkpoint
from tests.conftest import clean_environment


def sage(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The console script, as a user calls it."""
    script = Path(sys.executable).with_name("sage")
    return subprocess.run(
        [str(script), *arguments], capture_output=True, text=True, check=False, env=clean_environment(), cwd=cwd
    )


def test_help_names_every_command() -> None:
    done = sage("--help")
    assert done.returncode == ExitCode.OK
    assert {"backtest", "bench-latency", "ingest", "model", "store"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("typed", "word", "completed"),
    [
        ("sage back", 1, ["backtest"]),
        ("sage catalog ", 2, ["ls", "show", "check", "rm"]),
        ("sage stress --fau", 2, ["--faults"]),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, word: int, completed: list[str]) -> None:
    asked = {"_SAGE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(word)}
    script = Path(sys.executable).with_name("sage")
    done = subprocess.run([script], capture_output=True, text=True, check=True, env=clean_environment() | asked)
    assert done.stdout.split() == completed


def test_a_result_that_cannot_be_printed_is_not_called_unmade(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("sage")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [script, "runs", "ls", tmp_path], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=clean_environment(),
        )  # fmt: skip
    assert done.returncode == ExitCode.INTERNAL
    assert done.stderr == "sage: No space left on device; what was finished by then is kept\n"


def test_version_is_that_of_the_distribution() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("sage 0.")
    assert CliRunner().invoke(app, ["backtest", "--version"]).stdout.startswith("sage 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "nasdaq"],
        ["--level", "6"],
        ["--data", "sp500", "--catalog", "somewhere"],
        ["--start", "2024-01-01"],
        ["--catalog", "somewhere"],
        ["--fee-bps", "-1"],
        ["--cash", "0"],
        ["--deadline-ms", "1"],
        ["--config", "no-such.toml"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_end_with_2_and_one_message(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["backtest", "--out", str(tmp_path / "run"), *arguments])
    assert done.exit_code == ExitCode.USAGE
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert not (tmp_path / "run").exists()


def test_a_missing_catalog_ends_with_3_and_says_how_to_make_one(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    done = CliRunner().invoke(app, ["backtest", "--catalog", str(place), "--instrument", "BTCUSDT.BINANCE"])
    assert done.exit_code == ExitCode.BAD_DATA
    assert "sage ingest" in done.stderr
    assert not place.exists()


def test_a_missing_model_ends_with_4(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["backtest", "--model", "no-such-model", "--out", str(tmp_path / "run")])
    assert done.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert "no-such-model" in done.stderr
    assert "--allow-degraded" in done.stderr


@pytest.mark.parametrize("damage", ["truncated", "swapped", "config"])
def test_a_damaged_model_stops_a_backtest_unless_it_may_run_degraded(tmp_path: Path, damage: str) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(find_checkpoint("embedded").weights.parent, model)
    weights, config = model / "model.safetensors", model / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "swapped":
        weights.write_bytes(pickle.dumps({"weights": [1.0]}))
    else:
        config.write_text(config.read_text().replace('"train_ctx_len": 512', '"train_ctx_len": 1000000000000'))
    (tmp_path / "run.toml").write_text("[data.synthetic]\nbars = 120\n")
    arguments = ["backtest", "--config", str(tmp_path / "run.toml"), "--no-store", "--model", str(model)]
    blamed = config if damage == "config" else weights

    done = CliRunner().invoke(app, [*arguments, "--out", str(run)])
    assert done.exit_code == ExitCode.MODEL_UNAVAILABLE, done.stderr
    assert str(blamed) in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith("To run without a model: --allow-degraded")
    assert (done.stdout, run.exists()) == ("", False)

    done = CliRunner().invoke(app, [*arguments, "--out", str(run), "--allow-degraded", "--json"])
    assert done.exit_code == ExitCode.OK, done.stderr
    assert f"no model, degraded from the first bar on: model {str(model)!r}: {blamed}" in done.stderr
    levels = json.loads(done.stdout)["levels"]
    assert (levels["FULL"], levels["BASIC"]) == (0, 0) and levels["SMART"] > 0


def test_a_place_that_cannot_be_written_ends_with_6(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["backtest", "--level", "5", "--out", str(tmp_path / "file" / "run")])
    assert done.exit_code == ExitCode.INTERNAL


def test_json_alone_goes_to_stdout_and_progress_to_stderr(tmp_path: Path) -> None:
    done = sage("backtest", "--level", "3", "--seed", "5", "--json", "--out", str(tmp_path / "run"))
    assert done.returncode == ExitCode.OK, done.stderr
    figures = json.loads(done.stdout)
    assert figures["signals"] == figures["bars"]
    assert figures["levels"]["SIMPLE"] > 0
    assert "trading" in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_run_without_out_goes_to_runs(tmp_path: Path) -> None:
    done = sage("backtest", "--data", "sp500", "--level", "5", cwd=tmp_path)
    assert done.returncode == ExitCode.OK, done.stderr
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.endswith("-sp500")
    assert str(directory.name) in done.stdout.replace("\n", "")


def test_the_configuration_file_yields_to_options(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        "cash = 5000\nseed = 3\n[regime]\npinned_level = 5\n[data.synthetic]\nbars = 50\n"
    )
    done = sage("backtest", "--config", str(tmp_path / "run.toml"), "--cash", "777", "--out", str(tmp_path / "run"))
    assert done.returncode == ExitCode.OK, done.stderr
    config = json.loads((tmp_path / "run" / "manifest.json").read_text())["config"]
    assert (config["cash"], config["seed"], config["data"]["synthetic"]["bars"]) == (777.0, 3, 50)
