"""The table of levels and the bound on recovery: written from the architecture, and complete."""

from __future__ import annotations

import pytest

from regime.config import RegimeConfig
from regime.serving.config import ServingConfig
from regime.signal import Level
from stress.expectations import (
    LEVEL_THAT_ANSWERS,
    Damage,
    Footing,
    expected,
    levels_allowed,
    levels_allowed_afterwards,
    must_be_seen,
    recovery_bound_bars,
)
from stress.stage import Failure

CONFIG = RegimeConfig()
FIRM = Footing(usable_bars=512, scores=500, earlier_signals=100)
SERVING = ServingConfig(back_off_s=0.05, back_off_max_s=0.2)


def bound(damage: Damage, bar_s: float = 0.01, load_s: float = 0.3) -> int:
    return recovery_bound_bars(damage, CONFIG, SERVING, bar_s, load_s)


@pytest.mark.parametrize("failure", [failure for failure in Failure if failure is not Failure.RUN_REFUSED])
def test_every_failure_has_its_level(failure: Failure) -> None:
    best, worst = levels_allowed(failure, FIRM, CONFIG)
    assert best <= LEVEL_THAT_ANSWERS[failure] <= worst
    assert expected(failure)


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (Failure.QUANTILES_UNSOUND, Level.BASIC),
        (Failure.CALIBRATION_LOST, Level.BASIC),
        (Failure.NO_USABLE_ANSWER, Level.SMART),
        (Failure.CHECKPOINT_UNUSABLE, Level.SMART),
        (Failure.INDICATORS_FAIL, Level.SIMPLE),
        (Failure.NO_HISTORY, Level.EMERGENCY),
    ],
)
def test_on_firm_footing_exactly_one_level_may_answer(failure: Failure, level: Level) -> None:
    assert levels_allowed(failure, FIRM, CONFIG) == (level, level)


@pytest.mark.parametrize(
    ("usable_bars", "level"), [(64, Level.SMART), (63, Level.SIMPLE), (3, Level.SIMPLE), (2, Level.HISTORICAL)]
)
def test_a_level_without_its_precondition_is_not_asked_for(usable_bars: int, level: Level) -> None:
    footing = Footing(usable_bars, scores=500, earlier_signals=5)
    assert levels_allowed(Failure.NO_USABLE_ANSWER, footing, CONFIG) == (level, level)


def test_without_scores_nothing_better_than_basic_may_answer() -> None:
    footing = Footing(usable_bars=200, scores=CONFIG.calibration.min_scores - 1, earlier_signals=100)
    assert levels_allowed(Failure.HARMLESS, footing, CONFIG) == (Level.BASIC, Level.BASIC)
    assert levels_allowed(Failure.MARKET_STRANGE, footing, CONFIG) == (Level.BASIC, Level.BASIC)


def test_without_a_signal_before_it_only_the_constant_may_answer() -> None:
    assert levels_allowed(Failure.WINDOW_UNUSABLE, Footing(1, 0, 0), CONFIG) == (Level.EMERGENCY, Level.EMERGENCY)


def test_an_unusable_window_must_be_seen_as_such_at_least_once() -> None:
    assert must_be_seen(Failure.WINDOW_UNUSABLE) is Level.HISTORICAL
    assert must_be_seen(Failure.NO_HISTORY) is Level.EMERGENCY
    assert must_be_seen(Failure.HARMLESS) is None


def test_afterwards_a_model_may_be_on_its_way_and_a_strange_market_has_nothing_to_wait_for() -> None:
    assert levels_allowed_afterwards(Failure.NO_USABLE_ANSWER, FIRM, CONFIG) == (Level.FULL, Level.SMART)
    assert levels_allowed_afterwards(Failure.MARKET_STRANGE, FIRM, CONFIG) == (Level.FULL, Level.BASIC)


def test_forecasts_that_are_worse_than_none_may_go_unnoticed_for_a_while_and_not_for_good() -> None:
    assert levels_allowed(Failure.FORECASTS_WORTHLESS, FIRM, CONFIG) == (Level.FULL, Level.BASIC)
    assert must_be_seen(Failure.FORECASTS_WORTHLESS) is Level.BASIC


def test_a_model_found_unhealthy_has_to_show_good_forecasts_first() -> None:
    health = bound(Damage(health=True))
    assert health > CONFIG.health.recent_bars + CONFIG.horizon_bars
    assert bound(Damage(health=True, window=True)) == health


def test_the_breaker_is_always_waited_for() -> None:
    assert bound(Damage()) == CONFIG.breaker.open_bars + CONFIG.breaker.probes


def test_what_goes_on_at_once_counts_by_the_longest() -> None:
    window, strange = bound(Damage(window=True)), bound(Damage(strange_bars=True))
    assert window == CONFIG.max_rejects + CONFIG.model_min_bars
    assert bound(Damage(window=True, strange_bars=True)) == max(window, strange) == CONFIG.context_bars + 1


def test_scores_come_after_all_that_must_be_there_to_make_them() -> None:
    plain, lost = Damage(window=True), Damage(window=True, scores_short=100)
    assert bound(lost) - bound(plain) == 100 + CONFIG.horizon_bars


def test_a_process_takes_bars_by_the_pace_at_which_they_come() -> None:
    breaker = CONFIG.breaker.open_bars + CONFIG.breaker.probes
    assert bound(Damage(process=True), bar_s=0.01, load_s=0.3) == 50 + breaker
    assert bound(Damage(process=True), bar_s=60.0, load_s=0.3) == 1 + breaker
