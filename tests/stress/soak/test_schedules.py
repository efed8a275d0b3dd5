"""Which faults a segment holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stress.soak.config import FaultLoad
from stress.soak.schedules import LAST_SHARE, LIGHT_EVERY, segment_schedule

LENGTHS = {"model.hang": 40, "data.nan": 10, "signal.stale": 20}


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(500, 5_000))
def test_faults_end_early_enough_for_what_they_broke_to_mend(seed: int, segment: int, bars: int) -> None:
    schedule = segment_schedule(FaultLoad.HEAVY, seed, segment, bars, LENGTHS)
    assert schedule.planted and schedule.end <= LAST_SHARE * bars
    assert schedule == segment_schedule(FaultLoad.HEAVY, seed, segment, bars, LENGTHS)


def test_light_faults_come_one_at_a_time_in_one_segment_of_four() -> None:
    planted = [segment_schedule(FaultLoad.LIGHT, 1, segment, 1_000, LENGTHS).planted for segment in range(40)]
    assert [bool(found) for found in planted] == [number % LIGHT_EVERY == LIGHT_EVERY - 1 for number in range(40)]
    assert max(map(len, planted)) == 1


def test_without_faults_nothing_is_planted() -> None:
    assert not any(segment_schedule(FaultLoad.NONE, 1, segment, 1_000, LENGTHS).planted for segment in range(9))
