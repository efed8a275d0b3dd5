"""``sage runs``: what was made, what it came to, where two runs part, and what goes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage import rundir, walk_forward_report
from sage.backtest import run_backtest
from sage.config import BacktestConfig, DataConfig, WalkForwardConfig, with_keys
from sage.progress import Silent
from sage.runs import Differing, compare
from sage.sweep.axes import Axis
from sage.sweep.ledger import Ledger
from sage.sweep.plan import SweepConfig, plan_of
from sage.sweep.results import write_results
from sage.sweep.sweep import sweep
from sage.sweep.workers import LocalWorkers
from sage.walk_forward import walk_forward

BASE = with_keys(
    BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=400, bar_seconds=14_400))),
    {"regime.pinned_level": int(Level.SMART)},
)


def sage(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["runs", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that are the same, one with other sizes, and what is no run."""
    place = tmp_path_factory.mktemp("runs")
    other = with_keys(BASE, {"sizing.target_volatility": 0.4})
    for name, config in (("one", BASE), ("same", BASE), ("other", other)):
        rundir.write(run_backtest(config), place / name)
    (place / "notes").mkdir()
    return place


def test_runs_are_listed_with_their_headlines_and_what_is_none_is_not(made: Path) -> None:
    told = sage("ls", made)
    assert told.exit_code == 0, told.output
    assert all(name in told.stdout for name in ("one", "same", "other", "sharpe")) and "notes" not in told.stdout
    document = json.loads(sage("ls", made, "--json").stdout)
    assert len(document) == 3 and {run["kind"] for run in document} == {"backtest"}
    summary = json.loads((made / "one" / "summary.json").read_text())
    (one,) = [run for run in document if run["run"].endswith("one")]
    assert one["figures"]["sharpe"] == summary["sharpe"]
    assert one["figures"]["coverage.realised"] == summary["coverage"]["realised"]


def test_a_run_is_shown_with_its_contents(made: Path) -> None:
    told = sage("show", made / "one").stdout
    assert "determinism_hash" in told and "report.html" in told
    assert json.loads(sage("show", made / "one", "--json").stdout)["kind"] == "backtest"


def test_runs_that_are_the_same_are_found_so(made: Path) -> None:
    told = sage("compare", made / "one", made / "same")
    assert told.exit_code == 0, told.output
    assert told.stdout.count("the same") == 3


def test_the_same_orders_for_other_money_are_not_the_same(made: Path) -> None:
    found = compare(made / "one", made / "same")
    assert found.is_same
    for name, same in (("total_return", False), ("model_restarts", True)):
        assert dataclasses.replace(found, figures=[Differing(name, 1, 2)]).is_same is same


def test_walk_forwards_that_are_the_same_are_found_so(tmp_path: Path) -> None:
    walk = WalkForwardConfig(folds=2, train_bars=150)
    for name, volatility in (("one", 0.2), ("same", 0.2), ("other", 0.4)):
        config = dataclasses.replace(with_keys(BASE, {"sizing.target_volatility": volatility}), walk_forward=walk)
        walk_forward_report.write(walk_forward(config), tmp_path / name)
    told = sage("compare", tmp_path / "one", tmp_path / "same")
    assert told.exit_code == 0, told.output
    other = sage("compare", tmp_path / "one", tmp_path / "other", "--json")
    assert other.exit_code == ExitCode.CHECK_FAILED
    document = json.loads(other.stdout)
    assert [one["name"] for one in document["made_from"]] == ["config.sizing.target_volatility"]
    assert {"pooled.total_return", "folds.0.total_return"} <= {one["name"] for one in document["figures"]}


def test_a_sweep_that_is_run_again_elsewhere_is_the_same(tmp_path: Path) -> None:
    plan = plan_of(SweepConfig(BASE, (Axis("sizing.target_volatility", (0.1, 0.4)),)))
    for name in ("one", "same"):
        found = sweep(plan, tmp_path / name, LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Silent())
        write_results(found, str(tmp_path / name), None)
    told = sage("compare", tmp_path / "one", tmp_path / "same")
    assert told.exit_code == 0, told.output
    # In one run of it something else happened.
    path = tmp_path / "same" / "results.json"
    document = json.loads(path.read_text())
    document["runs"][1]["determinism_hash"] = "f" * 64
    path.write_text(json.dumps(document))
    assert "runs.1.determinism_hash" in sage("compare", tmp_path / "one", tmp_path / "same").stdout


