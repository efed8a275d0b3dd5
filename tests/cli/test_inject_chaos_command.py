"""``sage inject-fault --schedules``, ``--schedule`` and ``--real``: what they print and how they end."""

from __future__ import annotations

import functools
import json

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from stress import chaos_runs
from tests.stress.broken_builds import StuckBreaker

SCHEDULE = "model.raises@60+10,data.nan@64+2"


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inject-fault", *arguments])


def test_random_schedules_end_well_with_a_table() -> None:
    done = sage("--schedules", "3", "--seed", "5")
    assert done.exit_code == 0, done.output
    assert "SAGE chaos, simulated machine" in done.stdout
    assert "all kept" in done.stdout
    assert "schedules of faults" not in done.stdout


def test_one_schedule_is_run_and_told_to_machines() -> None:
    done = sage("--schedule", SCHEDULE, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)["simulated"]
    assert report["faults"] == {"data.nan": 1, "model.raises": 1}
    assert report["schedules"] == report["run_again"] == 1
    assert report["breaker_openings"] == 1
    assert sum(report["levels"].values()) == 320 - 2
    assert report["violating"] == 0


def test_a_violation_ends_with_exit_code_1_and_what_to_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = functools.partial(chaos_runs.run_one, rig_type=StuckBreaker)
    monkeypatch.setattr(chaos_runs, "run_one", broken)
    done = sage("--schedule", SCHEDULE, "--seed", "7")
    assert done.exit_code == 1
    assert f"--seed 7 --schedule '{SCHEDULE}'" in done.stdout
    smallest = next(line for line in done.stdout.splitlines() if line.strip().startswith("smallest"))
    assert "--seed 7 --schedule 'model.raises@" in smallest
    assert "data.nan" not in smallest
    assert "invariant 6 (level 0 returns)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--schedules", "0"), "--schedules 0: must be 1"),
        (("--schedules", "5", "--seed", "-1"), "--seed -1: must not be negative"),
        (("--real", "0"), "--real 0: must be 1"),
        (("--schedule", "model.hung@3+4"), "near it: model.hang"),
        (("--schedule", "model.hang"), "write fault@bar+bars"),
        (("--schedule", "model.hang@9999+1"), "bar 1 to 320"),
        (("--schedule", SCHEDULE, "--seed", "-1"), "--seed -1: must not be negative"),
        (("--schedule", SCHEDULE, "--schedules", "4"), "give one of them"),
        (("--schedules", "4", "--where", "flat"), "has no meaning for schedules"),
        (("--real", "1", "--schedule", "machine.busy@10+4"), "no fault 'machine.busy' that a schedule can hold"),
        (("--real", "1", "--model", "nowhere"), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(arguments: tuple[str, ...], said: str) -> None:
    done = sage(*arguments)
    assert done.exit_code == (4 if "nowhere" in arguments else 2), done.output
    assert said in done.stderr
    assert not done.stdout
