"""The winner of many trials is called good when it is, and seldom when it is not, however alike the trials are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from sage.sweep import deflation
from sage.sweep.deflation import (
    clusters_of,
    deflated_sharpe,
    expected_maximum,
    probabilistic_sharpe,
    sharpes,
)
from stress.luck_study import CORRELATIONS, DAYS, FIRST_SEED, SEEDS, called_good, edges_found, simulated_returns


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_of_four_hundred_sweeps_without_merit_at_most_thirty_have_a_winner(correlation: float) -> None:
    good, naive = called_good(correlation, SEEDS)
    assert good <= 30
    if not correlation:
        # As if it had been the only one, the winner of two hundred would nearly always look good.
        assert naive > SEEDS / 2


def test_clusters_of_all_sizes_have_no_more_winners() -> None:
    def grouped(seed: int) -> np.ndarray:
        sizes = (100, 40, 20, 10, 5, *(1,) * 25)
        return np.concatenate(
            [simulated_returns(0.8, 1_000 * seed + number, trials=size) for number, size in enumerate(sizes)], axis=1
        )

    found = [deflated_sharpe(grouped(FIRST_SEED + seed)) for seed in range(SEEDS)]
    assert sum(one is not None and one.is_significant for one in found) <= 30


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_trials_of_before_count_however_alike_those_of_now_are(correlation: float) -> None:
    now = simulated_returns(correlation, 3, trials=20)
    alone, after = deflated_sharpe(now), deflated_sharpe(now, idle_trials=200)
    assert alone is not None and after is not None
    assert after.expected_sharpe > 1.2 * alone.expected_sharpe and after.probability < alone.probability
    assert after.trials == 220
    one, many = deflated_sharpe(now[:, :1]), deflated_sharpe(now[:, :1], idle_trials=200)
    assert one is not None and many is not None
    # The only trial of now, and yet the 201st.
    assert one.probability == one.naive_probability > many.probability
    assert many.expected_sharpe == pytest.approx(expected_maximum(201) / np.sqrt(DAYS - 1))


def test_trials_of_before_that_are_alike_count_less() -> None:
    now, same, other = (
        simulated_returns(0.0, 3, trials=5),
        simulated_returns(0.99, 4, trials=100),
        simulated_returns(0.0, 5, trials=100),
    )
    alike, unlike = deflated_sharpe(now, earlier=same), deflated_sharpe(now, earlier=other)
    assert alike is not None and unlike is not None
    assert alike.trials == unlike.trials == 105 and alike.clusters == 6 and unlike.clusters == 105
    assert alike.winner == unlike.winner < 5
    assert alike.expected_sharpe < unlike.expected_sharpe


def test_a_planted_edge_is_found() -> None:
    assert edges_found(100) >= 80


@pytest.mark.parametrize("trials", [5, 10, 200, 5_000])
def test_the_expected_maximum_is_that_of_independent_normal_values(trials: int) -> None:
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((4_000 if trials <= 200 else 400, trials)).max(axis=1)
    assert expected_maximum(trials) == pytest.approx(drawn.mean(), abs=0.06)
    assert expected_maximum(1) == 0.0


def test_without_skew_and_fat_tails_the_probability_is_that_of_lo() -> None:
    returns = np.random.default_rng(3).normal(0.05, 1.0, 2_000)
    ratio = returns.mean() / returns.std(ddof=1)
    error = np.sqrt((1.0 + 0.5 * ratio**2) / (len(returns) - 1))
    assert probabilistic_sharpe(returns) == pytest.approx(norm.cdf(ratio / error), abs=0.005)


def test_trials_that_are_alike_are_one_cluster() -> None:
    rng = np.random.default_rng(2)
    groups = [
        np.sqrt(0.9) * rng.standard_normal((DAYS, 1)) + np.sqrt(0.1) * rng.standard_normal((DAYS, size))
        for size in (3, 5, 1)
    ]
    cluster = clusters_of(np.concatenate(groups, axis=1))
    assert len(set(cluster[:3])) == len(set(cluster[3:8])) == 1
    assert len(set(cluster)) == 3


def test_of_very_many_trials_some_make_the_clusters_and_the_rest_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    ideas = [simulated_returns(0.9, seed, trials=size) for seed, size in enumerate((150, 100, 1, 1))]
    returns = np.concatenate(ideas, axis=1)
    all_at_once = deflated_sharpe(returns)
    monkeypatch.setattr(deflation, "CLUSTERED_MAX", 40)
    some = clusters_of(returns)
    assert len(set(some[:150])) == len(set(some[150:250])) == 1 and len(set(some)) == 4
    assert set(some) == set(range(4))
    found = deflated_sharpe(returns)
    assert all_at_once is not None and found is not None
    assert found.expected_sharpe == pytest.approx(all_at_once.expected_sharpe)


@settings(max_examples=30)
@given(trials=st.integers(1, 30), idle=st.integers(0, 500), seed=st.integers(0, 10_000))
def test_more_trials_never_make_the_winner_better(trials: int, idle: int, seed: int) -> None:
    returns = simulated_returns(0.3, seed, trials=trials, days=120)
    few, many = deflated_sharpe(returns), deflated_sharpe(returns, idle_trials=idle)
    assert few is not None and many is not None
    assert many.trials == few.trials + idle
    assert many.expected_sharpe >= few.expected_sharpe - 1e-12
    assert many.probability <= few.probability + 1e-12
    assert few.sharpe == many.sharpe == pytest.approx(sharpes(returns).max())


def test_a_winner_of_a_few_days_is_never_called_more_than_luck() -> None:
    returns = np.zeros((57, 2))
    returns[:19, 0], returns[:20, 1] = 0.01, 0.001
    few = deflated_sharpe(returns[:, :1])
    enough = deflated_sharpe(returns[:, 1:])
    assert few is not None and enough is not None
    assert few.probability > 0.99 and few.moving == 19 and not few.is_significant
    assert enough.moving == 20 and enough.is_significant


def test_what_never_moves_counts_as_a_trial_and_cannot_win() -> None:
    returns = np.concatenate([np.zeros((DAYS, 2)), simulated_returns(0.0, 1, trials=3)], axis=1)
    found = deflated_sharpe(returns)
    assert found is not None and found.trials == 5 and found.winner >= 2


@pytest.mark.parametrize("returns", [np.zeros((100, 3)), simulated_returns(0.0, 1)[:10], np.empty((100, 0))])
def test_too_little_is_not_judged(returns: np.ndarray) -> None:
    assert deflated_sharpe(returns) is None
