"""Regimes are scale-free, causal, and do not flicker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.classifier import RegimeClassifier, TrendFilter
from regime.config import ClassifierConfig
from regime.signal import Direction


def test_a_direction_begins_beyond_one_threshold_and_ends_within_another() -> None:
    classifier = RegimeClassifier(ClassifierConfig(enter_trend=1.0, leave_trend=0.3, least_bars=1))
    trends = [0.5, 1.1, 0.5, 0.31, 0.2, 0.9, -1.2, -0.4, -0.2]
    found = [classifier.classify(trend).direction for trend in trends]
    bull, bear, side = Direction.BULL, Direction.BEAR, Direction.SIDEWAYS
    assert found == [side, bull, bull, bull, side, side, bear, bear, side]


def test_a_bar_that_knows_no_direction_leaves_the_regime_as_it_was() -> None:
    classifier = RegimeClassifier(ClassifierConfig())
    classifier.classify(3.0)
    assert classifier.classify(None).direction is Direction.UNKNOWN
    assert classifier.classify(0.5).direction is Direction.BULL


@given(st.lists(st.floats(-5, 5), max_size=60), st.integers(1, 6))
def test_no_direction_ends_before_it_has_lasted(trends: list[float], least_bars: int) -> None:
    classifier = RegimeClassifier(ClassifierConfig(least_bars=least_bars))
    found = [classifier.classify(trend).direction for trend in trends]
    changes = [bar for bar in range(1, len(found)) if found[bar] is not found[bar - 1]]
    assert all(later - earlier >= least_bars for earlier, later in itertools.pairwise(changes))


def test_the_trend_is_a_z_score_under_no_trend() -> None:
    rng = np.random.default_rng(0)
    trend = TrendFilter(128)
    values = np.array([trend.update(shock) for shock in rng.normal(size=60_000)])
    assert values[1000:].std() == pytest.approx(1.0, abs=0.1)
    assert values[1000:].mean() == pytest.approx(0.0, abs=0.15)
