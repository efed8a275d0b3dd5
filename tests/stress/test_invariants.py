"""The checker sees what it is there to see: a sound run made unsound, one thing at a time."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from data.bars import Bars
from data.catalog import to_nautilus
from data.market import Market
from regime.signal import BarRejected, Level, Reason, Signal
from sage.sizing import Move
from stress.chaos import BARS, chaos_config, fault_lengths, known_faults, market_of_seed, play, recovery_bar
from stress.invariants import Evidence, same_before_cut, violations
from stress.schedule import Schedule, parse_schedule
from stress.shadow import Shadow
from stress.witness import Seen
from tests.regime.streams import HOUR_S, bars, shifted

TEXT = "model.hang@70+20,data.nan@75+2,indicators.raise@110+6,history.empty@130+14"


def scheduled(text: str, seed: int = 2) -> Schedule:
    return parse_schedule(text, seed, list(fault_lengths()), BARS)


@pytest.fixture(scope="module")
def sound() -> Evidence:
    evidence = play(scheduled(TEXT)).evidence
    assert not violations(evidence)
    return evidence


def violated(evidence: Evidence) -> set[int]:
    return {violation.invariant for violation in violations(evidence)}


def spoilt(evidence: Evidence, where: Callable[[Seen], bool], spoil: Callable[[Seen], None]) -> set[int]:
    """The invariants violated once the first bar that fits is spoilt."""
    seen = list(evidence.seen)
    index = next(index for index, one in enumerate(seen) if where(one))
    seen[index] = copy.copy(seen[index])
    spoil(seen[index])
    return violated(dataclasses.replace(evidence, seen=seen))


def of_level(level: Level) -> Callable[[Seen], bool]:
    return lambda seen: isinstance(seen.answer, Signal) and seen.answer.level is level


def with_orders(seen: Seen) -> bool:
    return bool(seen.orders) and not seen.orders[0].reduce_only


def change_signal(**changes: object) -> Callable[[Seen], None]:
    def change(seen: Seen) -> None:
        assert isinstance(seen.answer, Signal)
        seen.answer = dataclasses.replace(seen.answer, **changes)  # type: ignore[arg-type]

    return change


def change_order(**changes: object) -> Callable[[Seen], None]:
    def change(seen: Seen) -> None:
        seen.orders = [dataclasses.replace(seen.orders[0], **changes), *seen.orders[1:]]  # type: ignore[arg-type]

    return change


def test_the_sound_run_has_seen_every_level(sound: Evidence) -> None:
    assert {seen.answer.level for seen in sound.seen if isinstance(seen.answer, Signal)} == set(Level)
    assert any(isinstance(seen.answer, BarRejected) for seen in sound.seen)
    assert any(seen.orders for seen in sound.seen)


def test_a_bar_that_got_no_answer_is_noticed(sound: Evidence) -> None:
    assert 1 in violated(dataclasses.replace(sound, seen=sound.seen[:-1]))


def test_a_rejection_of_a_good_bar_is_noticed(sound: Evidence) -> None:
    def reject(seen: Seen) -> None:
        seen.answer = BarRejected("X", "no reason", seen.bar.ts_ns, seen.bar.ts_ns)

    assert 1 in spoilt(sound, of_level(Level.FULL), reject)


def test_an_answer_to_another_bar_is_noticed(sound: Evidence) -> None:
    assert 1 in spoilt(sound, of_level(Level.FULL), change_signal(ts_event=7))


def test_a_run_that_ends_early_is_noticed(sound: Evidence) -> None:
    assert 1 in violated(dataclasses.replace(sound, run=None, error="RuntimeError: x"))


def test_a_model_process_left_behind_is_noticed(sound: Evidence) -> None:
    assert violated(dataclasses.replace(sound, orphans=1)) == {1}


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        (Level.SMART, {"level": Level.FULL, "reasons": ()}),
        (Level.SMART, {"level": Level.BASIC, "reasons": (Reason.TIMEOUT,)}),
        (Level.SMART, {"level": Level.SIMPLE, "reasons": (Reason.TIMEOUT,) * 3}),
        (Level.SMART, {"reasons": (Reason.TIMEOUT,)}),
        (Level.SMART, {"reasons": (Reason.NOT_FINITE, Reason.NOT_FINITE)}),
        (Level.FULL, {"level": Level.BASIC, "reasons": (Reason.FEW_SCORES,)}),
        (Level.BASIC, {"reasons": (Reason.FEW_SCORES,)}),
        (Level.BASIC, {"level": Level.FULL, "reasons": ()}),
        (Level.SIMPLE, {"level": Level.SMART, "reasons": (Reason.WARM_UP, Reason.WARM_UP)}),
        (Level.HISTORICAL, {"level": Level.EMERGENCY, "reasons": (Reason.WARM_UP,) * 5}),
    ],
)
def test_a_level_or_reason_that_is_not_the_true_one_is_noticed(
    sound: Evidence, where: Level, changes: dict[str, object]
) -> None:
    assert spoilt(sound, of_level(where), change_signal(**changes)) == {3}


def test_level_0_on_an_answer_that_never_came_is_noticed(sound: Evidence) -> None:
    assert 3 in spoilt(sound, of_level(Level.FULL), lambda seen: setattr(seen, "received", []))


def test_level_0_on_quantiles_that_cross_is_noticed(sound: Evidence) -> None:
    def cross(seen: Seen) -> None:
        seen.received = [dataclasses.replace(one, quantiles=one.quantiles[:, :, ::-1]) for one in seen.received]

    assert 3 in spoilt(sound, of_level(Level.FULL), cross)


def test_asking_the_model_about_another_window_is_noticed(sound: Evidence) -> None:
    # Before any fault has tampered with the window.
    assert 3 in spoilt(sound, lambda seen: bool(seen.asked), lambda seen: setattr(seen, "asked", [(1, 12345)]))


def test_a_late_signal_is_noticed_on_simulated_time_only(sound: Evidence) -> None:
    assert spoilt(sound, of_level(Level.FULL), lambda seen: setattr(seen, "took_s", 0.0501)) == {4}
    on_the_wall = dataclasses.replace(sound, simulated_time=False)
    assert not spoilt(on_the_wall, of_level(Level.FULL), lambda seen: setattr(seen, "took_s", 0.0501))


@pytest.fixture(scope="module")
def thin() -> Evidence:
    """A run whose bars bear so little that positions take many bars to build up and to take down."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stress.chaos.market_of_seed", thin_market)
        return play(scheduled("history.empty@100+80", seed=3)).evidence


