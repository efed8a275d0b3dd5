"""``sage inject-fault`` as it is called: one table, one verdict, one exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from regime.signal import Level
from stress.campaign import CATALOGUE
from stress.expectations import LEVEL_THAT_ANSWERS
from stress.faults import FAULTS
from stress.stage import Failure
from stress.whole_runs import RUN_FAULTS


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["inject-fault", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_list_names_every_fault_and_what_must_answer_it() -> None:
    code, out, err = run("--list")
    assert code == ExitCode.OK, err
    assert [name for name in CATALOGUE if name not in out] == []
    code, out, _ = run("--list", "--json")
    listed = {fault["fault"]: fault for fault in json.loads(out)}
    assert listed["model.hang"]["expected"] == "SMART"
    assert listed["hub.down"]["needs"] == ["hub"]


def test_a_fault_at_one_bar_is_told_as_a_table_as_json_and_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "faults.html"
    code, out, err = run("model.nan", "--at", "180", "--for", "6", "--json", "--html", str(page))
    assert code == ExitCode.OK, err
    document = json.loads(out)
    (case,) = document["cases"]
    assert document["verdict"] == case["verdict"] == "passed"
    assert (case["fault"], case["began_at_bar"], case["for_bars"]) == ("model.nan", 180, 6)
    assert case["levels"] == {"SMART": 6}
    assert case["bars_lost"] == 0
    assert 0 <= case["bars_to_full"] <= case["bound_bars"]
    html = page.read_text()
    assert "model.nan" in html
    assert "http" not in html


def test_the_table_shows_what_answered_and_where() -> None:
    code, out, err = run("model.crossed", "data.nan", "--where", "position")
    assert code == ExitCode.OK, err
    assert "2 passed, 0 failed" in out
    assert "CROSSED_QUANTILES" in out
    assert "BASIC 24" in out


def test_a_verdict_that_fails_is_exit_code_1_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVEL_THAT_ANSWERS, Failure.NO_USABLE_ANSWER, Level.BASIC)
    code, out, _ = run("model.nan", "--where", "position")
    assert code == ExitCode.CHECK_FAILED
    assert "due was BASIC" in out
    assert "1 failed" in out


def test_what_cannot_be_provoked_here_is_skipped_with_its_reason_and_never_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = {"model.nan": FAULTS["model.nan"], "hub.lying": RUN_FAULTS["hub.lying"]}
    monkeypatch.setattr("stress.campaign.CATALOGUE", some)
    monkeypatch.setattr("stress.needs._CHECKS", {"hub": lambda config: "no network card"})
    code, out, _ = run("--all", "--where", "position", "--json")
    verdicts = {case["fault"]: (case["verdict"], case["why"]) for case in json.loads(out)["cases"]}
    assert verdicts["hub.lying"] == ("skipped", "no network card")
    assert verdicts["model.nan"][0] == "passed"
    # Two levels of six were seen, which is not what --all is to show.
    assert code == ExitCode.CHECK_FAILED
    assert "never reached through the real path" in json.loads(out)["problems"][0]
    code, _, err = run("hub.lying")
    assert code == ExitCode.USAGE
    assert "no network card" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--all"),
        (["--all", "model.nan"], "--all"),
        (["model.hangs"], "model.hang"),
        (["model.nan", "--at", "99999"], "--at 99999"),
        (["model.nan", "--at", "0"], "--at 0"),
        (["model.nan", "--for", "0"], "--for 0"),
        (["model.nan", "--for", "99999"], "outlast"),
        (["model.nan", "--at", "5", "--where", "flat"], "exclude"),
        (["model.nan", "--where", "everywhere"], "--where everywhere"),
        (["model.nan", "--deadline-ms", "1"], "--deadline-ms"),
        (["model.nan", "--deadline-ms", "nan"], "deadline"),
        (["model.nan", "--bars", "20"], "--bars 20"),
        (["model.nan", "--seed", "-1"], "seed"),
        (["model.nan", "--engine", "warp"], "--engine"),
        (["model.nan", "--html", "no-such-directory/x.html"], "--html"),
        (["store.damaged", "--at", "5"], "as a whole"),
        (["model.nan", "--schedules", "3"], "no meaning for schedules"),
        (["--schedules", "3", "--where", "flat"], "--where"),
        (["--schedules", "3", "--deadline-ms", "20"], "--deadline-ms has no meaning"),
        (["--schedules", "3", "--model", "embedded"], "--model has no meaning"),
        (["--real", "1", "--engine", "torch"], "--engine has no meaning"),
        (["--schedule", "model.hang@20+5", "--real", "0"], "--real 0: must be 1 to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_options_that_make_no_sense_end_with_2(arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE, err
    assert out == ""
    assert said in err


def test_schedules_are_run_by_the_same_command() -> None:
    code, out, err = run("--schedule", "model.raises@120+5", "--seed", "3")
    assert code == ExitCode.OK, err
    assert "simulated machine" in out


def test_a_missing_model_ends_with_4() -> None:
    code, _, err = run("model.nan", "--model", "nowhere", "--where", "flat")
    assert code == ExitCode.MODEL_UNAVAILABLE
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.hang", "--at", "3"], "asked from bar 32 on"),
        (["model.hang", "--bars", "99999999"], "at most 100,000"),
        (["--all", "model.hang"], "exclude each other"),
        (["nosuch"], "all of them: --list"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE
    assert out == ""
    assert said in err
    assert len(err) < 200


def test_kills_are_counted_and_cost_no_signal() -> None:
    code, out, err = run("--kills", "2", "--json")
    assert code == ExitCode.OK, err
    found = json.loads(out)
    assert found["kills"] == 2
    assert found["signals"] == found["bars"]
    assert found["levels"]["SMART"] >= 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--kills", "0"],
        ["--kills", "2", "--all"],
        ["--kills", "2", "--real", "1"],
        ["--kills", "2", "--engine", "native"],
        ["--kills", "2", "--deadline-ms", "1"],
        ["--kills", "2", "--deadline-ms", "nan"],
    ],
)
def test_kills_that_make_no_sense_are_usage_errors(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE
    assert out == ""
    assert len(err.strip().splitlines()) == 1
