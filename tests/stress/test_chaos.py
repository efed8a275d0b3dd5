"""Random schedules of faults keep every invariant; and each broken build is caught by them."""

from __future__ import annotations

import pytest

from data.errors import OptionError
from regime.signal import Level
from stress import real_chaos
from stress.chaos import (
    BARS,
    FAULTS_UNTIL,
    chaos_config,
    fault_lengths,
    judge,
    known_faults,
    play,
    recovery_bar,
    run_hash,
    usable_faults,
)
from stress.chaos_runs import ChaosConfig, ChaosReport, run_one, run_schedules, schedule_of, smallest_of
from stress.faults import FAULTS
from stress.invariants import Violation
from stress.schedule import parse_schedule
from stress.witness import ChaosRig
from tests.stress.broken_builds import BROKEN, StuckBreaker, UnseededChance

SHORT_SCHEDULES = 100
LONG_SCHEDULES = 10_000
WITHIN_SCHEDULES = 500


def told(report: ChaosReport) -> str:
    return "; ".join(f"--seed {one.schedule.seed} --schedule {one.schedule} {one.violations}" for one in report.found)


@pytest.fixture(scope="module")
def report() -> ChaosReport:
    return run_schedules(ChaosConfig(SHORT_SCHEDULES, seed=1, again_every=25))


def test_random_schedules_keep_every_invariant(report: ChaosReport) -> None:
    assert report.schedules == SHORT_SCHEDULES
    assert report.run_again == SHORT_SCHEDULES // 25
    assert not report.violating, told(report)


def test_the_schedules_are_worth_the_name(report: ChaosReport) -> None:
    """Every level was reached, breakers opened, processes were replaced, and no fault was forgotten."""
    assert all(report.levels[level.name] > SHORT_SCHEDULES / 2 for level in Level)
    assert report.breaker_openings > SHORT_SCHEDULES / 2
    assert report.restarts > SHORT_SCHEDULES / 10
    assert set(report.faults) == set(fault_lengths())


@pytest.mark.long
def test_ten_thousand_schedules_keep_every_invariant() -> None:
    report = run_schedules(ChaosConfig(LONG_SCHEDULES, seed=1_000))
    assert not report.violating, told(report)


@pytest.mark.parametrize(("build", "invariant"), BROKEN.items(), ids=[build.__name__ for build in BROKEN])
def test_a_broken_build_is_caught(build: type[ChaosRig], invariant: int) -> None:
    for seed in range(1, WITHIN_SCHEDULES + 1):
        found = judge(schedule_of(seed), build, again=invariant in {2, 7}).violations
        if any(violation.invariant == invariant for violation in found):
            return
    pytest.fail(f"no schedule of {WITHIN_SCHEDULES} violates invariant {invariant}")


def test_everything_that_needs_no_more_than_a_stage_takes_part() -> None:
    assert set(usable_faults()) == {name for name, fault in FAULTS.items() if not fault.needs}
    assert {name.partition(".")[0] for name in fault_lengths()} >= {"model", "data", "clock", "calibration", "machine"}


def test_a_violating_schedule_is_shrunk_and_still_violates() -> None:
    verdict = judge(schedule_of(1), StuckBreaker)
    smallest = smallest_of(verdict, StuckBreaker)
    assert smallest.violations[0].invariant == verdict.violations[0].invariant == 6
    assert len(smallest.schedule.planted) == 1
    assert smallest.schedule.planted[0].bars < max(one.bars for one in verdict.schedule.planted)


def test_a_schedule_can_be_replayed_from_its_text() -> None:
    schedule = schedule_of(11)
    again = parse_schedule(str(schedule), schedule.seed, list(fault_lengths()), BARS)
    assert run_hash(again) == run_hash(schedule) != ""


def test_one_schedule_is_held_against_another_process() -> None:
    assert run_one(schedule_of(3)).run_again == 1
    found = run_one(schedule_of(3), UnseededChance).found[0].violations
    assert any("another process" in violation.what for violation in found if violation.invariant == 7)


def test_a_schedule_with_another_seed_runs_on_another_machine() -> None:
    text = "model.slow@60+10"
    one, other = (parse_schedule(text, seed, list(fault_lengths()), BARS) for seed in (8, 16))
    # The same market (seeds take turns on eight), and other latencies.
    assert play(one).evidence.run.market is play(other).evidence.run.market  # type: ignore[union-attr]
    took = [[seen.took_s for seen in play(schedule).evidence.seen] for schedule in (one, other)]
    assert took[0] != took[1]


@pytest.mark.parametrize("config", [ChaosConfig(0), ChaosConfig(-3), ChaosConfig(5, seed=-1)])
def test_impossible_numbers_are_refused(config: ChaosConfig) -> None:
    with pytest.raises(OptionError, match="--s"):
        run_schedules(config)


def test_nearly_every_schedule_leaves_level_0_the_time_to_return() -> None:
    """Where the bound lies beyond the run's end, invariant 6 says nothing."""
    faults, config = known_faults(), chaos_config()
    beyond = [seed for seed in range(2_000) if recovery_bar(schedule_of(seed), faults, config) > BARS]
    assert len(beyond) < 100


def test_a_real_model_process_keeps_them_too() -> None:
    schedules = [
        parse_schedule(text, 5, list(real_chaos.real_lengths()), real_chaos.BARS)
        for text in ("model.dies@60+1,model.crossed@64+8", "model.hang@50+12,data.nan@55+2")
    ]
    report = real_chaos.run_real(schedules)
    assert not report.violating, told(report)
    assert report.restarts >= 1
    assert report.levels["SMART"] > 0


def test_a_violation_says_which_invariant_and_where() -> None:
    assert (
        str(Violation(4, 17, "took 60 ms")) == "invariant 4 (a signal is out within its deadline), bar 17: took 60 ms"
    )
    assert FAULTS_UNTIL < BARS