def thin_market(seed: int, bars: int = BARS) -> Market:
    plain = market_of_seed(seed, bars)
    columns = plain.bars.columns()
    found = Bars(*columns[:5], np.round(0.02 * columns[5], 5))
    return dataclasses.replace(plain, bars=found, nautilus_bars=to_nautilus(found, plain.instrument, plain.size))


def flattening(seen: Seen) -> bool:
    return bool(seen.orders) and seen.orders[0].move is Move.FLATTEN


def test_a_position_that_no_bar_bears_is_flattened_over_several(thin: Evidence) -> None:
    assert not violations(thin)
    orders = [seen.orders[0] for seen in thin.seen if flattening(seen)]
    assert len(orders) > 3
    assert abs(orders[0].exposure_after) > 0.1


def test_an_order_beyond_what_a_bar_bears_is_noticed(thin: Evidence) -> None:
    assert spoilt(thin, with_orders, lambda seen: change_order(quantity=2.0 * seen.orders[0].quantity)(seen)) == {5}


def test_flattening_by_less_than_a_bar_bears_is_noticed(thin: Evidence) -> None:
    assert spoilt(thin, flattening, lambda seen: change_order(quantity=0.5 * seen.orders[0].quantity)(seen)) == {5}


@pytest.mark.parametrize(
    "changes",
    [
        {"exposure_after": 1.3},
        {"exposure_before": 0.4},
        {"level": Level.EMERGENCY},
        {"reduce_only": True},
    ],
)
def test_an_order_against_the_rules_is_noticed(sound: Evidence, changes: dict[str, object]) -> None:
    assert spoilt(sound, with_orders, change_order(**changes)) == {5}


