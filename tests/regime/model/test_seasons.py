"""Volatility profiles of simulated series: they repeat, and not all series have one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.model.seasons import MAX_PERIOD_BARS, seasonality


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 50), bars=st.integers(1, 600))
def test_a_season_is_a_positive_factor_for_every_bar_and_the_same_again(seed: int, count: int, bars: int) -> None:
    factors = seasonality(np.random.default_rng(seed), count, bars)
    assert factors.shape == (count, bars)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()
    np.testing.assert_array_equal(factors, seasonality(np.random.default_rng(seed), count, bars))


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    """Long enough for the longest day to come three times."""
    return seasonality(np.random.default_rng(3), 1000, 3 * MAX_PERIOD_BARS)


def repeats(row: np.ndarray) -> bool:
    """Whether a row is the same again after some number of bars up to the longest period."""
    return any(np.array_equal(row[:-period], row[period:]) for period in range(3, MAX_PERIOD_BARS + 1))


def test_three_series_in_ten_have_no_season(factors: np.ndarray) -> None:
    flat = (factors == 1.0).all(axis=1).mean()
    assert 0.25 < flat < 0.35


def test_most_seasons_repeat_day_by_day_and_some_know_weekdays_or_shift(factors: np.ndarray) -> None:
    seasonal = factors[(factors != 1.0).any(axis=1)]
    exact = np.mean([repeats(row) for row in seasonal])
    assert 0.6 < exact < 0.9


def test_some_openings_tower_over_the_rest_of_the_day(factors: np.ndarray) -> None:
    height = factors.max(axis=1) / np.median(factors, axis=1)
    assert (height > 3.0).mean() > 0.05
    assert height.max() < 100.0
