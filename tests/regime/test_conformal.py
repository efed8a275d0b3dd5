"""Plain adaptive conformal inference: what the paper promises, and what another library makes of the same scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.conformity_scores import AbsoluteConformityScore
from mapie.regression import TimeSeriesRegressor
from sklearn.base import BaseEstimator, RegressorMixin

from regime.conformal import AdaptiveConformal
from regime.window import FloatArray


def run(scores: FloatArray, gamma: float, delay: int, window: int = 50, miscoverage: float = 0.1) -> FloatArray:
    """Which outcomes were missed, 0 or 1 each; those of the first ``delay`` bars nobody had forecast."""
    conformal = AdaptiveConformal(miscoverage, [gamma], window)
    claimed = np.full(len(scores), np.nan)
    missed = np.full(len(scores), np.nan)
    for bar, score in enumerate(scores):
        if bar >= delay:
            missed[bar] = score > claimed[bar - delay]
            conformal.observe(np.array([score]), missed[bar : bar + 1])
        claimed[bar] = conformal.factors()[0]
    return missed[delay:]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4, 16]),
    st.sampled_from([0.002, 0.01, 0.05, 0.2]),
    st.sampled_from(["steady", "growing", "jumping", "adversarial"]),
)
def test_the_share_of_misses_is_bounded_whatever_the_scores_are(seed: int, delay: int, gamma: float, kind: str) -> None:
    rng = np.random.default_rng(seed)
    bars = int(rng.integers(50, 600))
    scores = np.abs(rng.standard_t(3, size=bars))
    if kind == "growing":
        scores *= np.exp(0.05 * np.arange(bars))
    elif kind == "jumping":
        scores *= np.repeat(rng.choice([0.01, 1.0, 100.0], size=bars // 20 + 1), 20)[:bars]
    elif kind == "adversarial":
        scores = np.where(rng.random(bars) < 0.5, 0.0, 1e9)
    missed = run(scores, gamma, delay)
    alpha = 0.1
    bound = (max(alpha, 1.0 - alpha) + delay * gamma) / (len(missed) * gamma)
    assert abs(missed.mean() - alpha) <= bound + 1e-12


def test_the_bound_would_not_hold_without_adaptation() -> None:
    scores = np.exp(0.05 * np.arange(600.0))
    gamma, alpha = 0.05, 0.1
    bound = (max(alpha, 1.0 - alpha) + gamma) / (600 * gamma)
    assert abs(run(scores, gamma, 1).mean() - alpha) <= bound
    assert abs(run(scores, 0.0, 1).mean() - alpha) > bound


class Nothing(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Forecasts zero, so that the outcomes are the scores."""

    def fit(self, x: FloatArray, y: FloatArray) -> Nothing:
        """Learn nothing."""
        self.is_fitted_ = True
        return self

    def predict(self, x: FloatArray) -> FloatArray:
        """Zero."""
        return np.zeros(len(x))


@pytest.mark.parametrize("gamma", [0.005, 0.02])
def test_levels_and_intervals_are_those_of_mapie_on_the_same_scores(gamma: float) -> None:
    window, bars, alpha = 100, 300, 0.1
    rng = np.random.default_rng(11)
    scores = np.abs(rng.standard_t(4, size=window + bars)) * np.repeat([1.0, 1.0, 2.0, 0.7], 100)
    ours = AdaptiveConformal(alpha, [gamma], window)
    for score in scores[:window]:
        ours.observe(np.array([score]), np.array([np.nan]))
    theirs = TimeSeriesRegressor(
        Nothing().fit(scores, scores), method="aci", cv="prefit", conformity_score=AbsoluteConformityScore(sym=True)
    )
    place = np.zeros((1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(np.zeros((window, 1)), scores[:window])
        for begin in range(window, window + bars, 5):
            # Ours puts scores in order anew after five of them; theirs is given them then.
            for score in scores[begin : begin + 5]:
                _, bounds = theirs.predict(place, confidence_level=1 - alpha, allow_infinite_bounds=True)
                factor = ours.factors()[0]
                assert factor == pytest.approx(bounds[0, 1, 0])
                theirs.adapt_conformal_inference(place, np.array([score]), gamma=gamma, confidence_level=1 - alpha)
                ours.observe(np.array([score]), np.array([float(score > factor)]))
                assert ours.levels[0] == pytest.approx(theirs.current_alpha[alpha])
            theirs.update(np.zeros((5, 1)), scores[begin : begin + 5])
    assert abs(ours.levels[0] - alpha) > 1e-3, "the levels must have moved for this to show anything"


def test_scores_that_nothing_was_claimed_for_move_no_level() -> None:
    conformal = AdaptiveConformal(0.1, [0.05, 0.05], 10)
    conformal.observe(np.array([1.0, 2.0]), np.array([np.nan, 1.0]))
    np.testing.assert_allclose(conformal.levels, [0.1, 0.1 - 0.05 * 0.9])
    assert conformal.counts.tolist() == [1, 1]


def test_a_score_that_is_missing_leaves_its_row_as_it_was() -> None:
    conformal = AdaptiveConformal(0.1, [0.05, 0.05], 10)
    conformal.observe(np.array([np.nan, 2.0]), np.array([np.nan, 0.0]))
    assert conformal.counts.tolist() == [0, 1]
    assert conformal.is_sound


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_factor_is_the_conformal_quantile_of_the_newest_scores(scores: list[float], level: float) -> None:
    conformal = AdaptiveConformal(0.1, [0.0], 20)
    for score in scores:
        conformal.observe(np.array([score]), np.array([0.0]))
    conformal.levels[0] = level
    newest = np.sort(scores[-20:])
    rank = min(int(np.ceil((1.0 - level) * (len(newest) + 1))), len(newest))
    assert conformal.factors()[0] == newest[rank - 1]


def test_levels_out_of_range_cover_everything_or_nothing() -> None:
    conformal = AdaptiveConformal(0.1, [0.05, 0.05, 0.05], 10)
    for _ in range(10):
        conformal.observe(np.ones(3), np.zeros(3))
    conformal.levels[:] = [-0.01, 0.5, 1.01]
    assert conformal.factors().tolist() == [np.inf, 1.0, -np.inf]
