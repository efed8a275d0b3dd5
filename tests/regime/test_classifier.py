"""Regimes are scale-free, causal, and do not flicker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.classifier import EwmaVolatility, RegimeClassifier, TrendFilter, two_means_split
from regime.config import ClassifierConfig
from regime.signal import Direction, VolatilityState


def volatility_path(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """EWMA volatility of returns that switch between two states every 250 bars, and the true state."""
    rng = np.random.default_rng(seed)
    turbulent = (np.arange(3000) // 250) % 2 == 1
    filtered = EwmaVolatility(0.94)
    found = np.empty(3000)
    for index, (scale, shock) in enumerate(zip(np.where(turbulent, 0.025, 0.01), rng.normal(size=3000), strict=True)):
        filtered.update(scale * shock)
        found[index] = filtered.value
    return found, turbulent


@pytest.mark.parametrize("seed", range(3))
def test_two_volatility_states_are_told_apart(seed: int) -> None:
    path, turbulent = volatility_path(seed)
    classifier = RegimeClassifier(ClassifierConfig())
    states = np.array([classifier.classify(0.0, value).volatility_state is VolatilityState.HIGH for value in path])
    settled = slice(600, None)
    recall = [(states[settled] == truth)[turbulent[settled] == truth].mean() for truth in (True, False)]
    assert np.mean(recall) > 0.9, f"seed {seed}"
    assert np.mean(states[1:] != states[:-1]) < 0.02


@given(st.floats(1e-4, 1e4))
def test_the_scale_of_prices_does_not_matter(scale: float) -> None:
    path, _ = volatility_path(0)
    one, other = RegimeClassifier(ClassifierConfig()), RegimeClassifier(ClassifierConfig())
    first = [one.classify(0.0, value).volatility_state for value in path[:400]]
    # A power of two, so that no rounding decides a bar that lies on the threshold.
    factor = 2.0 ** round(np.log2(scale))
    second = [other.classify(0.0, factor * value).volatility_state for value in path[:400]]
    assert np.mean([left == right for left, right in zip(first, second, strict=True)]) > 0.99


def test_a_direction_begins_beyond_one_threshold_and_ends_within_another() -> None:
    config = ClassifierConfig(enter_trend=1.0, leave_trend=0.3)
    classifier = RegimeClassifier(config)
    trends = [0.5, 1.1, 0.5, 0.31, 0.2, 0.9, -1.2, -0.4, -0.2]
    found = [classifier.classify(trend, 0.01).direction for trend in trends]
    bull, bear, side = Direction.BULL, Direction.BEAR, Direction.SIDEWAYS
    assert found == [side, bull, bull, bull, side, side, bear, bear, side]


def test_a_bar_that_knows_no_direction_leaves_the_regime_as_it_was() -> None:
    classifier = RegimeClassifier(ClassifierConfig())
    classifier.classify(3.0, 0.01)
    assert classifier.classify(None, 0.01).direction is Direction.UNKNOWN
    assert classifier.classify(0.5, 0.01).direction is Direction.BULL


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(1e-5, 1.0)), max_size=120))
def test_transition_probability_is_a_probability(stream: list[tuple[float, float]]) -> None:
    classifier = RegimeClassifier(ClassifierConfig())
    for trend, volatility in stream:
        assert 0.0 < classifier.classify(trend, volatility).transition_probability < 1.0


def test_one_cloud_of_values_is_not_split() -> None:
    assert two_means_split(np.full(200, -4.0)) is None
    assert two_means_split(np.array([-4.0, -1.0])) is None


def test_two_clouds_are_split_between_them() -> None:
    rng = np.random.default_rng(0)
    found = two_means_split(np.concatenate([rng.normal(-5, 0.1, 300), rng.normal(-4, 0.1, 80)]))
    assert found is not None
    assert found[0] == pytest.approx(-4.5, abs=0.05)
    assert found[1] == pytest.approx(1.0, abs=0.05)


def test_the_trend_is_a_z_score_under_no_trend() -> None:
    rng = np.random.default_rng(0)
    trend = TrendFilter(128)
    values = np.array([trend.update(shock) for shock in rng.normal(size=60_000)])
    assert values[1000:].std() == pytest.approx(1.0, abs=0.1)
    assert values[1000:].mean() == pytest.approx(0.0, abs=0.15)
