"""Is a model that does harm found, and one that does none left alone?"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regime.classifier import EwmaVolatility
from regime.config import CalibrationConfig, HealthConfig, RegimeConfig
from regime.forecast import FloatArray
from regime.health import HealthMonitor, relative_excess
from regime.signal import Level, Reason
from tests.regime.streams import NORMAL, ScriptedForecaster, bars, detector, normal_forecast, signals_of

HORIZON = 4
LENGTHS = HealthConfig(window_bars=400, recent_bars=100, check_every_bars=10)
SHAPE_T5 = np.array([-1.476, -0.920, -0.559, -0.267, 0.0, 0.267, 0.559, 0.920, 1.476]) * math.sqrt(0.6)

Spoil = Callable[[FloatArray, int], FloatArray]


def returns_of(count: int, seed: int) -> FloatArray:
    """Student's t with five degrees of freedom, one percent a bar."""
    drawn = np.random.default_rng(seed).standard_t(5, size=count)
    return np.asarray(0.01 * math.sqrt(0.6) * drawn)


def followed(
    spoil: Spoil = lambda quantiles, _bar: quantiles,
    count: int = 1500,
    begin: int = 500,
    end: int = 10**9,
    seed: int = 1,
    config: HealthConfig = LENGTHS,
) -> list[bool]:
    """The verdict after each bar on a model that knows the truth, spoilt from ``begin`` to ``end``."""
    monitor, volatility = HealthMonitor(config, HORIZON), EwmaVolatility(0.94)
    verdicts = []
    for bar, value in enumerate(returns_of(count, seed).tolist()):
        monitor.observe(bar, value, volatility.value)
        volatility.update(value)
        truth = np.tile(0.01 * SHAPE_T5, (HORIZON, 1))
        monitor.await_outcome(bar, spoil(truth, bar) if begin <= bar < end else truth, volatility.value)
        verdicts.append(monitor.unhealthy)
    return verdicts


@pytest.mark.parametrize("seed", range(6))
def test_a_model_that_knows_the_truth_is_never_unhealthy(seed: int) -> None:
    assert not any(followed(seed=seed))


