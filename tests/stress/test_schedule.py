"""Schedules as text, by chance, and shrunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import OptionError
from stress.schedule import Planted, Schedule, parse_schedule, random_schedule, shrunk

LENGTHS = {"model.hang": 40, "model.nan": 40, "data.spike": 2, "clock.jump_back": 30, "machine.busy": 10}
BARS = 320
UNTIL = 180


@given(st.integers(0, 10**9))
def test_a_schedule_reads_as_it_is_written(seed: int) -> None:
    schedule = random_schedule(seed, LENGTHS, UNTIL)
    assert parse_schedule(str(schedule), seed, list(LENGTHS), BARS) == schedule


@given(st.integers(0, 10**9))
def test_a_random_schedule_keeps_within_its_bounds(seed: int) -> None:
    schedule = random_schedule(seed, LENGTHS, UNTIL)
    assert 1 <= len(schedule.planted) <= 5
    for one in schedule.planted:
        assert 1 <= one.bars <= LENGTHS[one.name]
        assert one.at >= 1
        assert one.end <= UNTIL


def test_no_fault_begins_while_it_is_on() -> None:
    for seed in range(500):
        planted = random_schedule(seed, LENGTHS, UNTIL).planted
        for one in planted:
            assert not any(one is not other and one.name == other.name and other.at <= one.at < other.end
                           for other in planted)  # fmt: skip


def test_most_schedules_have_faults_that_overlap() -> None:
    schedules = [random_schedule(seed, LENGTHS, UNTIL) for seed in range(500)]
    overlapping = sum(
        any(other.at < one.end and one.at < other.end for one in schedule.planted for other in schedule.planted
            if one is not other)
        for schedule in schedules
    )  # fmt: skip
    assert overlapping > 150


def test_equal_seeds_make_equal_schedules_and_others_other_ones() -> None:
    assert random_schedule(5, LENGTHS, UNTIL) == random_schedule(5, LENGTHS, UNTIL)
    assert len({str(random_schedule(seed, LENGTHS, UNTIL)) for seed in range(100)}) > 95


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.hang", "write fault@bar"),
        ("model.hang@10", "write fault@bar"),
        ("model.hang@ten+2", "write fault@bar"),
        ("model.hung@10+2", "near it: model.hang"),
        ("model.hang@0+2", "bar 1 to 320"),
        ("model.hang@321+2", "bar 1 to 320"),
        ("model.hang@10+0", "last 1 to 320"),
        ("", "names no fault"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_schedule(text, 1, list(LENGTHS), BARS)


def test_a_failing_schedule_shrinks_to_what_makes_it_fail() -> None:
    schedule = parse_schedule(
        "model.nan@20+9,machine.busy@40+10,model.hang@60+40,data.spike@77+2,clock.jump_back@80+30", 3,
        list(LENGTHS), BARS,
    )  # fmt: skip

    def fails(candidate: Schedule) -> bool:
        """A hang of five bars or more together with a spike."""
        names = {one.name: one for one in candidate.planted}
        return "data.spike" in names and "model.hang" in names and names["model.hang"].bars >= 5

    smallest = shrunk(schedule, fails)
    assert smallest.seed == schedule.seed
    assert smallest.planted == (Planted(1, 1, "data.spike"), Planted(1, 5, "model.hang"))


def test_shrinking_stops_after_the_runs_it_is_allowed() -> None:
    schedule, runs = random_schedule(9, LENGTHS, UNTIL), 0

    def fails(candidate: Schedule) -> bool:
        nonlocal runs
        runs += 1
        return True

    shrunk(schedule, fails, tries=7)
    assert runs <= 7
