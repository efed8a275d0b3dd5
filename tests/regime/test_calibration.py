"""Calibrated intervals hold what they promise, late outcomes and all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regime.calibration import ConformalCalibrator, Outlook, is_absurd
from regime.config import CalibrationConfig
from regime.errors import CannotAnswer
from regime.signal import Reason
from regime.window import FloatArray


def outlook(
    horizon: int, expected: float = 0.0, scale: float = 1.0, hour: int = 0, volatility: float | None = None
) -> Outlook:
    """A forecast that is the same for every bar."""
    centres = np.append(np.full(horizon, expected / horizon), expected)
    scales = np.append(np.full(horizon, scale), scale * math.sqrt(horizon))
    wildness = volatility if volatility is not None else scale
    return Outlook(centres, scales, float(scales[-1]), np.full(horizon, hour), wildness)


def coverage(returns: FloatArray, config: CalibrationConfig, horizon: int = 1) -> tuple[float, float]:
    """Share of returns, and of sums of them, inside intervals around zero with scale one."""
    calibrator = ConformalCalibrator(config, horizon)
    log_prices = np.cumsum(returns)
    bars, horizons = [], []
    for bar, log_price in enumerate(log_prices):
        calibrator.observe(bar, returns[bar], log_price)
        try:
            found = calibrator.intervals(outlook(horizon))
            if bar + horizon < len(returns):
                bars.append(found.bar[0] <= returns[bar + 1] <= found.bar[1])
                ahead = log_prices[bar + horizon] - log_price
                horizons.append(found.horizon[0] <= ahead <= found.horizon[1])
        except CannotAnswer as error:
            assert error.reason is Reason.FEW_SCORES
        calibrator.await_outcome(bar, log_price, outlook(horizon))
    return float(np.mean(bars)), float(np.mean(horizons))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("miscoverage", [0.05, 0.10, 0.20])
def test_intervals_cover_what_they_promise(seed: int, miscoverage: float) -> None:
    returns = np.random.default_rng(seed).standard_t(4, size=4000)
    bar, horizon = coverage(returns, CalibrationConfig(miscoverage=miscoverage), horizon=8)
    assert bar == pytest.approx(1.0 - miscoverage, abs=0.012), f"seed {seed}"
    assert horizon == pytest.approx(1.0 - miscoverage, abs=0.03), f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
def test_coverage_survives_a_world_that_turns_three_times_as_wild(seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = np.concatenate([rng.normal(size=2000), 3.0 * rng.normal(size=2000)])
    assert coverage(returns, CalibrationConfig())[0] == pytest.approx(0.90, abs=0.02), f"seed {seed}"


def test_without_adaptation_the_same_world_breaks_the_promise() -> None:
    rng = np.random.default_rng(0)
    returns = np.concatenate([rng.normal(size=2000), 3.0 * rng.normal(size=2000)])
    frozen = CalibrationConfig(step_size=0.0, volatility_step=0.0, hour_step=0.0, window_scores=4000)
    assert coverage(returns, frozen)[0] < coverage(returns, CalibrationConfig())[0] - 0.03


def test_each_hour_and_each_kind_of_market_is_covered_on_its_own() -> None:
    rng = np.random.default_rng(5)
    calibrator = ConformalCalibrator(CalibrationConfig(), 1)
    inside: dict[tuple[int, int], list[bool]] = {}
    ahead = outlook(1)
    wildness, volatility = np.array([0.7, 1.0, 1.5]), np.array([0.5, 1.0, 2.0])
    log_price, kind = 0.0, 0
    for bar in range(12_000):
        change = wildness[kind] * (1.0 + ahead.hours[0]) * rng.normal()
        log_price += change
        if bar > 3000:
            low, high = calibrator.intervals(ahead).bar
            inside.setdefault((kind, int(ahead.hours[0])), []).append(low <= change <= high)
        calibrator.observe(bar, change, log_price)
        kind = int(rng.integers(3))
        ahead = outlook(1, hour=bar % 2, volatility=volatility[kind] * math.exp(0.1 * rng.normal()))
        calibrator.await_outcome(bar, log_price, ahead)
    assert len(inside) == 6
    for group, found in inside.items():
        assert np.mean(found) == pytest.approx(0.9, abs=0.02), group


def test_outcomes_count_when_their_bars_are_there_and_not_before() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=16)
    for bar in range(50):
        calibrator.observe(bar, 0.0, 0.0)
        calibrator.await_outcome(bar, 0.0, outlook(16))
        assert calibrator.scores == max(0, bar - 15)
        np.testing.assert_array_equal(calibrator.conformal.counts[:-1], np.maximum(0, bar - np.arange(16)))


def test_each_row_is_scored_on_its_own_bar() -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(size=40)
    calibrator = ConformalCalibrator(CalibrationConfig(window_scores=10), horizon_bars=4)
    for bar, log_price in enumerate(np.cumsum(returns)):
        calibrator.observe(bar, returns[bar], log_price)
        calibrator.await_outcome(bar, log_price, outlook(4, expected=0.4 * bar, scale=1.0 + bar))
    made = np.arange(40)
    sums = np.convolve(returns, np.ones(4), "valid")[1:] - 0.4 * made[:36]
    np.testing.assert_allclose(calibrator.errors.view(), (sums / (2.0 * (1.0 + made[:36])))[-10:])
    for step in range(1, 5):
        scores = np.abs(returns[step:] - 0.1 * made[:-step]) / (1.0 + made[:-step])
        held = calibrator.conformal._scores[step - 1]
        np.testing.assert_allclose(np.sort(held), np.sort(scores[-10:]))


def test_a_forecast_whose_horizon_holds_a_gap_gives_no_score() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=4)
    calibrator.await_outcome(0, 0.0, outlook(4))
    calibrator.forget_pending()
    calibrator.observe(4, 0.0, 0.0)
    assert calibrator.scores == 0
    assert not calibrator.conformal.counts.any()


def test_too_few_scores_are_said_to_be_so() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    with pytest.raises(CannotAnswer) as caught:
        calibrator.intervals(outlook(1))
    assert caught.value.reason is Reason.FEW_SCORES


def feed(calibrator: ConformalCalibrator, errors: list[float]) -> None:
    """Let errors mature one by one: forecasts of nothing, with a scale of one, beside returns of that size."""
    for bar, error in enumerate(errors):
        calibrator.await_outcome(bar, 0.0, outlook(1))
        calibrator.observe(bar + 1, error, error)


@given(st.lists(st.floats(-50, 50), min_size=30, max_size=120), st.floats(-60, 60))
def test_the_probability_is_that_of_the_last_errors(errors: list[float], expected: float) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(window_scores=40, min_scores=20), horizon_bars=1)
    feed(calibrator, errors)
    last = np.array(errors[-40:])
    np.testing.assert_array_equal(calibrator.errors.view(), last)
    above = int(np.count_nonzero(last > -expected))
    assert calibrator.probability_up(outlook(1, expected)) == (above + 0.5) / (len(last) + 1.0)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1), st.floats(0.1, 10))
def test_intervals_surround_the_forecast_and_scale_with_it(seed: int, expected: float, scale: float) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    feed(calibrator, np.random.default_rng(seed).normal(size=120).tolist())
    low, high = calibrator.intervals(outlook(1, expected, scale, volatility=1.0)).horizon
    assert low <= expected <= high
    assert math.isfinite(high - low)
    double_low, double_high = calibrator.intervals(outlook(1, expected, 2 * scale, volatility=1.0)).horizon
    assert double_high - double_low == pytest.approx(2 * (high - low))
    assert 0.0 < calibrator.probability_up(outlook(1, expected, scale)) < 1.0


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=100))
def test_uncertainty_is_a_share(widths: list[float]) -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(), horizon_bars=1)
    found = [calibrator.uncertainty(width) for width in widths]
    assert all(0.0 < value <= 1.0 for value in found)
    assert found[0] == pytest.approx(0.5)


@pytest.mark.parametrize("half_width", [0.0, -math.inf, math.inf, math.nan, 1e-4, 1.0])
def test_widths_beyond_belief_are_absurd(half_width: float) -> None:
    assert is_absurd(half_width, volatility=0.01)


@pytest.mark.parametrize("half_width", [0.001, 0.0165, 0.1])
def test_widths_that_a_market_may_have_are_not(half_width: float) -> None:
    assert not is_absurd(half_width, volatility=0.01)


def test_an_absurd_interval_is_refused_and_forgotten_when_scores_have_come_to_their_senses() -> None:
    calibrator = ConformalCalibrator(CalibrationConfig(window_scores=50, min_scores=20), horizon_bars=1)
    feed(calibrator, [0.0] * 60)
    with pytest.raises(CannotAnswer) as caught:
        calibrator.intervals(outlook(1))
    assert caught.value.reason is Reason.ABSURD_WIDTH
    for bar, error in enumerate(np.random.default_rng(1).normal(size=60), start=100):
        calibrator.await_outcome(bar, 0.0, outlook(1))
        calibrator.observe(bar + 1, error, error)
    low, high = calibrator.intervals(outlook(1)).bar
    assert 0.5 < high - low < 10.0
    assert calibrator.restarts == 0
