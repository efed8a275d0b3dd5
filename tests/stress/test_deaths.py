"""A model process that is killed again and again: nothing is lost, nothing grows, nothing is left."""

from __future__ import annotations

import pytest

from regime.signal import Level
from stress.deaths import DeathsConfig, as_document, kill_repeatedly


def test_five_deaths_cost_levels_and_no_signal() -> None:
    report = kill_repeatedly(DeathsConfig(kills=5))
    assert report.problems == []
    assert report.kills == len(report.recovery_bars) == 5
    assert report.signals == report.bars
    assert report.levels[Level.FULL] >= 5 * 20
    assert report.levels[Level.SMART] > 0
    assert set(report.levels) <= {Level.FULL, Level.SMART}
    # Whoever looks first finds the death: a bar, or the watcher, and then the next bar finds nobody there.
    assert report.reasons["MODEL_DIED"] + report.reasons["MODEL_UNAVAILABLE"] >= 5
    assert as_document(report)["passed"]


def test_a_process_that_does_not_come_back_in_time_is_a_problem() -> None:
    report = kill_repeatedly(DeathsConfig(kills=2, patience_bars=1))
    assert report.kills == 1
    assert not as_document(report)["passed"]
    assert "no recovery within 1 bars of kill 1" in report.problems


@pytest.mark.long
def test_two_hundred_and_fifty_deaths_leave_memory_and_descriptors_flat() -> None:
    report = kill_repeatedly(DeathsConfig())
    assert report.problems == []
    assert report.kills == 250
