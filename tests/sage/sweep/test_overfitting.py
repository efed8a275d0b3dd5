"""Noise is overfitted half of the time; an edge that lasts is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.sweep.overfitting import probability_of_overfitting
from stress.luck_study import simulated_returns

SEEDS = 100


def mean_probability(edge: float, blocks: int) -> float:
    found = [probability_of_overfitting(simulated_returns(0.0, 3_000 + seed, edge), blocks) for seed in range(SEEDS)]
    return float(np.mean([one.probability for one in found if one is not None]))


@pytest.mark.parametrize("blocks", [10, pytest.param(16, marks=pytest.mark.long)])
def test_noise_is_overfitted_half_of_the_time(blocks: int) -> None:
    assert 0.44 <= mean_probability(0.0, blocks) <= 0.56


@pytest.mark.parametrize("blocks", [10, pytest.param(16, marks=pytest.mark.long)])
def test_a_planted_edge_is_seldom_overfitted(blocks: int) -> None:
    assert mean_probability(6.0, blocks) < 0.1


@settings(max_examples=15)
@given(seed=st.integers(0, 1_000), shift=st.floats(-1.0, 1.0), scale=st.floats(0.1, 10.0))
def test_it_is_a_probability_of_ranks_and_takes_no_unit(seed: int, shift: float, scale: float) -> None:
    returns = simulated_returns(0.0, seed, trials=7, days=96)
    found, scaled = (probability_of_overfitting(one, 8) for one in (returns, scale * returns))
    assert found is not None and scaled is not None and 0.0 <= found.probability <= 1.0
    assert found.splits == 70 and found.probability == pytest.approx(scaled.probability, abs=0.03)


def test_where_trials_are_all_alike_nothing_is_chosen_and_nothing_judged() -> None:
    same = np.repeat(simulated_returns(0.0, 1, trials=1), 5, axis=1)
    assert probability_of_overfitting(same, 8) is None
    same[7, 2] += 1e-3
    assert probability_of_overfitting(same, 8) is not None


@pytest.mark.parametrize("shape", [(100, 1), (6, 5), (0, 5)])
def test_too_little_is_not_judged(shape: tuple[int, int]) -> None:
    assert probability_of_overfitting(np.zeros(shape)) is None
