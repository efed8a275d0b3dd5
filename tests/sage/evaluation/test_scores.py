"""Every score against a closed form or a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from regime.forecast import QUANTILE_LEVELS, pinball
from sage.evaluation.scores import (
    block_length,
    coverage,
    diebold_mariano,
    qlike,
    relative_differences,
    shares_below,
)

NORMAL = np.array([stats.norm.ppf(level) for level in QUANTILE_LEVELS])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_pinball_is_what_a_loop_by_its_definition_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcomes, quantiles = rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 9))
    found = pinball(outcomes, quantiles)
    for row in range(3):
        for step in range(2):
            total = 0.0
            for at, level in enumerate(QUANTILE_LEVELS):
                missed = outcomes[row, step] - quantiles[row, step, at]
                total += level * missed if missed >= 0 else (level - 1.0) * missed
            assert found[row, step] == pytest.approx(total / 9, rel=1e-12)


def test_true_quantiles_have_the_least_pinball_loss_and_twice_it_is_near_the_crps() -> None:
    outcomes = np.random.default_rng(1).normal(size=(40_000, 1))
    true = np.broadcast_to(NORMAL, (40_000, 1, 9))
    losses = [pinball(outcomes, factor * true).mean() for factor in (0.8, 1.0, 1.25)]
    assert min(losses) == losses[1]
    # A standard normal forecast of itself has CRPS 1 / sqrt(pi); nine quantiles leave out tails with less loss.
    assert 2 * losses[1] == pytest.approx(1 / math.sqrt(math.pi), rel=0.15)
    assert 2 * losses[1] > 1 / math.sqrt(math.pi)


def test_true_quantiles_cover_80_percent_and_are_reliable() -> None:
    outcomes = np.random.default_rng(2).normal(size=(20_000, 2))
    quantiles = np.broadcast_to(NORMAL, (20_000, 2, 9))
    assert coverage(outcomes, quantiles) == pytest.approx(0.8, abs=0.007)
    assert shares_below(outcomes, quantiles) == pytest.approx(np.array(QUANTILE_LEVELS), abs=0.007)


def test_coverage_counts_outcomes_on_the_edge_as_inside() -> None:
    quantiles = np.broadcast_to(np.linspace(-1.0, 1.0, 9), (4, 1, 9))
    assert coverage(np.array([[-1.0], [1.0], [1.1], [-1.1]]), quantiles) == 0.5


def test_qlike_is_least_at_the_true_variance_and_bears_a_return_of_zero() -> None:
    realised = np.random.default_rng(3).normal(size=50_000) ** 2 * 4.0
    losses = [qlike(np.full(50_000, variance), realised).mean() for variance in (3.5, 4.0, 4.6)]
    assert min(losses) == losses[1] == pytest.approx(math.log(4.0) + 1.0, abs=0.02)
    assert qlike(np.array([2.0]), np.array([0.0]))[0] == pytest.approx(math.log(2.0))


def test_diebold_mariano_for_one_step_is_a_t_test_of_the_mean_difference() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=200) + 0.1, rng.normal(size=200)
    found, known = diebold_mariano(first, second, 1), stats.ttest_1samp(first - second, 0.0)
    # At one step the small-sample correction turns n into n - 1, which is the t-test.
    assert found.statistic == pytest.approx(known.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-10)


def test_diebold_mariano_over_several_steps_is_newey_west_by_hand() -> None:
    difference, ahead = np.random.default_rng(5).normal(size=50) + 0.2, 3
    n, mean = len(difference), difference.mean()
    autocovariance = [
        sum((difference[i] - mean) * (difference[i - k] - mean) for i in range(k, n)) / n for k in (0, 1, 2)
    ]
    variance = autocovariance[0] + 2 * (2 / 3) * autocovariance[1] + 2 * (1 / 3) * autocovariance[2]
    correction = math.sqrt((n + 1 - 2 * ahead + ahead * (ahead - 1) / n) / n)
    expected = mean / math.sqrt(variance / n) * correction
    found = diebold_mariano(difference, np.zeros(50), ahead)
    assert found.statistic == pytest.approx(expected, rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(expected), n - 1), rel=1e-10)


def test_diebold_mariano_rejects_as_often_as_it_says_where_losses_overlap() -> None:
    rng, ahead, rejected = np.random.default_rng(6), 4, 0
    for _ in range(400):
        noise = np.convolve(rng.normal(size=500), np.ones(ahead), "valid")
        rejected += diebold_mariano(noise, np.zeros_like(noise), ahead).p_value < 0.05
    # Bartlett's weights are known to reject a little too often; without any lag it is a third.
    assert rejected / 400 < 0.14


def test_diebold_mariano_of_equal_or_constantly_different_losses() -> None:
    losses = np.arange(50.0)
    assert diebold_mariano(losses, losses, 2).p_value == 1.0
    assert diebold_mariano(losses, losses + 1.0, 2).p_value == 0.0
    with pytest.raises(ValueError, match="too few"):
        diebold_mariano(losses[:8], losses[:8], 4)


def test_relative_differences_are_ratios_of_means_with_honest_errors() -> None:
    rng = np.random.default_rng(7)
    values, errors = [], []
    for _ in range(60):
        baseline = rng.gamma(4.0, 1.0, size=800)
        model = 1.02 * baseline + rng.normal(0.0, 0.5, size=800)
        found = relative_differences(np.stack([model, baseline, model], axis=1), 1, 200, seed=1)
        assert found.values[0] == pytest.approx(model.mean() / baseline.mean() - 1.0)
        assert found.values[1] == found.standard_errors[1] == 0.0
        values.append(found.values[0])
        errors.append(found.standard_errors[0])
    assert np.mean(values) == pytest.approx(0.02, abs=0.002)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_bootstrap_errors_know_that_overlapping_losses_are_not_independent() -> None:
    rng, ahead = np.random.default_rng(8), 8
    noise = np.convolve(rng.normal(size=3_007), np.ones(ahead) / ahead, "valid")
    losses = np.stack([10.0 + noise, np.full(3_000, 10.0)], axis=1)
    found = relative_differences(losses, ahead, 400, seed=2)
    # The long-run deviation of a moving average of unit noise is one.
    assert found.standard_errors[0] == pytest.approx(1.0 / math.sqrt(3_000) / 10.0, rel=0.25)
    assert found.block_bars >= 2 * ahead


def test_blocks_span_two_horizons_and_no_more_than_a_tenth_of_the_rows() -> None:
    white = np.random.default_rng(9).normal(size=(2_000, 1))
    assert block_length(white, 16) == 32
    assert block_length(np.zeros((2_000, 2)), 16) == 32
    assert 32 < block_length(np.cumsum(white, axis=0), 16) <= 200
    assert block_length(np.cumsum(white[:600], axis=0), 2) <= 60


def test_the_same_seed_gives_the_same_errors() -> None:
    losses = np.random.default_rng(10).gamma(4.0, 1.0, size=(500, 3))
    first, again = (relative_differences(losses, 4, 100, seed=3) for _ in range(2))
    assert np.array_equal(first.standard_errors, again.standard_errors)
