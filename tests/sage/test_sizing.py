"""Exposure obeys its rules, bar by bar."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.signal import EXPOSURE_CAP, Direction, Level, Reason, Signal, VolatilityState
from sage.sizing import DrawdownBrake, ExposurePolicy, Move, SizingConfig, ensemble_uncertainty, problem_with

CONFIG = SizingConfig(max_exposure=1.0, rebalance_band=0.05, degrade_hold_bars=3, emergency_flatten_bars=5)
BARS_PER_YEAR = 8760.0


def signal(level: Level = Level.FULL, direction: Direction = Direction.BULL, volatility: float = 0.002) -> Signal:
    return Signal(
        instrument_id="TEST.SIM",
        direction=direction,
        volatility_state=VolatilityState.LOW,
        confidence=0.6,
        uncertainty=0.5,
        expected_return=0.01,
        interval_low=-0.02,
        interval_high=0.04,
        bar_interval_low=-0.004,
        bar_interval_high=0.005,
        realised_volatility=volatility,
        forecast_volatility=volatility,
        transition_probability=0.01,
        level=level,
        reasons=(Reason.TIMEOUT,) * level,
        checkpoint_id="",
        ts_event=1,
        ts_init=1,
    )


def policy(*, allow_short: bool = False) -> ExposurePolicy:
    return ExposurePolicy(CONFIG, BARS_PER_YEAR, allow_short=allow_short)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Level),
            st.floats(-1, 1) | st.just(math.nan),
            st.sampled_from(Direction),
            st.floats(0, 1),
            st.floats(1, 1000),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_no_order_increases_exposure_beyond_the_cap_of_its_level(
    stream: list[tuple[Level, float, Direction, float, float]], allow_short: bool
) -> None:
    subject = policy(allow_short=allow_short)
    exposure = 0.0
    for level, conviction, direction, disagreement, equity in stream:
        target = subject.decide(signal(level, direction), conviction, exposure, disagreement, equity)
        cap = EXPOSURE_CAP[level] * CONFIG.max_exposure
        if abs(target.exposure) > abs(exposure):
            assert abs(target.exposure) <= cap
        if target.move is Move.NONE:
            assert target.exposure == exposure
        if not allow_short:
            assert target.exposure >= 0.0
        exposure = target.exposure


def test_a_calm_market_is_held_at_the_cap_and_a_wild_one_below_it() -> None:
    calm = policy().decide(signal(volatility=0.0005), 1.0, 0.0)
    wild = policy().decide(signal(volatility=0.01), 1.0, 0.0)
    assert calm.exposure == CONFIG.max_exposure
    assert wild.exposure == pytest.approx(CONFIG.target_volatility / (0.01 * math.sqrt(BARS_PER_YEAR)))


def test_shorts_need_permission() -> None:
    assert policy().decide(signal(direction=Direction.BEAR), -1.0, 0.0).exposure == 0.0
    assert policy(allow_short=True).decide(signal(direction=Direction.BEAR), -1.0, 0.0).exposure < 0.0


def test_a_forced_reduction_waits_a_few_bars() -> None:
    subject = policy()
    moves = [subject.decide(signal(Level.SMART, volatility=0.0005), 1.0, 1.0) for _ in range(4)]
    assert [target.move for target in moves] == [Move.NONE] * 3 + [Move.FORCED]
    assert moves[-1].exposure == EXPOSURE_CAP[Level.SMART]


def test_one_late_answer_costs_no_trade() -> None:
    subject = policy()
    full, late = signal(volatility=0.0005), signal(Level.SMART, volatility=0.0005)
    for answer in (full, late, late, full, late, late, full):
        assert subject.decide(answer, 1.0, 1.0).move is Move.NONE


def test_a_second_step_down_is_held_like_the_first() -> None:
    subject = policy()
    held, moves = 1.0, []
    for level in [Level.SMART] * 4 + [Level.SIMPLE] + [Level.SMART] * 2 + [Level.SIMPLE] * 4:
        target = subject.decide(signal(level, volatility=0.0005), 1.0, held)
        moves.append(target.move)
        held = target.exposure
    # One SIMPLE answer among SMART ones forces nothing; four in a row do.
    assert [bar for bar, move in enumerate(moves) if move is Move.FORCED] == [3, 10]
    assert held == EXPOSURE_CAP[Level.SIMPLE]


def test_levels_that_alternate_reduce_to_the_better_one_and_no_further() -> None:
    subject = policy()
    held, forced = 1.0, 0
    for level in [Level.SIMPLE, Level.SMART] * 6:
        target = subject.decide(signal(level, volatility=0.0005), 1.0, held)
        forced += target.move is Move.FORCED
        held = target.exposure
    assert held == EXPOSURE_CAP[Level.SMART]
    assert forced == 1


def test_emergency_holds_opens_nothing_and_flattens_in_the_end() -> None:
    subject = policy()
    emergency = signal(Level.EMERGENCY, Direction.UNKNOWN)
    assert subject.decide(emergency, 1.0, 0.0).exposure == 0.0
    held = [subject.decide(emergency, 1.0, 0.6) for _ in range(4)]
    assert [target.move for target in held] == [Move.NONE] * 3 + [Move.FLATTEN]
    assert held[-1].exposure == 0.0


def test_no_opinion_means_hold() -> None:
    target = policy().decide(signal(Level.SIMPLE, Direction.UNKNOWN), 1.0, 0.3)
    assert (target.move, target.exposure) == (Move.NONE, 0.3)


def test_small_differences_are_not_traded() -> None:
    subject = policy()
    wanted = subject.decide(signal(), 1.0, 0.0).exposure
    assert subject.decide(signal(), 1.0, wanted - 0.04).move is Move.NONE
    assert subject.decide(signal(), 1.0, wanted - 0.06).move is Move.SIGNAL


def test_a_target_of_nothing_is_reached_even_within_the_band() -> None:
    assert policy().decide(signal(), 0.0, 0.02).exposure == 0.0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ts_event": 2}, "stale"),
        ({"confidence": 1.5}, "confidence"),
        ({"uncertainty": -0.1}, "uncertainty"),
        ({"transition_probability": math.nan}, "transition_probability"),
        ({"expected_return": math.nan}, "expected return"),
        ({"interval_low": 0.02}, "outside its interval"),
        ({"bar_interval_low": 0.02}, "ends before it begins"),
        ({"bar_interval_high": math.nan}, "ends before it begins"),
        ({"realised_volatility": -1.0}, "volatility is negative"),
        ({"forecast_volatility": math.inf}, "volatility is negative or not finite"),
        ({"realised_volatility": math.nan}, "volatility is negative or not finite"),
        ({"reasons": (Reason.TIMEOUT,)}, "reasons"),
    ],
)
def test_impossible_signals_are_not_traded_on(change: dict[str, object], problem: str) -> None:
    found = problem_with(dataclasses.replace(signal(), **change), bar_ts_ns=1)  # type: ignore[arg-type]
    assert found is not None
    assert problem in found


def test_a_sound_signal_has_no_problem() -> None:
    assert problem_with(signal(), bar_ts_ns=1) is None
    assert problem_with(signal(Level.SMART), bar_ts_ns=1) is None


def test_disagreement_takes_off_what_may_be_held_and_total_disagreement_closes() -> None:
    def held(disagreement: float) -> float:
        return policy().decide(signal(volatility=0.0005), 1.0, 0.0, disagreement).exposure

    # The signal's own uncertainty is 0.5: up to 0.7 in all the size is whole.
    assert held(0.0) == held(0.39) == CONFIG.max_exposure
    assert held(0.7) == pytest.approx(0.5 * CONFIG.max_exposure)
    assert held(1.0) == 0.0
    assert policy().decide(signal(volatility=0.0005), 1.0, 0.6, 1.0).exposure == 0.0


def test_uncertainty_never_lifts_the_cap_of_a_level() -> None:
    sure = dataclasses.replace(signal(Level.SMART, volatility=0.0005), uncertainty=0.0)
    assert policy().decide(sure, 1.0, 0.0, 0.0).exposure == EXPOSURE_CAP[Level.SMART]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_uncertainty_grows_with_either_of_its_parts(own: float, disagreement: float, more: float) -> None:
    together = ensemble_uncertainty(own, disagreement)
    assert max(own, disagreement) - 1e-12 <= together <= 1.0
    assert ensemble_uncertainty(own, max(disagreement, more)) >= together - 1e-12


def test_where_nobody_votes_the_position_is_held() -> None:
    assert policy().decide(signal(volatility=0.0005), math.nan, 0.4).move is Move.NONE
    assert policy().decide(signal(Level.SMART, volatility=0.0005), math.nan, 0.9).move is Move.NONE


def test_after_a_loss_positions_are_smaller_until_it_is_made_up_for_in_good_part() -> None:
    brake = DrawdownBrake(CONFIG)
    factors = [brake.factor(equity) for equity in (100, 81, 79, 89, 81, 91, 81, 120, 97, 95)]
    assert factors == [1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 1, 0.5]
    subject = policy()
    assert subject.decide(signal(volatility=0.0005), 1.0, 0.0, 0.0, 100.0).exposure == 1.0
    braked = subject.decide(signal(volatility=0.0005), 1.0, 1.0, 0.0, 75.0)
    assert (braked.exposure, braked.move) == (0.5, Move.SIGNAL)


def test_nothing_left_is_a_drawdown_like_any_other() -> None:
    brake = DrawdownBrake(CONFIG)
    assert [brake.factor(equity) for equity in (0.0, 10.0, 0.0, -5.0)] == [1.0, 1.0, 0.5, 0.5]
