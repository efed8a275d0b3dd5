"""Regimes are scale-free, causal, and do not flicker."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regime.classifier import RegimeClassifier, TrendFilter
from regime.config import ClassifierConfig
from regime.signal import Direction

UP = np.full(80, 0.6)


def told(classifier: RegimeClassifier, standardised: np.ndarray, trend: float = 0.0) -> list[Direction]:
    found = []
    for value in standardised.tolist():
        classifier.observe(0.01 * value, value)
        found.append(classifier.classify(trend).direction)
    return found


def drifting(seed: int, bars: int = 6000, drift: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Standardised returns whose drift is none, up and down in turn, 300 bars each, and which (0, 1, -1)."""
    truth = np.array([0, 1, -1])[np.arange(bars) // 300 % 3]
    return drift * truth + np.random.default_rng(seed).normal(size=bars), truth


@pytest.mark.parametrize("seed", range(3))
def test_up_down_and_sideways_are_told_apart_and_last(seed: int) -> None:
    returns, truth = drifting(seed)
    found = told(RegimeClassifier(ClassifierConfig()), returns)
    sign = {Direction.SIDEWAYS: 0, Direction.BULL: 1, Direction.BEAR: -1}
    named = np.array([sign[direction] for direction in found])[600:]
    assert np.mean([(named == state)[truth[600:] == state].mean() for state in (0, 1, -1)]) > 0.55
    assert (named[1:] != named[:-1]).mean() < 0.03


def test_a_market_without_drift_is_mostly_sideways() -> None:
    markets = [np.random.default_rng(seed).normal(size=3000) for seed in range(3)]
    found = [told(RegimeClassifier(ClassifierConfig()), market)[1000:] for market in markets]
    assert np.mean([direction is Direction.SIDEWAYS for market in found for direction in market]) > 0.55


def test_a_view_decides_where_returns_do_not() -> None:
    quiet = np.zeros(5)
    assert told(RegimeClassifier(ClassifierConfig(forecast_weight=1.0)), quiet, trend=3.0)[-1] is Direction.BULL
    assert told(RegimeClassifier(ClassifierConfig(forecast_weight=1.0)), quiet, trend=-3.0)[-1] is Direction.BEAR
    assert told(RegimeClassifier(ClassifierConfig(forecast_weight=0.0)), quiet, trend=3.0)[-1] is Direction.SIDEWAYS


def test_a_level_without_a_view_names_no_direction_and_leaves_the_regime_as_it_was() -> None:
    classifier = RegimeClassifier(ClassifierConfig())
    assert told(classifier, UP)[-1] is Direction.BULL
    assert classifier.classify(None).direction is Direction.UNKNOWN
    assert classifier.classify(0.0).direction is Direction.BULL


def test_after_missing_bars_the_direction_is_open() -> None:
    classifier = RegimeClassifier(ClassifierConfig())
    told(classifier, UP)
    assert classifier.direction.probabilities[Direction.BULL] > 0.8
    classifier.restart()
    assert list(classifier.direction.probabilities.values()) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_copy_goes_on_as_the_original_does() -> None:
    returns, _ = drifting(5, 800)
    classifier = RegimeClassifier(ClassifierConfig())
    told(classifier, returns[:400])
    copied = copy.deepcopy(classifier)
    assert told(copied, returns[400:]) == told(classifier, returns[400:])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-50, 50)), max_size=60), st.integers(1, 6))
def test_no_direction_ends_before_it_has_lasted(stream: list[tuple[float, float]], least_bars: int) -> None:
    classifier = RegimeClassifier(ClassifierConfig(least_bars=least_bars, forecast_weight=1.0))
    found = []
    for value, trend in stream:
        classifier.observe(0.0, value)
        found.append(classifier.classify(trend).direction)
        assert sum(classifier.direction.probabilities.values()) == pytest.approx(1.0)
    changes = [bar for bar in range(1, len(found)) if found[bar] is not found[bar - 1]]
    assert all(later - earlier >= least_bars for earlier, later in itertools.pairwise(changes))


def test_the_trend_is_a_z_score_under_no_trend() -> None:
    rng = np.random.default_rng(0)
    trend = TrendFilter(128)
    values = np.array([trend.update(shock) for shock in rng.normal(size=60_000)])
    assert values[1000:].std() == pytest.approx(1.0, abs=0.1)
    assert values[1000:].mean() == pytest.approx(0.0, abs=0.15)
