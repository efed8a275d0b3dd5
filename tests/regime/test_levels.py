"""Each level, reached through its real precondition and recorded with its reasons."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from regime import fallback
from regime.config import RegimeConfig
from regime.detector import Detector
from regime.errors import ForecastFailed
from regime.forecast import MEDIAN
from regime.signal import EXPOSURE_CAP, BarRejected, Direction, Level, Reason, Signal
from tests.regime.streams import (
    HOUR_NS,
    Answer,
    ScriptedForecaster,
    bars,
    detector,
    last_answer,
    normal_forecast,
    shifted,
    signals_of,
)

SETTLED = 200
"""Bars after which level FULL answers: 32 to the first forecast, 16 to its outcome, 100 scores."""


def settled(forecaster: ScriptedForecaster | None = None) -> Detector:
    subject = detector(forecaster or ScriptedForecaster())
    assert signals_of(subject, bars(SETTLED))[-1].level is Level.FULL
    return subject


def next_signal(subject: Detector) -> Signal:
    answer = subject.step(bars(SETTLED + 1)[-1])
    assert isinstance(answer, Signal)
    return answer


def spoiled_after_settling(spoil: Answer | Exception) -> Signal:
    """The signal of the first bar whose forecast is spoiled."""
    calls_before = SETTLED - RegimeConfig().model_min_bars + 1

    def script(call: int, horizon: int) -> Answer:
        if call <= calls_before:
            return normal_forecast(horizon)
        if isinstance(spoil, Exception):
            raise spoil
        return spoil

    return next_signal(settled(ScriptedForecaster(script)))


def test_a_valid_forecast_with_enough_scores_answers_full() -> None:
    signal = next_signal(settled())
    assert signal.level is Level.FULL
    assert signal.reasons == ()
    assert signal.checkpoint_id == ScriptedForecaster.checkpoint_id
    assert signal.interval_low < signal.expected_return < signal.interval_high


def test_warm_up_climbs_the_chain_without_calling_anything_a_fault() -> None:
    signals = signals_of(detector(ScriptedForecaster()), bars(SETTLED))
    levels = [signal.level for signal in signals]
    assert levels[0] is Level.EMERGENCY
    assert levels[1] is Level.HISTORICAL
    assert set(levels[2:31]) == {Level.SIMPLE}
    assert levels[31] is Level.BASIC
    assert levels == sorted(levels, reverse=True)
    assert all(signal.is_warm_up for signal in signals if signal.level)


def test_full_begins_when_the_hundredth_score_has_matured() -> None:
    levels = [signal.level for signal in signals_of(detector(ScriptedForecaster()), bars(SETTLED))]
    config = RegimeConfig()
    first_score = config.model_min_bars + config.horizon_bars
    assert levels.index(Level.FULL) + 1 == first_score + config.calibration.min_scores - 1


def crossed() -> Answer:
    answer = normal_forecast(16)
    answer[3] = answer[3][::-1]
    return answer


def holey() -> Answer:
    answer = normal_forecast(16)
    answer[5, MEDIAN + 1] = np.nan
    return answer


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (crossed(), Reason.CROSSED_QUANTILES),
        (holey(), Reason.NOT_FINITE),
        (normal_forecast(16, volatility=5.0), Reason.ABSURD_WIDTH),
        (normal_forecast(16, volatility=0.0), Reason.ABSURD_WIDTH),
    ],
    ids=["crossed quantiles", "NaN outside the median", "absurdly wide", "absurdly narrow"],
)
def test_unsound_quantiles_leave_the_median(spoil: Answer, reason: Reason) -> None:
    signal = spoiled_after_settling(spoil)
    assert signal.level is Level.BASIC
    assert signal.reasons == (reason,)
    assert signal.uncertainty == fallback.UNCERTAINTY[Level.BASIC]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -2.0, 2.0])
def test_corrupt_calibration_costs_only_the_calibrated_level(broken: float) -> None:
    subject = settled()
    state = subject.snapshot()
    state.calibrator.conformal.levels[0] = broken
    subject.restore(state)
    signal = next_signal(subject)
    assert (signal.level, signal.reasons) == (Level.BASIC, (Reason.CALIBRATION_CORRUPT,))


def test_calibration_lost_after_warm_up_is_a_fault_not_warm_up() -> None:
    def failing_once(call: int, horizon: int) -> Answer:
        if call == 10:
            raise ForecastFailed(Reason.TIMEOUT)
        return normal_forecast(horizon)

    signals = signals_of(detector(ScriptedForecaster(failing_once)), bars(60))
    assert signals[-1].level is Level.BASIC
    assert signals[-1].reasons == (Reason.FEW_SCORES,)
    assert not signals[-1].is_warm_up


def poisoned_median() -> Answer:
    answer = normal_forecast(16)
    answer[0, MEDIAN] = np.nan
    return answer


def infinite_median() -> Answer:
    answer = normal_forecast(16)
    answer[15, MEDIAN] = np.inf
    return answer


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (poisoned_median(), Reason.NOT_FINITE),
        (infinite_median(), Reason.NOT_FINITE),
        (normal_forecast(15), Reason.WRONG_SHAPE),
        (normal_forecast(16)[:, :8], Reason.WRONG_SHAPE),
        (ForecastFailed(Reason.TIMEOUT), Reason.TIMEOUT),
        (ForecastFailed(Reason.MODEL_DIED), Reason.MODEL_DIED),
        (ForecastFailed(Reason.STALE_ANSWER), Reason.STALE_ANSWER),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("a user's forecaster raised"), Reason.MODEL_ERROR),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_without_a_usable_median_the_indicators_answer(spoil: Answer | Exception, reason: Reason) -> None:
    signal = spoiled_after_settling(spoil)
    assert signal.level is Level.SMART
    assert signal.reasons == (reason, reason)
    assert signal.checkpoint_id == ""


def test_without_a_model_the_indicators_answer_from_64_bars_on() -> None:
    signals = signals_of(detector(None), bars(70))
    assert signals[62].level is Level.SIMPLE
    assert signals[63].level is Level.SMART
    assert signals[63].reasons == (Reason.MODEL_UNAVAILABLE, Reason.MODEL_UNAVAILABLE)


def test_short_history_leaves_volatility() -> None:
    signal = signals_of(detector(None), bars(40))[-1]
    assert signal.level is Level.SIMPLE
    assert signal.direction is Direction.UNKNOWN
    assert signal.realised_volatility > 0


def test_failing_indicators_leave_volatility(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(evidence: fallback.Evidence) -> fallback.Answer:
        raise ZeroDivisionError

    monkeypatch.setitem(fallback.CHAIN, Level.SMART, broken)
    signal = signals_of(detector(None), bars(100))[-1]
    assert signal.level is Level.SIMPLE
    assert signal.reasons[-1] is Reason.INDICATOR_ERROR


def test_after_a_gap_the_regimes_seen_lately_answer() -> None:
    subject = settled()
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=30))
    assert isinstance(signal, Signal)
    assert signal.level is Level.HISTORICAL
    assert set(signal.reasons) == {Reason.GAP}


def test_a_short_gap_is_bridged() -> None:
    subject = settled()
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=20))
    assert isinstance(signal, Signal)
    assert signal.level is Level.FULL


def test_a_market_with_sessions_may_close_for_a_weekend() -> None:
    config = dataclasses.replace(RegimeConfig(), closure_seconds=5 * 86_400)
    subject = detector(ScriptedForecaster(), config)
    signals_of(subject, bars(SETTLED))
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=66))
    assert isinstance(signal, Signal)
    assert signal.level is Level.FULL


def test_a_clock_that_jumps_by_years_is_named_so() -> None:
    subject = settled()
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=24 * 400))
    assert isinstance(signal, Signal)
    assert (signal.level, set(signal.reasons)) == (Level.HISTORICAL, {Reason.CLOCK_JUMP})


def test_several_rejected_bars_in_a_row_make_the_window_unusable() -> None:
    subject = settled()
    last = bars(SETTLED)[-1]
    for _ in range(RegimeConfig().max_rejects):
        assert isinstance(subject.step(last), BarRejected)
    signal = next_signal(subject)
    assert (signal.level, set(signal.reasons)) == (Level.HISTORICAL, {Reason.REJECTED_BARS})


def test_prices_that_never_move_leave_the_regimes_seen_lately() -> None:
    still = [dataclasses.replace(bar, open=100.0, high=100.0, low=100.0, close=100.0) for bar in bars(100)]
    signal = last_answer(detector(ScriptedForecaster()), still)
    assert isinstance(signal, Signal)
    assert signal.level is Level.HISTORICAL
    assert set(signal.reasons) == {Reason.NO_VARIANCE}


def test_with_no_history_of_regimes_the_constant_answers() -> None:
    subject = settled()
    state = subject.snapshot()
    state.history.clear()
    subject.restore(state)
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=50))
    assert isinstance(signal, Signal)
    assert signal.level is Level.EMERGENCY
    assert signal.reasons[-1] is Reason.NO_REGIME_HISTORY
    assert (signal.direction, signal.uncertainty, signal.confidence) == (Direction.UNKNOWN, 1.0, 0.0)
    assert EXPOSURE_CAP[signal.level] == 0.0


def test_a_corrupt_history_of_regimes_leaves_the_constant() -> None:
    subject = settled()
    state = subject.snapshot()
    state.history[-1] = dataclasses.replace(state.history[-1], expected_return=math.nan)
    subject.restore(state)
    signal = subject.step(shifted(bars(SETTLED + 1)[-1], hours=50))
    assert isinstance(signal, Signal)
    assert (signal.level, signal.reasons[-1]) == (Level.EMERGENCY, Reason.REGIMES_CORRUPT)


def test_full_returns_after_a_bar_without_forecast() -> None:
    fails_at = SETTLED - RegimeConfig().model_min_bars + 2

    def script(call: int, horizon: int) -> Answer:
        if call == fails_at:
            raise ForecastFailed(Reason.TIMEOUT)
        return normal_forecast(horizon)

    subject = settled(ScriptedForecaster(script))
    levels = [signal.level for signal in signals_of(subject, bars(SETTLED + 3)[SETTLED:])]
    assert levels == [Level.SMART, Level.FULL, Level.FULL]


@pytest.mark.parametrize("level", list(Level))
def test_a_pinned_level_answers_and_says_so(level: Level) -> None:
    config = dataclasses.replace(RegimeConfig(), pinned_level=level)
    forecaster = ScriptedForecaster()
    signal = signals_of(detector(forecaster, config), bars(SETTLED))[-1]
    assert signal.level is level
    assert signal.reasons == (Reason.PINNED,) * level
    assert bool(forecaster.calls) == (level <= Level.BASIC)


def test_the_deadline_is_shared_by_the_whole_chain() -> None:
    clock = iter(range(100_000))
    config = dataclasses.replace(RegimeConfig(), deadline_ms=50_000.0)
    forecaster = ScriptedForecaster()
    subject = Detector(config, "TEST.SIM", 3600, forecaster, stopwatch=lambda: float(next(clock)))
    signals_of(subject, bars(40))
    # Every look at the stopwatch takes a second: two had passed when the model was given the rest of 50 s less 3 ms.
    assert set(forecaster.timeouts_s) == {50.0 - 0.003 - 2.0}


def test_without_a_deadline_the_model_gets_the_hang_limit() -> None:
    forecaster = ScriptedForecaster()
    signals_of(detector(forecaster), bars(40))
    assert set(forecaster.timeouts_s) == {RegimeConfig().hang_limit_s}


def test_a_gap_is_measured_in_bars_not_in_hours() -> None:
    daily = [
        dataclasses.replace(bar, ts_ns=bar.ts_ns * 0 + HOUR_NS * 24 * index)
        for index, bar in enumerate(bars(10, start=1))
    ]
    subject = Detector(RegimeConfig(), "TEST.SIM", 86_400, None)
    assert [signal.level for signal in signals_of(subject, daily)][-1] is Level.SIMPLE


def test_a_calibration_that_vanished_without_any_failure_is_no_warm_up() -> None:
    subject = settled()
    state = subject.snapshot()
    state.calibrator = detector(None).state.calibrator
    subject.restore(state)
    signal = next_signal(subject)
    assert (signal.level, signal.reasons) == (Level.BASIC, (Reason.FEW_SCORES,))


def test_warm_up_ends_with_the_last_bar_before_level_full() -> None:
    signals = signals_of(detector(ScriptedForecaster()), bars(150))
    assert [signal.is_warm_up for signal in signals] == [signal.level is not Level.FULL for signal in signals]


def test_calibration_starts_over_after_corruption_and_level_full_returns() -> None:
    subject = settled()
    state = subject.snapshot()
    state.calibrator.errors.append(math.nan)
    subject.restore(state)
    config = RegimeConfig()
    needed = config.horizon_bars + config.calibration.min_scores
    signals = signals_of(subject, bars(SETTLED + needed)[SETTLED:])
    assert signals[0].reasons == (Reason.CALIBRATION_CORRUPT,)
    assert {signal.reasons for signal in signals[1:-1]} == {(Reason.FEW_SCORES,)}
    assert signals[-1].level is Level.FULL
