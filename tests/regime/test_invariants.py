"""What holds on every bar, whatever comes in and whatever fails."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from regime.config import CalibrationConfig, RegimeConfig
from regime.errors import ForecastFailed
from regime.forecast import MEDIAN
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from tests.regime.streams import HOUR_NS, Answer, ScriptedForecaster, bars, detector, normal_forecast

# Short lengths, so that a few hundred bars visit every level.
QUICK = RegimeConfig(
    context_bars=64,
    horizon_bars=4,
    model_min_bars=16,
    smart_min_bars=24,
    max_gap_bars=3,
    calibration=CalibrationConfig(min_scores=10, window_scores=50),
)

BAR_FAULTS = st.sampled_from(["none"] * 12 + ["nan", "negative", "inconsistent", "duplicate", "late", "gap", "still"])
MODEL_FAULTS = st.sampled_from(
    ["none"] * 10 + ["nan", "crossed", "wide", "shape", "timeout", "raises", "memory", "median"]
)


def spoiled(bar: BarInput, fault: str) -> BarInput:
    match fault:
        case "nan":
            return dataclasses.replace(bar, close=math.nan)
        case "negative":
            return dataclasses.replace(bar, low=-1.0)
        case "inconsistent":
            return dataclasses.replace(bar, high=bar.low / 2)
        case "duplicate":
            return dataclasses.replace(bar, ts_ns=bar.ts_ns - HOUR_NS)
        case "late":
            return dataclasses.replace(bar, ts_ns=bar.ts_ns - 5 * HOUR_NS)
        case "still":
            return dataclasses.replace(bar, open=100.0, high=100.0, low=100.0, close=100.0)
        case _:
            return bar


def answer_of(fault: str, horizon: int) -> Answer:
    answer = normal_forecast(horizon)
    match fault:
        case "nan":
            answer[0, 8] = np.nan
        case "median":
            answer[1, MEDIAN] = np.nan
        case "crossed":
            answer[0] = answer[0][::-1]
        case "wide":
            answer *= 1e6
        case "shape":
            return answer[:-1]
        case "timeout":
            raise ForecastFailed(Reason.TIMEOUT)
        case "raises":
            raise ValueError("from somebody else's code")
        case "memory":
            raise MemoryError
    return answer


@settings(max_examples=150)
@given(st.data(), st.lists(BAR_FAULTS, min_size=5, max_size=150))
def test_every_bar_gets_one_honest_answer(data: st.DataObject, faults: list[str]) -> None:
    model_faults = data.draw(st.lists(MODEL_FAULTS, min_size=len(faults), max_size=len(faults)))
    forecaster = ScriptedForecaster(lambda call, horizon: answer_of(model_faults[call - 1], horizon))
    subject = detector(forecaster, QUICK)
    delay = 0
    accepted = 0
    for bar, fault in zip(bars(len(faults), seed=5), faults, strict=True):
        delay += 10 * HOUR_NS if fault == "gap" else 0
        answer = subject.step(dataclasses.replace(spoiled(bar, fault), ts_ns=spoiled(bar, fault).ts_ns + delay))
        if isinstance(answer, BarRejected):
            assert answer.why
            continue
        accepted += 1
        assert isinstance(answer, Signal)
        assert len(answer.reasons) == answer.level
        for name in ("confidence", "uncertainty", "transition_probability"):
            assert 0.0 <= getattr(answer, name) <= 1.0, name
        assert math.isfinite(answer.expected_return)
        assert answer.interval_low <= answer.expected_return <= answer.interval_high
        assert answer.realised_volatility >= 0.0
        assert answer.forecast_volatility >= 0.0
        assert math.isinf(answer.interval_high) or answer.level is not Level.EMERGENCY
        assert bool(answer.checkpoint_id) == (answer.level <= Level.BASIC)
    state = subject.snapshot()
    assert state.accepted_bars == accepted
    assert state.accepted_bars + state.rejected_bars == len(faults)


@settings(max_examples=40)
@given(st.lists(BAR_FAULTS, min_size=10, max_size=120), st.integers(1, 9))
def test_cutting_the_future_off_changes_no_signal_before_the_cut(faults: list[str], tenths: int) -> None:
    stream = [spoiled(bar, fault) for bar, fault in zip(bars(len(faults), seed=9), faults, strict=True)]
    cut = max(1, len(stream) * tenths // 10)
    whole = detector(ScriptedForecaster(), QUICK)
    part = detector(ScriptedForecaster(), QUICK)
    # By representation: unlike equality it holds for NaN and tells 0.0 from -0.0.
    assert [repr(whole.step(bar)) for bar in stream][:cut] == [repr(part.step(bar)) for bar in stream[:cut]]


@settings(max_examples=40)
@given(st.integers(1, 119))
def test_a_restored_snapshot_goes_on_as_if_nothing_had_happened(at: int) -> None:
    stream = bars(120, seed=2)
    straight = detector(ScriptedForecaster(), QUICK)
    expected = [straight.step(bar) for bar in stream]
    first = detector(ScriptedForecaster(), QUICK)
    before = [first.step(bar) for bar in stream[:at]]
    state = first.snapshot()
    first.step(stream[at])  # what follows a snapshot does not change it
    second = detector(ScriptedForecaster(), QUICK)
    second.restore(state)
    assert before + [second.step(bar) for bar in stream[at:]] == expected