def test_an_order_on_a_rejected_bar_is_noticed(sound: Evidence) -> None:
    order = next(seen.orders[0] for seen in sound.seen if seen.orders)

    def trade(seen: Seen) -> None:
        seen.orders = [order]

    assert spoilt(sound, lambda seen: isinstance(seen.answer, BarRejected), trade) == {5}


def test_trading_at_emergency_is_noticed(sound: Evidence) -> None:
    order = next(seen.orders[0] for seen in sound.seen if seen.orders)

    def trade(seen: Seen) -> None:
        held = seen.book[-1].exposure
        seen.orders = [dataclasses.replace(order, level=Level.EMERGENCY, move=Move.SIGNAL, exposure_before=held)]

    assert 5 in spoilt(sound, of_level(Level.EMERGENCY), trade)


def test_a_reduction_before_its_time_is_noticed(sound: Evidence) -> None:
    seen = list(sound.seen)
    forced = next(i for i, one in enumerate(seen) if one.orders and one.orders[0].move is Move.FORCED)
    early = forced - 2
    seen[early] = copy.copy(seen[early])
    held = seen[early].book[-1].exposure
    level = seen[early].heard.level  # type: ignore[union-attr]
    seen[early].orders = [dataclasses.replace(seen[forced].orders[0], exposure_before=held, level=level)]
    assert 5 in violated(dataclasses.replace(sound, seen=seen))


def test_level_0_that_returns_late_or_never_is_noticed(sound: Evidence) -> None:
    back = next(seen.number for seen in sound.seen if seen.number >= sound.faults_end and of_level(Level.FULL)(seen))
    assert violated(dataclasses.replace(sound, back_by=back)) == set()
    assert violated(dataclasses.replace(sound, back_by=back - 1)) == {6}
    never = [seen for seen in sound.seen if seen.number < back]
    assert 6 in violated(dataclasses.replace(sound, seen=never))


def test_a_run_without_faults_reaches_level_0_when_enough_scores_have_matured() -> None:
    evidence = play(Schedule(4, ())).evidence
    config = evidence.config.regime
    first = next(seen.number for seen in evidence.seen if of_level(Level.FULL)(seen))
    assert first == config.model_min_bars + config.horizon_bars + config.calibration.min_scores - 1
    assert first <= recovery_bar(Schedule(4, ()), known_faults(), chaos_config())


def test_a_run_that_knows_what_follows_is_noticed() -> None:
    whole, part = play(scheduled(TEXT)).run, play(scheduled(TEXT), bars=100).run
    assert whole is not None
    assert part is not None
    assert not list(same_before_cut(whole, part))
    part.signals[-1] = dataclasses.replace(part.signals[-1], expected_return=0.5)
    assert [violation.invariant for violation in same_before_cut(whole, part)] == [2]


def test_the_shadow_believes_a_clock_that_goes_back_and_no_single_old_bar() -> None:
    config = chaos_config().regime
    shadow = Shadow(config, HOUR_S)
    stream = bars(60)
    assert all(shadow.accepts(bar) for bar in stream)
    assert not shadow.accepts(shifted(stream[-1], -5))
    assert shadow.usable_bars == 60
    back = [shadow.accepts(shifted(bar, -50 + index)) for index, bar in enumerate([stream[-1]] * 5)]
    assert back == [False] * config.max_rejects + [True] * (5 - config.max_rejects)
    assert shadow.restart is Reason.CLOCK_JUMP