@pytest.mark.parametrize(
    ("spoil", "within"),
    [
        (lambda quantiles, _bar: 3.0 * quantiles, 150),
        (lambda quantiles, _bar: quantiles / 3.0, 250),
        (lambda quantiles, _bar: -quantiles[:, ::-1] + 0.01, 250),
        (lambda quantiles, bar: quantiles * (0.3 if bar // 50 % 2 else 4.0), 250),
    ],
    ids=["too wide", "too narrow", "drifting", "of another time"],
)
def test_a_model_that_does_harm_is_found(spoil: Spoil, within: int) -> None:
    verdicts = followed(spoil)
    assert not any(verdicts[:500])
    assert any(verdicts[500 : 500 + within])


def test_a_model_that_errs_a_little_is_left_alone() -> None:
    assert not any(followed(lambda quantiles, _bar: 1.15 * quantiles))


def test_it_takes_a_while_of_good_forecasts_to_be_well_again_and_then_it_stays_so() -> None:
    verdicts = followed(lambda quantiles, _bar: 3.0 * quantiles, end=900)
    assert all(verdicts[700:900])
    well = next(bar for bar in range(900, 1500) if not verdicts[bar])
    assert 900 + LENGTHS.recent_bars // 2 < well < 900 + 3 * LENGTHS.recent_bars
    assert not any(verdicts[well:])


def test_a_single_bad_check_is_not_enough() -> None:
    one = followed(lambda quantiles, _bar: 3.0 * quantiles)
    more = followed(lambda quantiles, _bar: 3.0 * quantiles, config=dataclasses.replace(LENGTHS, sustained_checks=6))
    assert more.index(True) - one.index(True) == 3 * LENGTHS.check_every_bars


def test_nothing_is_said_before_enough_forecasts_have_matured() -> None:
    verdicts = followed(lambda quantiles, _bar: 5.0 * quantiles, begin=0)
    first = verdicts.index(True)
    assert first >= LENGTHS.recent_bars
    assert first <= LENGTHS.recent_bars + 4 * LENGTHS.check_every_bars


def test_bars_for_which_nothing_was_forecast_are_not_scored() -> None:
    monitor = HealthMonitor(LENGTHS, HORIZON)
    for bar in range(1, 3 * HORIZON):
        monitor.observe(bar, 0.001, 0.01)
    assert monitor.matured == 0


def test_forecasts_over_a_gap_are_not_held_against_the_model() -> None:
    monitor = HealthMonitor(LENGTHS, HORIZON)
    for bar in range(5):
        monitor.await_outcome(bar, np.tile(0.01 * NORMAL, (HORIZON, 1)), 0.01)
    monitor.forget_pending()
    monitor.observe(5, 0.5, 0.01)
    assert monitor.matured == 0


def test_each_outcome_is_scored_under_all_forecasts_of_it() -> None:
    monitor = HealthMonitor(dataclasses.replace(LENGTHS, recent_bars=2, check_every_bars=1), HORIZON)
    far = np.tile(0.01 * NORMAL, (HORIZON, 1))
    far[HORIZON - 1] *= 50.0  # wrong about its last bar alone
    monitor.await_outcome(0, far, 0.01)
    for bar in range(1, HORIZON):
        monitor.observe(bar, 0.001, 0.01)
    assert monitor.excess is not None
    assert monitor.excess.estimate == pytest.approx(0.0, abs=1e-3)
    monitor.observe(HORIZON, 0.001, 0.01)
    assert monitor.excess.estimate > 1.0
    monitor.observe(HORIZON + 1, 0.001, 0.01)
    assert monitor.matured == HORIZON


def test_a_market_that_stands_still_breaks_nothing() -> None:
    monitor = HealthMonitor(LENGTHS, HORIZON)
    for bar in range(300):
        monitor.observe(bar, 0.0, 0.01)
        monitor.await_outcome(bar, np.tile(0.01 * NORMAL, (HORIZON, 1)), 0.01)
    assert monitor.excess is not None
    assert math.isfinite(monitor.excess.estimate)


losses = st.lists(st.floats(0.01, 10.0), min_size=3, max_size=120).map(np.array)


@given(losses, st.floats(0.1, 10.0), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_losses_in_proportion_have_an_excess_beyond_doubt(baseline: FloatArray, factor: float, block: int) -> None:
    found = relative_excess(factor * baseline, baseline, block)
    for value in (found.estimate, found.low, found.high):
        assert value == pytest.approx(factor - 1.0, rel=1e-6, abs=1e-6)


@given(losses, st.floats(0.001, 1000.0))
@settings(max_examples=40, deadline=None)
def test_the_excess_knows_no_unit(baseline: FloatArray, unit: float) -> None:
    other = baseline[::-1].copy()
    found, again = relative_excess(other, baseline, 5), relative_excess(unit * other, unit * baseline, 5)
    assert again.estimate == pytest.approx(found.estimate, abs=1e-9)
    assert again.low == pytest.approx(found.low, abs=1e-9)
    assert found.low <= found.high


def test_the_lower_bound_holds_what_it_promises() -> None:
    rng = np.random.default_rng(2)
    above = 0
    for _ in range(400):
        baseline = rng.gamma(2.0, size=600)
        noise = np.convolve(rng.standard_normal(615), np.ones(16) / 4.0, "valid")  # depends over 16 bars
        found = relative_excess(baseline * 1.05 + 0.3 * noise + 2.0, baseline + 2.0, 32)
        above += found.low > 2.0 * 0.05 / 4.0
    # 1 % promised; few blocks cost a little.
    assert above <= 16


class TestInTheDetector:
    config = RegimeConfig(
        context_bars=64, horizon_bars=HORIZON, calibration=CalibrationConfig(min_scores=20), health=LENGTHS
    )

    def levels(self, spoilt: range, count: int = 900) -> list[tuple[Level, tuple[Reason, ...]]]:
        def script(call: int, horizon: int) -> np.ndarray:
            return normal_forecast(horizon, 0.04 if call in spoilt else 0.01)

        found = signals_of(detector(ScriptedForecaster(script), self.config), bars(count))
        return [(signal.level, signal.reasons) for signal in found]

    def test_an_unhealthy_model_is_answered_by_its_median_alone(self) -> None:
        found = self.levels(range(200, 500))
        unhealthy = [bar for bar, (level, reasons) in enumerate(found) if reasons == (Reason.UNHEALTHY,)]
        assert {found[bar][0] for bar in unhealthy} == {Level.BASIC}
        asked_from = self.config.model_min_bars
        assert 200 + asked_from < unhealthy[0] < 400 + asked_from
        assert unhealthy == list(range(unhealthy[0], unhealthy[-1] + 1))
        assert unhealthy[-1] < 800
        assert found[-1] == (Level.FULL, ())

    def test_a_healthy_model_answers_at_level_full_throughout(self) -> None:
        assert all(level is Level.FULL for level, _ in self.levels(range(0))[100:])

    def test_a_snapshot_holds_the_monitor_too(self) -> None:
        script = lambda call, horizon: normal_forecast(horizon, 0.01 if call < 100 else 0.05)  # noqa: E731
        subject, stream = detector(ScriptedForecaster(script), self.config), bars(700)
        signals_of(subject, stream[:250])
        kept = subject.snapshot()
        first = signals_of(subject, stream[250:])
        assert any(Reason.UNHEALTHY in signal.reasons for signal in first)
        again = detector(ScriptedForecaster(lambda call, horizon: script(call + 219, horizon)), self.config)
        again.restore(kept)
        assert signals_of(again, stream[250:]) == first


def test_a_copy_goes_its_own_way() -> None:
    monitor = HealthMonitor(LENGTHS, HORIZON)
    monitor.await_outcome(0, np.tile(0.01 * NORMAL, (HORIZON, 1)), 0.01)
    other = copy.deepcopy(monitor)
    monitor.observe(1, 0.01, 0.01)
    assert (monitor.matured, other.matured) == (1, 0)
