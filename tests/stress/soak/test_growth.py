"""Leaks are found, noise is not called a leak, and what cannot be decided is not decided."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress.soak.growth import SETTLING_BARS, SETTLING_MB, GrowthVerdict, beyond_control, growth_of
from stress.soak.pieces import Trace
from stress.soak.slopes import Slope
from stress.soak.traces import Noise, simulated
from tests.stress.soak.recorded import recorded
from tests.stress.soak.recorder import LEAK_MB_PER_MINUTE

CLEAN = ("arrays", "churn")
LEAKING = ("objects", "native")
SEED = 60_000
"""Neither the study's seeds nor those on which the settings were chosen."""


def steady(hours: float = 2.0, leak: float = 0.0, noise_mb: float = 0.5, generations: int = 1, seed: int = 1) -> Trace:
    """White noise on saw teeth, a sample each ten seconds, segments of eight samples."""
    count = round(hours * 360)
    index = np.arange(count)
    at = index / 360.0
    memory = 250.0 + leak * at + 3.0 * (index % 8) + np.random.default_rng(seed).normal(0.0, noise_mb, count)
    # A worker goes between two segments.
    generation = (index // 8) * generations // (count // 8 + 1)
    return Trace(at, index * 1_000.0, memory, index % 8, generation)


def with_memory(trace: Trace, memory: np.ndarray) -> Trace:
    return dataclasses.replace(trace, megabytes=memory)


def leaking(trace: Trace, leak: float) -> Trace:
    return with_memory(trace, trace.megabytes + leak * trace.hours)


def slope_of(trace: Trace) -> Slope:
    slope = growth_of(trace).per_hour
    assert slope is not None
    return slope


def assert_alike(one: Slope, other: Slope, shift: float = 0.0, factor: float = 1.0) -> None:
    expected = [factor * value + shift for value in dataclasses.astuple(one)]
    assert dataclasses.astuple(other) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", CLEAN)
def test_a_real_process_without_a_leak_is_not_called_leaking(kind: str) -> None:
    growth = growth_of(recorded(kind))
    assert growth.verdict is not GrowthVerdict.FAILED
    assert growth.per_hour is not None
    assert growth.per_hour.lower <= 0.0 <= growth.per_hour.upper


@pytest.mark.parametrize("kind", LEAKING)
def test_a_real_process_with_a_leak_is_called_leaking_and_its_rate_is_known(kind: str) -> None:
    growth = growth_of(recorded(kind))
    assert growth.verdict is GrowthVerdict.FAILED
    assert growth.per_hour is not None
    assert growth.per_hour.lower <= LEAK_MB_PER_MINUTE <= growth.per_hour.upper


def test_a_leak_planted_in_a_real_trace_is_found() -> None:
    assert growth_of(recorded("churn")).verdict is GrowthVerdict.PASSED
    assert growth_of(leaking(recorded("churn"), 20.0)).verdict is GrowthVerdict.FAILED


def test_backtests_in_one_process_grow_with_their_bars_however_fast_they_run() -> None:
    trace = recorded("backtests")
    growth = growth_of(trace)
    assert growth.verdict is GrowthVerdict.FAILED
    assert growth.per_100k_bars is not None
    # What the ends of the trace say, at equal phases.
    ends = np.flatnonzero(trace.phase == 0)[[40, -1]]
    rate = np.diff(trace.megabytes[ends])[0] / np.diff(trace.bars[ends])[0] * 1e5
    assert growth.per_100k_bars.estimate == pytest.approx(rate, rel=0.01)
    assert growth.per_100k_bars.upper - growth.per_100k_bars.lower < 0.01 * rate


def test_saw_teeth_are_no_growth() -> None:
    growth = growth_of(steady(noise_mb=0.0))
    assert growth.verdict is GrowthVerdict.PASSED
    assert growth.per_hour == Slope(0.0, 0.0, 0.0)
    assert growth.growth_mb == 0.0


def test_recycled_workers_neither_hide_a_leak_nor_fake_one() -> None:
    for leak, verdict in ((0.0, GrowthVerdict.PASSED), (20.0, GrowthVerdict.FAILED)):
        trace = steady(hours=4.0, leak=leak, generations=4)
        for step in (-leak, +20.0):  # back where it began each hour, or higher with each worker
            growth = growth_of(with_memory(trace, trace.megabytes + step * trace.generation))
            assert growth.verdict is verdict
            assert growth.generations == 4
            assert growth.per_hour is not None
            assert growth.per_hour.estimate == pytest.approx(leak, abs=1.0)


def test_a_trace_judged_again_comes_out_the_same() -> None:
    assert growth_of(recorded("arrays")) == growth_of(recorded("arrays"))


@settings(max_examples=15)
@given(st.lists(st.floats(-500.0, 500.0), min_size=4, max_size=4))
def test_a_shift_of_level_between_generations_changes_nothing(levels: list[float]) -> None:
    trace = steady(hours=4.0, leak=8.0, generations=4)
    shifted = with_memory(trace, trace.megabytes + np.array(levels)[trace.generation])
    assert_alike(slope_of(trace), slope_of(shifted))


@settings(max_examples=15)
@given(st.floats(-1e4, 1e4), st.integers(0, 10**7))
def test_a_shift_of_time_or_bars_changes_nothing(hours: float, bars: int) -> None:
    trace = simulated(Noise.AR_990, 2.0, 10.0, SEED)
    assert_alike(
        slope_of(trace), slope_of(dataclasses.replace(trace, hours=trace.hours + hours, bars=trace.bars + bars))
    )


@settings(max_examples=15)
@given(st.floats(0.01, 100.0))
def test_memory_in_other_units_has_its_slope_in_them(factor: float) -> None:
    trace = simulated(Noise.AR_990, 2.0, 10.0, SEED)
    assert_alike(slope_of(trace), slope_of(with_memory(trace, factor * trace.megabytes)), factor=factor)


@settings(max_examples=15)
@given(st.floats(-200.0, 200.0), st.sampled_from([Noise.AR_995, Noise.WALK, Noise.RECYCLED]))
def test_a_leak_moves_the_interval_by_its_size(leak: float, noise: Noise) -> None:
    trace = simulated(noise, 2.0, 0.0, SEED)
    # Medians of steep pieces are other samples than those of level ones: all but the same.
    before, after = slope_of(trace), slope_of(leaking(trace, leak))
    moved = [leak + value for value in dataclasses.astuple(before)]
    assert dataclasses.astuple(after) == pytest.approx(moved, abs=0.15 * (before.upper - before.lower))


@settings(max_examples=15)
@given(st.sets(st.integers(0, 89), max_size=12), st.floats(-1e3, 1e5))
def test_a_spike_in_a_segment_hardly_moves_the_slope(segments: set[int], size: float) -> None:
    trace = steady(leak=10.0)
    memory = trace.megabytes.copy()
    memory[[8 * segment + 3 for segment in segments]] += size
    slope = slope_of(with_memory(trace, memory))
    assert slope.estimate == pytest.approx(slope_of(trace).estimate, abs=0.3)
    assert growth_of(with_memory(trace, memory)).verdict is GrowthVerdict.FAILED


def test_samples_that_failed_are_passed_over() -> None:
    trace = steady(leak=20.0)
    memory = trace.megabytes.copy()
    memory[::7] = np.nan
    growth = growth_of(with_memory(trace, memory))
    assert growth.verdict is GrowthVerdict.FAILED
    assert growth.samples < growth_of(trace).samples


@pytest.mark.parametrize("samples", [0, 1, 30, 70])
def test_too_few_samples_decide_nothing(samples: int) -> None:
    growth = growth_of(steady(leak=1_000.0).at(np.arange(samples)))
    assert growth.verdict is GrowthVerdict.UNDECIDED
    assert growth.per_hour is None
    assert growth.smallest_leak_mb_per_hour is None
    assert "run longer" in growth.reason


def test_samples_without_time_between_them_decide_nothing() -> None:
    growth = growth_of(dataclasses.replace(steady(), hours=np.zeros(720)))
    assert growth.verdict is GrowthVerdict.UNDECIDED
    assert "time does not pass" in growth.reason


def test_generations_too_short_decide_nothing() -> None:
    growth = growth_of(steady(hours=4.0, leak=50.0, generations=60))
    assert growth.verdict is GrowthVerdict.UNDECIDED
    assert growth.samples == 0
    assert "recycle less often" in growth.reason


def test_an_hour_of_slow_noise_says_what_it_could_have_found() -> None:
    growth = growth_of(simulated(Noise.WALK, 1.0, 0.0, SEED))
    assert growth.verdict is GrowthVerdict.UNDECIDED
    assert growth.smallest_leak_mb_per_hour is not None
    assert growth.smallest_leak_mb_per_hour > 20.0


def test_a_run_that_ends_while_histories_fill_says_what_it_could_have_found_beyond_them() -> None:
    bars = 10**6
    growth, whole = growth_of(steady(), settling_bars=bars), growth_of(steady())
    assert growth.verdict is GrowthVerdict.UNDECIDED and growth.per_hour is None
    smallest = growth.smallest_leak_mb_per_hour
    assert smallest is not None and whole.smallest_leak_mb_per_hour is not None
    assert smallest == pytest.approx(whole.smallest_leak_mb_per_hour + SETTLING_MB / whole.hours)
    found = growth_of(steady(leak=1.1 * smallest), settling_bars=bars)
    assert found.verdict is GrowthVerdict.FAILED
    assert found.smallest_leak_mb_per_hour == pytest.approx(smallest, rel=0.1)


def test_much_growth_fails_where_it_is_sure_and_never_passes() -> None:
    sure = growth_of(steady(leak=400.0), leak_limit_mb_per_hour=1_000.0)
    assert sure.verdict is GrowthVerdict.FAILED
    assert "grew by" in sure.reason
    # One step up and nothing else: much growth, but no slope that could be told from noise.
    trace = steady()
    step = growth_of(with_memory(trace, trace.megabytes + 600.0 * (trace.hours > 1.0)), leak_limit_mb_per_hour=2_000.0)
    assert step.growth_mb == pytest.approx(600.0, abs=2.0)
    assert step.verdict is GrowthVerdict.UNDECIDED


def test_the_limit_is_the_callers() -> None:
    trace = steady(leak=20.0)
    assert growth_of(trace, leak_limit_mb_per_hour=30.0).verdict is GrowthVerdict.PASSED
    assert growth_of(trace, leak_limit_mb_per_hour=10.0).verdict is GrowthVerdict.FAILED


def test_what_the_control_run_loses_too_is_not_ours() -> None:
    ours, control = steady(leak=60.0, seed=2), steady(leak=55.0, seed=3)
    # The control runs through the same bars in a tenth of the time, from another level, and stops a little earlier.
    control = dataclasses.replace(control, hours=control.hours / 10.0, megabytes=control.megabytes - 100.0)
    control = control.at(np.arange(len(control.hours) - 24))
    beyond = beyond_control(ours, control)
    assert len(beyond.hours) == len(control.hours)
    assert slope_of(beyond).estimate == pytest.approx(5.0, abs=0.5)
    assert growth_of(ours).verdict is growth_of(control).verdict is GrowthVerdict.FAILED


def test_the_control_is_compared_between_its_samples_but_not_across_its_recyclings() -> None:
    ours, control = steady(noise_mb=0.0), steady(noise_mb=0.0, generations=2)
    # Every second segment, and a jump where the control's worker was replaced.
    control = with_memory(control, 2.0 * control.megabytes + control.bars / 1e4 + 300.0 * control.generation)
    control = control.at(np.flatnonzero(np.arange(len(control.hours)) // 8 % 2 == 0))
    beyond = beyond_control(ours, control)
    assert 0.9 * len(ours.hours) < len(beyond.hours) < len(ours.hours)
    level = np.where(beyond.generation == 0, 0.0, 300.0)
    expected = -(250.0 + 3.0 * beyond.phase + beyond.bars / 1e4 + level)
    assert beyond.megabytes == pytest.approx(expected)


def test_a_trace_with_arrays_that_do_not_fit_is_refused() -> None:
    trace = steady()
    with pytest.raises(ValueError, match="one length"):
        dataclasses.replace(trace, bars=trace.bars[:-1])
    with pytest.raises(ValueError, match="forward in time"):
        dataclasses.replace(trace, hours=trace.hours[::-1])


def filling(hours: float, bars: int, megabytes: float = 13.0) -> Trace:
    """Histories that fill over the first 9,000 bars, and nothing after that."""
    trace = steady(hours, noise_mb=0.1)
    bar = trace.bars * bars / trace.bars[-1]
    filled = with_memory(trace, trace.megabytes + megabytes * np.minimum(bar / 9_000.0, 1.0))
    return dataclasses.replace(filled, bars=bar)


def test_histories_that_fill_are_no_leak_while_they_fill_nor_when_they_are_full() -> None:
    young = filling(0.5, 6_000)
    assert growth_of(young).verdict is GrowthVerdict.FAILED
    judged = growth_of(young, settling_bars=SETTLING_BARS)
    assert judged.verdict is GrowthVerdict.UNDECIDED
    assert "histories fill" in judged.reason
    assert growth_of(filling(2.0, 60_000), settling_bars=SETTLING_BARS).verdict is GrowthVerdict.PASSED


def test_a_leak_larger_than_any_history_is_found_while_histories_fill() -> None:
    young = filling(0.5, 6_000)
    judged = growth_of(leaking(young, 200.0), settling_bars=SETTLING_BARS)
    assert judged.verdict is GrowthVerdict.FAILED
    assert "beyond what" in judged.reason


def test_each_process_has_histories_of_its_own_to_fill() -> None:
    one = filling(0.5, 6_000)
    second = dataclasses.replace(
        one, hours=one.hours + 0.5, bars=one.bars + 6_000, generation=np.ones_like(one.generation)
    )
    both = Trace(*(np.concatenate(pair) for pair in zip(vars(one).values(), vars(second).values(), strict=True)))
    assert growth_of(both, settling_bars=SETTLING_BARS).verdict is GrowthVerdict.UNDECIDED
