"""Conformal intervals hold what they promise, late outcomes and all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.calibration import ConformalCalibrator
from regime.config import CalibrationConfig
from regime.errors import CannotAnswer
from regime.signal import Reason


def coverage(errors: np.ndarray, config: CalibrationConfig, horizon: int = 1) -> float:
    """Share of outcomes inside intervals around zero with scale one, fed through the calibrator's own door."""
    calibrator = ConformalCalibrator(config, horizon)
    inside: list[bool] = []
    issued: dict[int, float] = {}
    for bar, error in enumerate(errors):
        # Prices are laid out so that the return over the horizon ending at this bar is its error.
        calibrator.observe(bar, float(error))
        if bar in issued:
            inside.append(abs(error) <= issued.pop(bar))
        try:
            issued[bar + horizon] = calibrator.interval(0.0, 1.0)[1]
        except CannotAnswer:
            issued.pop(bar + horizon, None)
        calibrator.await_outcome(bar, 0.0, 0.0, 1.0)
    return float(np.mean(inside))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("miscoverage", [0.05, 0.10, 0.20])
def test_intervals_cover_what_they_promise(seed: int, miscoverage: float) -> None:
    errors = np.random.default_rng(seed).standard_t(4, size=6000)
    found = coverage(errors, CalibrationConfig(miscoverage=miscoverage))
    assert found == pytest.approx(1.0 - miscoverage, abs=0.012), f"seed {seed}"


@pytest.mark.parametrize("seed", range(5))
def test_coverage_survives_a_world_that_turns_three_times_as_wild(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = np.concatenate([rng.normal(size=3000), 3.0 * rng.normal(size=3000)])
    assert coverage(errors, CalibrationConfig()) == pytest.approx(0.90, abs=0.02), f"seed {seed}"


def test_without_adaptation_the_same_world_breaks_the_promise() -> None:
    rng = np.random.default_rng(0)
    errors = np.concatenate([rng.normal(size=3000), 3.0 * rng.normal(size=3000)])
    frozen = CalibrationConfig(step_size=0.0, window_scores=6000)
    assert coverage(errors, frozen) < coverage(errors, CalibrationConfig()) - 0.03


def test_an_outcome_counts_only_when_its_horizon_is_over() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=16)
    for bar in range(50):
        calibrator.observe(bar, 0.0)
        calibrator.await_outcome(bar, 0.0, 0.0, 1.0)
        assert calibrator.scores == max(0, bar - 15)


def test_a_forecast_whose_horizon_holds_a_gap_gives_no_score() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=4)
    calibrator.await_outcome(0, 0.0, 0.0, 1.0)
    calibrator.forget_pending()
    calibrator.observe(4, 0.0)
    assert calibrator.scores == 0


def test_too_few_scores_are_said_to_be_so() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    with pytest.raises(CannotAnswer) as caught:
        calibrator.interval(0.0, 1.0)
    assert caught.value.reason is Reason.FEW_SCORES


def feed(calibrator: ConformalCalibrator, errors: list[float]) -> None:
    """Let errors mature one by one: forecasts of nothing, with a scale of one, beside returns of that size."""
    for bar, error in enumerate(errors):
        calibrator.await_outcome(bar, 0.0, 0.0, 1.0)
        calibrator.observe(bar + 1, error)


@given(st.lists(st.floats(-50, 50), min_size=30, max_size=120), st.floats(-60, 60))
def test_the_factor_and_the_probability_are_those_of_the_last_errors_sorted_afresh(
    errors: list[float], expected: float
) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(window_scores=40, min_scores=20), horizon_bars=1)
    feed(calibrator, errors)
    last = np.array(errors[-40:])
    np.testing.assert_array_equal(calibrator.errors.view(), last)
    rank = min(math.ceil((1.0 - calibrator.alpha) * (len(last) + 1)), len(last))
    low, high = calibrator.interval(expected, 1.0)
    assert high - expected == pytest.approx(np.sort(np.abs(last))[rank - 1])
    assert expected - low == pytest.approx(high - expected)
    above = int(np.count_nonzero(last > -expected))
    assert calibrator.probability_up(expected, 1.0) == (above + 0.5) / (len(last) + 1.0)


@given(st.lists(st.floats(-50, 50), min_size=120, max_size=300), st.floats(-1, 1), st.floats(1e-6, 10))
def test_intervals_surround_the_forecast_and_scale_with_it(errors: list[float], expected: float, scale: float) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    feed(calibrator, errors)
    low, high = calibrator.interval(expected, scale)
    assert low <= expected <= high
    assert math.isfinite(high - low)
    double_low, double_high = calibrator.interval(expected, 2 * scale)
    assert double_high - double_low == pytest.approx(2 * (high - low))
    assert 0.0 < calibrator.probability_up(expected, scale) < 1.0


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=100))
def test_uncertainty_is_a_share(widths: list[float]) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    found = [calibrator.uncertainty(width) for width in widths]
    assert all(0.0 < value <= 1.0 for value in found)
    assert found[0] == pytest.approx(0.5)
