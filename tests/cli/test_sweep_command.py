"""``sage sweep``: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.exits import ExitCode
from tests.conftest import clean_environment
from tests.hub import WAIT_S

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text("[data.synthetic]\nbars = 300\n[regime]\npinned_level = 2\n")
    return path


def sage(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


GRID = ("--set", "sizing.target_volatility=0.1,0.4", "--set", "sizing.conviction_gain=1,2")


def test_a_sweep_leaves_a_table_a_report_and_says_what_the_best_is_worth(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sage("--config", config, *GRID, "--workers", 2, "--out", out, "--ledger", tmp_path / "trials.jsonl")
    assert done.exit_code == 0, done.output
    assert "best of 4 trials" in done.stdout and "4 of 4" in done.stdout
    assert len(pd.read_parquet(out / "runs.parquet")) == 4 and (out / "report.html").exists()
    more = sage("--config", config, *GRID, "--set", "costs.fee_bps=5,6", "--resume", out, "--dry-run", "--json")
    planned = json.loads(more.stdout)
    assert (planned["runs"], planned["done"]) == (8, 4)
    again = sage(
        "--config", config, *GRID, "--set", "costs.fee_bps=5", "--resume", out, "--ledger", tmp_path / "trials.jsonl",
        "--json",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    document = json.loads(again.stdout)
    # The fee is what it was, and so are the runs.
    assert document["reused"] == 4 and document["trials_ever"] == 4
    assert {one["trial"] for one in document["by_trial"]} == {0, 1, 2, 3}
    # Without options it is the sweep that it was.
    once_more = sage("--resume", out, "--ledger", tmp_path / "trials.jsonl", "--json")
    assert once_more.exit_code == 0, once_more.output
    assert [run["key"] for run in json.loads(once_more.stdout)["runs"]] == [run["key"] for run in document["runs"]]
    for options in ((), ("--dry-run",)):
        fewer = sage("--config", config, *GRID[:2], "--resume", out, "--ledger", tmp_path / "trials.jsonl", *options)
        assert fewer.exit_code == ExitCode.USAGE and "4 runs there are not of this sweep" in fewer.stderr


def test_a_directory_in_the_place_of_the_ledger_is_said_in_a_line(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_TRIALS", str(tmp_path))
    told = sage("--config", config, *GRID, "--out", tmp_path / "out")
    assert told.exit_code == ExitCode.USAGE and len(told.stderr.splitlines()) == 1
    assert f"{tmp_path}: is a directory" in told.stderr
    assert "--ledger" in told.stderr and "$SAGE_TRIALS" in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_plan_and_runs_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    windows = ("--train-bars", 100, "--test-bars", 40)
    told = sage("--config", config, *GRID, *windows, "--dry-run").stdout
    assert "4 combinations of values" in told and "12, " in told
    document = json.loads(sage("--config", config, *GRID, *windows, "--dry-run", "--json").stdout)
    assert document["runs"] == 12 and document["windows"] == 3 and len(document["tasks"]) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), ExitCode.USAGE, "nothing to vary"),
        (("--period", "2020-01-01..2021-01-01"), ExitCode.USAGE, "nothing to vary"),
        (("--set", "sizing.target_volatility="), ExitCode.USAGE, "no values"),
        (("--set", "sizing.target_volatilty=1,2"), ExitCode.USAGE, "target_volatility"),
        (("--set", "sizing.target_volatility"), ExitCode.USAGE, "write KEY=VALUES"),
        (("--set", "sizing.target_volatility=0.1~0.2"), ExitCode.USAGE, "--draws N"),
        ((*GRID, "--heatmap", "a,b"), ExitCode.USAGE, "--heatmap a,b"),
        ((*GRID, "--workers", 0), ExitCode.USAGE, "--workers 0"),
        ((*GRID, "--workers", 0, "--dry-run"), ExitCode.USAGE, "--workers 0"),
        ((*GRID, "--out", "a", "--resume", "b"), ExitCode.USAGE, "exclude each other"),
        ((*GRID, "--resume", "nowhere"), ExitCode.USAGE, "there is no sweep"),
        ((*GRID, "--resume", "nowhere", "--dry-run"), ExitCode.USAGE, "there is no sweep"),
        ((*GRID, "--rolling"), ExitCode.USAGE, "--test-bars"),
        ((*GRID, "--test-bars", 40, "--embargo-bars", 3), ExitCode.USAGE, "--embargo-bars 3"),
        ((*GRID, "--period", "2023"), ExitCode.USAGE, "START..END"),
        ((*GRID, "--test-bars", 400), ExitCode.BAD_DATA, "too few"),
        ((*GRID, "--data", "moon"), ExitCode.USAGE, "--data moon"),
        ((*GRID, "--catalog", "nowhere", "--instrument", "BTCUSDT.TEST"), ExitCode.BAD_DATA, "nowhere"),
        ((*GRID, "--grid", "none.toml"), ExitCode.USAGE, "No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said_before_anything_is(
    arguments: tuple[object, ...], code: ExitCode, message: str, config: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = sage("--config", config, *arguments)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml"}


def test_windows_of_a_file_may_be_changed_by_options(config: Path, tmp_path: Path) -> None:
    grid = tmp_path / "sweep.toml"
    grid.write_text("draws = 4\ndraw_seed = 3\n[set]\ncosts.fee_bps = { from = 1, to = 2, random = true }\n"
                    "[windows]\ntrain_bars = 100\ntest_bars = 40\n")  # fmt: skip
    planned = [
        json.loads(sage("--config", config, "--grid", grid, *options, "--dry-run", "--json").stdout)
        for options in ((), ("--test-bars", 80), ("--draw-seed", 0))
    ]
    assert [plan["windows"] for plan in planned] == [3, 2, 3]
    values = [[task["values"] for task in plan["tasks"]] for plan in planned]
    assert values[0][0] != values[2][0]


def test_what_a_strategy_prints_is_no_result(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from tests.sage.own import Flips as Base\nfrom tests.sage.own import FlipsConfig\n\n\n"
        "class Flips(Base):\n    def on_start(self):\n        print('hello from mine')\n        super().on_start()\n"
    )
    config.write_text(config.read_text() + '[own]\nstrategy = "mine:Flips"\n')
    script = Path(sys.executable).with_name("sage")
    done = subprocess.run(
        [script, "sweep", "--config", config, "--set", "own.params.quantity=5,10", "--out", "out", "--json", "--ledger",
         "trials.jsonl"], cwd=tmp_path, env=clean_environment() | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 2 and "hello from mine" in done.stderr


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("sage")
    running = subprocess.Popen(
        [script, "sweep", "--config", config, "--set", "seed=1:40:40", "--workers", "1", "--out", "out", "--ledger",
         "trials.jsonl"], cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and not list((tmp_path / "out" / "runs").glob("*/manifest.json")):
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=WAIT_S)
    finally:
        running.kill()
    assert running.returncode == ExitCode.INTERRUPTED, told
    assert "to go on: --resume" in told and "Traceback" not in told
    done = len(pd.read_parquet(tmp_path / "out" / "runs.parquet"))
    assert 1 <= done < 40 and (tmp_path / "out" / "report.html").exists()


def test_a_run_that_failed_makes_the_exit_code_one(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + '[own]\nstrategy = "tests.sage.own:Flips"\n')
    done = sage(
        "--config", config, "--set", 'own.params={},{"raise_in":"on_bar","raise_at":50}', "--out", tmp_path / "out",
        "--ledger", tmp_path / "trials.jsonl",
    )  # fmt: skip
    assert done.exit_code == ExitCode.CHECK_FAILED, done.output
    assert "my own mistake" in done.stdout and "1 of 2" in done.stdout