def test_runs_that_part_are_told_by_configuration_then_figures_then_the_first_difference(made: Path) -> None:
    told = sage("compare", made / "one", made / "other")
    assert told.exit_code == ExitCode.CHECK_FAILED, told.output
    places = [told.stdout.index(text) for text in ("made from", "target_volatility", "came to", "first difference")]
    assert places == sorted(places)
    document = json.loads(sage("compare", made / "one", made / "other", "--json").stdout)
    assert [one["name"] for one in document["made_from"]] == ["config.sizing.target_volatility"]
    assert "total_return" in {one["name"] for one in document["figures"]}
    assert document["first_difference"]["table"] in {"orders", "fills", "positions"}
    assert document["same_signals"] is False


def test_runs_of_two_kinds_have_nothing_to_compare(made: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "sweep" / "results.json").write_text("{}")
    told = sage("compare", made / "one", tmp_path / "sweep")
    assert told.exit_code == ExitCode.USAGE and "a backtest and" in told.stderr


@pytest.mark.parametrize("command", ["show", "rm"])
def test_what_is_no_run_is_refused_and_stays(made: Path, command: str) -> None:
    told = sage(command, made / "notes", *(("--yes",) if command == "rm" else ()))
    assert told.exit_code == ExitCode.BAD_DATA and "is no run" in told.stderr
    assert (made / "notes").is_dir()


def test_a_directory_with_somebody_elses_manifest_stays(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"name": "an app", "version": "1"}')
    told = sage("rm", site, "--yes")
    assert told.exit_code == ExitCode.BAD_DATA and "does not tell by which SAGE" in told.stderr
    assert (site / "manifest.json").exists()


def test_a_run_that_was_interrupted_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "sweep.json").write_text("{}")
    told = sage("ls", tmp_path)
    assert told.exit_code == 0 and "interrupted, or is under way" in told.stdout


def test_a_run_goes_when_asked_twice(made: Path, tmp_path: Path) -> None:
    rundir.write(run_backtest(BASE), tmp_path / "doomed")
    assert sage("rm", tmp_path / "doomed").exit_code == ExitCode.USAGE
    told = sage("rm", tmp_path / "doomed", "--yes")
    assert told.exit_code == 0 and "removed" in told.stdout and not list(tmp_path.iterdir())


def test_a_run_that_is_still_at_work_stays(tmp_path: Path) -> None:
    place = tmp_path / "sweep"
    plan = plan_of(SweepConfig(BASE, (Axis("sizing.target_volatility", (0.1, 0.4)),)))
    refused: list[Result] = []

    class Meanwhile(Silent):
        def advance(self, steps: int, note: str = "") -> None:
            if not refused:
                refused.append(sage("rm", place, "--yes"))

    found = sweep(plan, place, LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Meanwhile())
    assert refused[0].exit_code == ExitCode.USAGE and "is still at work" in refused[0].stderr
    write_results(found, str(place), None)
    assert sage("show", place).exit_code == 0
    assert sage("rm", place, "--yes").exit_code == 0 and not place.exists()


def test_a_run_that_is_damaged_is_shown_with_the_problem_and_stays_for_a_person_to_remove(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{")
    shown = sage("show", tmp_path / "run")
    assert shown.exit_code == ExitCode.BAD_DATA and "problem" in shown.stdout
    told = sage("rm", tmp_path / "run", "--yes")
    assert told.exit_code == ExitCode.BAD_DATA and "by hand" in told.stderr
    assert (tmp_path / "run").exists()


def test_where_there_are_no_runs_it_says_so(tmp_path: Path) -> None:
    assert "holds no runs" in sage("ls", tmp_path).stdout
    told = sage("ls", tmp_path / "none")
    assert told.exit_code == ExitCode.BAD_DATA and "no such directory" in told.stderr
