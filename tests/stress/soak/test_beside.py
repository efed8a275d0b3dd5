"""A system that has gone on for hours beside one that has just begun."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.soak.beside import AGED_MIN_S, PAIRS, PAIRS_MIN, SHARE, by_turns, pairs_for, slower
from stress.soak.staff import WorkerDied


@given(age_s=st.floats(0.0, 1e6), segment_s=st.floats(0.0, 1e5))
def test_the_comparison_takes_no_more_than_its_share_of_the_time(age_s: float, segment_s: float) -> None:
    pairs = pairs_for(age_s, segment_s)
    assert pairs == 0 or PAIRS_MIN <= pairs <= PAIRS
    assert pairs == 0 or (age_s >= AGED_MIN_S and 2.0 * (pairs + 1) * segment_s <= SHARE * age_s * (1 + 1e-9))


def test_an_hour_has_time_for_all_pairs_of_either_model() -> None:
    assert pairs_for(3_600.0, 11.5) == pairs_for(3_600.0, 34.0) == PAIRS
    assert pairs_for(180.0, 11.5) == 0


def test_few_pairs_say_nothing() -> None:
    assert slower([1.0] * (PAIRS_MIN - 1), [1.0] * (PAIRS_MIN - 1)) is None


@pytest.mark.parametrize("pairs", [PAIRS_MIN, PAIRS])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_the_interval_covers_what_is_true_as_often_as_it_says(pairs: int, ratio: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(2_000):
        # The machine is anything from half to twice as fast in each pair.
        fresh = np.exp(rng.uniform(-0.7, 0.7, pairs))
        found = slower(ratio * fresh * np.exp(rng.normal(0, 0.1, pairs)), fresh)
        assert found is not None and found.lower <= found.estimate <= found.upper
        covered += found.lower <= ratio - 1.0 <= found.upper
    assert 0.93 < covered / 2_000 < 0.97


class Gone:
    """A worker that died when nobody listened: it says nothing, and its end was heard of already."""

    heard_at = 0.0
    exit_code = -9

    def __init__(self, role: str) -> None:
        self.role = role

    def tell(self, message: object) -> None:
        """It does not hear."""

    def kill(self) -> None:
        """It is dead."""


def test_one_that_plays_and_is_dead_already_is_not_waited_for_without_end() -> None:
    looks = 0

    def look_around() -> None:
        nonlocal looks
        looks += 1
        assert looks < 3, "it waits for ever"

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    aged: Any = Gone("trading")
    with pytest.raises(WorkerDied, match="the trading process died: signal 9"):
        list(by_turns(aged, Gone("fresh"), inbox, 5, PAIRS_MIN, -1.0, look_around))  # type: ignore[arg-type]
