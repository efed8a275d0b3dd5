"""The catalogue: complete, described, and able to do and undo what each fault says."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from data.errors import OptionError
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from stress.campaign import CATALOGUE
from stress.faults import FAULTS, find
from stress.misbehaviour import Control, Misbehaviour
from stress.stage import Stage
from tests.regime.streams import HOUR_S, ScriptedForecaster, bars, detector

ASKED_FOR = """
model.raises model.slow model.hang model.dies model.out_of_memory model.nan model.inf model.crossed model.constant
model.absurd_width model.wrong_shape model.stale checkpoint.missing checkpoint.truncated checkpoint.wrong_sha
checkpoint.wrong_architecture hub.down hub.lying calibration.no_history calibration.corrupted indicators.raise
indicators.short_window history.empty history.corrupted data.nan data.inf data.negative_price data.zero_price
data.ohlc_inconsistent data.zero_volume data.duplicate data.out_of_order data.gap data.spike data.frozen_price
data.shifted_time_zone catalog.damaged store.damaged disk.full machine.memory_pressure clock.jump_back clock.jump_forth
signal.stale signal.out_of_range signal.impossible
"""

SETTLED = 200


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage whose detector has answered at level FULL, with a model that only a control can harm."""
    subject = detector(ScriptedForecaster())
    for bar in bars(SETTLED):
        subject.step(bar)
    control = Control()
    yield Stage(subject, None, control, np.random.default_rng(5), HOUR_S)
    control.close()


def next_bars(count: int) -> list[BarInput]:
    return bars(SETTLED + count)[SETTLED:]


def answers(stage: Stage, stream: list[BarInput]) -> list[Signal | BarRejected]:
    return [stage.detector.step(given) for bar in stream for given in stage.distort(bar)]


def test_every_fault_that_was_asked_for_is_in_the_catalogue() -> None:
    assert not set(ASKED_FOR.split()) - set(CATALOGUE)


def test_every_fault_says_what_it_does_and_how_it_ends() -> None:
    for name, fault in CATALOGUE.items():
        assert fault.name == name
        assert fault.does
        assert fault.ends


def test_reasons_are_codes_that_signals_carry() -> None:
    for fault in FAULTS.values():
        assert fault.reasons <= set(Reason), fault.name


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.needs])
def test_a_fault_that_ended_leaves_nothing_behind_on_the_stage(stage: Stage, name: str) -> None:
    fault = FAULTS[name]
    fault.begin(stage)
    for bar in next_bars(3):
        if fault.each is not None:
            fault.each(stage)
        answers(stage, [bar])
    fault.end(stage)
    assert stage.control.get()[0] is Misbehaviour.NONE
    assert not stage.bar_faults
    assert not stage.signal_faults
    bar = next_bars(100)[-1]
    assert stage.distort(bar) == [bar]
    assert all(math.isfinite(signal.expected_return) for signal in stage.detector.state.history)


@pytest.mark.parametrize("name", ["data.nan", "signal.stale", "clock.jump_back"])
def test_a_fault_may_be_at_work_twice_and_ends_once_at_a_time(stage: Stage, name: str) -> None:
    fault = FAULTS[name]
    for _ in range(2):
        fault.begin(stage)
    fault.end(stage)
    assert len(stage.bar_faults) + len(stage.signal_faults) == 1
    fault.end(stage)
    fault.end(stage)
    assert not stage.bar_faults
    assert not stage.signal_faults


def test_slow_answers_take_log_normal_times_beyond_the_deadline_that_their_seed_repeats(stage: Stage) -> None:
    slow, drawn = FAULTS["model.slow"], []
    assert slow.each is not None
    for _ in range(200):
        slow.each(stage)
        drawn.append(stage.control.get()[1])
    assert len(set(drawn)) == 200
    assert min(drawn) > 0.05
    assert np.std(np.log(drawn)) == pytest.approx(0.3, abs=0.06)
    again = dataclasses.replace(stage, rng=np.random.default_rng(5))
    slow.begin(again)
    assert again.control.get()[1] == drawn[0]


def test_signals_reach_every_model_process_through_the_stage_and_one_that_has_gone_is_no_error(stage: Stage) -> None:
    sent = []

    class Client:
        pids = (11, 12)

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        raise ProcessLookupError

    stage.client, stage.kill = Client(), kill  # type: ignore[assignment]
    for name in ("model.hang", "model.dies"):
        FAULTS[name].begin(stage)
    FAULTS["model.hang"].end(stage)
    numbers = (signal.SIGSTOP, signal.SIGKILL, signal.SIGCONT)
    assert sent == [(pid, number) for number in numbers for pid in (11, 12)]


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].failure.name == "BAR_REJECTED"])
def test_bad_bars_are_refused_and_the_window_survives_them(stage: Stage, name: str) -> None:
    fault, stream = FAULTS[name], next_bars(6)
    fault.begin(stage)
    found = answers(stage, stream[:2])
    fault.end(stage)
    assert sum(isinstance(answer, BarRejected) for answer in found) == 2
    (after,) = answers(stage, stream[2:3])
    assert isinstance(after, Signal)
    assert after.level is Level.FULL


@pytest.mark.parametrize("name", ["history.empty", "history.corrupted"])
def test_without_regimes_and_without_a_window_only_the_constant_is_left(stage: Stage, name: str) -> None:
    fault = FAULTS[name]
    fault.begin(stage)
    found = answers(stage, next_bars(1))
    assert [type(answer) for answer in found] == [BarRejected] * 3 + [Signal]
    assert isinstance(found[-1], Signal)
    assert found[-1].level is Level.EMERGENCY
    assert set(found[-1].reasons) & fault.reasons


def test_a_gap_is_longer_than_a_window_can_bridge(stage: Stage) -> None:
    FAULTS["data.gap"].begin(stage)
    (signal_after,) = answers(stage, next_bars(26))
    assert isinstance(signal_after, Signal)
    assert (signal_after.level, set(signal_after.reasons)) == (Level.HISTORICAL, {Reason.GAP})


def test_broken_indicators_keep_their_bars_and_come_back_whole(stage: Stage) -> None:
    fault, window = FAULTS["indicators.raise"], stage.detector.state.window
    before = window.closes.view().copy()
    fault.begin(stage)
    with pytest.raises(FloatingPointError):
        window.closes.view()
    bar = next_bars(1)[0]
    answers(stage, [bar])
    fault.end(stage)
    np.testing.assert_array_equal(window.closes.view(), [*before[1:], bar.close])


def test_an_unknown_fault_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(OptionError, match=r"model\.hang"):
        find(["model.hangs"], CATALOGUE)
    with pytest.raises(OptionError, match=r"data\.nan"):
        find(["data.zebra-crossing"], CATALOGUE)
