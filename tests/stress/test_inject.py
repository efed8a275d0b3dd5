"""Faults provoked in real runs: NT, actor, detector and strategy as they trade, and a real model process.

Verdicts are about levels, bars, orders and recovery; how long anything took is told and not judged.
"""

from __future__ import annotations

import dataclasses

import pytest

from data.errors import OptionError
from regime.signal import Level, Reason
from stress.campaign import placements, provoked, run_campaign
from stress.cases import MATRIX, CaseResult, InjectConfig, Place, Placement, Verdict
from stress.expectations import LEVEL_THAT_ANSWERS
from stress.faults import FAULTS
from stress.inject import check, last_equity, provoke, run_case
from stress.judgement import judge
from stress.stage import Failure
from stress.whole_runs import RUN_FAULTS

CONFIG = InjectConfig()


def case(name: str, place: Place = Place.POSITION, for_bars: int | None = None) -> CaseResult:
    return run_case(FAULTS[name], Placement(place, None, for_bars), CONFIG)


@pytest.mark.parametrize(
    ("name", "place", "level"),
    [
        ("data.zero_volume", Place.POSITION, Level.FULL),
        ("model.crossed", Place.FLAT, Level.BASIC),
        ("model.dies", Place.POSITION, Level.SMART),
        ("indicators.raise", Place.HALF_OPEN, Level.SIMPLE),
        ("data.gap", Place.POSITION, Level.HISTORICAL),
        ("history.corrupted", Place.FLAT, Level.EMERGENCY),
    ],
)
def test_each_level_answers_its_failure_through_the_real_path(name: str, place: Place, level: Level) -> None:
    result = case(name, place)
    assert result.verdict is Verdict.PASSED, result.why
    assert result.levels[level] > 0
    assert level in result.reached
    assert result.bars_lost == 0
    assert result.orders_over_cap == 0
    assert result.bars_to_full is not None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.hang", Place.HALF_OPEN),
        ("model.slow", Place.POSITION),
        ("checkpoint.wrong_sha", Place.POSITION),
        ("calibration.corrupted", Place.POSITION),
        ("indicators.short_window", Place.WARM_UP),
        ("data.duplicate", Place.WARM_UP),
        ("clock.jump_forth", Place.FLAT),
        ("machine.memory_pressure", Place.POSITION),
        ("signal.endless_volatility", Place.POSITION),
    ],
)
def test_each_family_is_survived(name: str, place: Place) -> None:
    result = case(name, place)
    assert result.verdict is Verdict.PASSED, result.why
    assert result.bars_lost == 0


@pytest.mark.parametrize("name", ["hub.lying", "store.damaged", "catalog.damaged"])
def test_what_is_wrong_before_the_first_bar_is_survived_or_said(name: str) -> None:
    result = provoked(RUN_FAULTS[name], Placement(Place.WHOLE_RUN), CONFIG)
    assert result.verdict is Verdict.PASSED, result.why


def test_a_model_that_fails_early_is_answered_by_what_the_window_bears_already() -> None:
    result = case("model.raises", Place.WARM_UP)
    assert result.verdict is Verdict.PASSED, result.why
    assert set(result.levels) == {Level.SIMPLE, Level.SMART}
    assert result.reasons[Reason.MODEL_ERROR] > 0


def test_a_wrong_expectation_fails_with_the_first_bar_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVEL_THAT_ANSWERS, Failure.QUANTILES_UNSOUND, Level.SIMPLE)
    result = case("model.crossed")
    assert result.verdict is Verdict.FAILED
    assert "BASIC (reasons: CROSSED_QUANTILES), due was SIMPLE" in result.why
    assert f"the first at bar {result.began_at_bar}" in result.why


def test_a_fault_that_nobody_felt_is_no_pass() -> None:
    idle = dataclasses.replace(FAULTS["model.raises"], failure=Failure.HARMLESS, begin=lambda stage: None, each=None)
    result = run_case(idle, Placement(Place.POSITION, None, 5), CONFIG)
    assert result.verdict is Verdict.FAILED
    assert "none of the reasons MODEL_ERROR was recorded" in result.why


def test_a_place_that_is_never_reached_is_no_pass() -> None:
    # In so few bars the breaker cannot be driven open and wait.
    result = run_case(FAULTS["model.nan"], Placement(Place.HALF_OPEN, None, 5), dataclasses.replace(CONFIG, bars=175))
    assert result.verdict is Verdict.NOT_PLACED
    assert "never reached in 175 bars" in result.why


def test_a_fault_that_never_ends_fails_for_want_of_level_0() -> None:
    endless = dataclasses.replace(FAULTS["model.raises"], end=lambda stage: None)
    result = run_case(endless, Placement(Place.POSITION, None, 15), dataclasses.replace(CONFIG, bars=260))
    assert result.verdict is Verdict.FAILED
    assert "level 0 did not return" in result.why


def test_lost_bars_and_orders_beyond_their_cap_are_found() -> None:
    fault, placement = FAULTS["model.nan_tails"], Placement(Place.POSITION, None, 10)
    run, rig = provoke(fault, placement, CONFIG)
    seen = rig.witnessed()
    assert judge(fault, placement, CONFIG, run, seen).verdict is Verdict.PASSED
    lost = judge(fault, placement, CONFIG, run, dataclasses.replace(seen, given=seen.given + 2))
    assert (lost.verdict, lost.bars_lost) == (Verdict.FAILED, 2)
    run.sent_orders.append(dataclasses.replace(run.sent_orders[0], cap=0.2, exposure_before=0.1, exposure_after=0.3))
    over = judge(fault, placement, CONFIG, run, seen)
    assert (over.verdict, over.orders_over_cap) == (Verdict.FAILED, 1)


def test_a_signal_with_too_few_reasons_is_found() -> None:
    fault, placement = FAULTS["model.nan_tails"], Placement(Place.POSITION, None, 10)
    run, rig = provoke(fault, placement, CONFIG)
    run.signals[-1] = dataclasses.replace(run.signals[-1], level=Level.SMART, reasons=())
    result = judge(fault, placement, CONFIG, run, rig.witnessed())
    assert result.verdict is Verdict.FAILED
    assert "one reason for each level" in result.why


def test_the_same_fault_can_begin_at_any_bar_and_shows_in_the_timeline() -> None:
    result = run_case(FAULTS["model.nan"], Placement(Place.AT_BAR, 190, 7), CONFIG)
    assert result.verdict is Verdict.PASSED, result.why
    assert (result.began_at_bar, result.for_bars) == (190, 7)
    assert result.timeline[result.fault_begins : result.fault_ends] == [Level.SMART] * 7
    assert result.timeline[result.fault_begins - 1] == Level.FULL


def test_a_baseline_is_the_same_market_to_its_end() -> None:
    # Both runs are compared to the last cent: no answer may be late because the machine is busy with something else.
    config = dataclasses.replace(CONFIG, bars=260, baseline=True, deadline_ms=20_000.0)
    harmless = run_case(FAULTS["data.zero_volume"], Placement(Place.POSITION), config)
    assert harmless.verdict is Verdict.PASSED, harmless.why
    assert harmless.baseline_equity is not None
    assert harmless.cost is not None
    bare, _ = provoke(None, Placement(Place.AT_BAR, 1), config)
    assert len(bare.signals) == 260
    assert harmless.cost == pytest.approx(harmless.baseline_equity - last_equity(bare))


@pytest.mark.parametrize(
    ("placement", "changes", "said"),
    [
        (Placement(Place.AT_BAR, 0, 5), {}, "--at 0"),
        (Placement(Place.AT_BAR, 5_000, 5), {}, "--at 5000"),
        (Placement(Place.AT_BAR, 1_190, 20), {}, "outlast"),
        (Placement(Place.FLAT, None, 0), {}, "--for 0"),
        (Placement(Place.FLAT), {"bars": 100}, "--bars 100"),
        (Placement(Place.FLAT), {"deadline_ms": 2.0}, "--deadline-ms 2"),
    ],
)
def test_impossible_times_and_lengths_are_refused(placement: Placement, changes: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        check(dataclasses.replace(CONFIG, **changes), placement, FAULTS["model.nan"])  # type: ignore[arg-type]


def test_a_kind_of_place_and_a_bar_exclude_each_other() -> None:
    assert [placement.place for placement in placements(None, None, None)] == list(MATRIX)
    with pytest.raises(OptionError, match="exclude"):
        placements("flat", 100, None)
    with pytest.raises(OptionError, match="--where nowhere"):
        placements("nowhere", None, None)


def test_what_is_absent_is_refused_by_name_and_skipped_in_the_whole_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.needs._CHECKS", dict.fromkeys(("process", "native", "hub"), lambda config: "not here"))
    nothing = {name: FAULTS[name] for name in ("machine.memory_pressure",)} | {"hub.down": RUN_FAULTS["hub.down"]}
    monkeypatch.setattr("stress.campaign.CATALOGUE", nothing)
    with pytest.raises(OptionError, match=r"hub\.down cannot be provoked here: not here"):
        run_campaign(["hub.down"], placements("flat", None, None), CONFIG)
    campaign = run_campaign([], placements("flat", None, None), CONFIG)
    assert [result.verdict for result in campaign.results] == [Verdict.SKIPPED] * 2
    assert "never reached" in campaign.problems[0]


@pytest.mark.long
def test_the_whole_catalogue_is_survived_at_every_place() -> None:
    campaign = run_campaign([], placements(None, None, None), CONFIG)
    assert campaign.problems == []
    assert list(campaign.reached) == list(Level)


def test_a_model_whose_forecasts_are_worse_than_none_is_found_out_and_forgiven() -> None:
    result = case("model.worthless", Place.WARM_UP)
    assert result.verdict is Verdict.PASSED, result.why
    assert result.reasons[Reason.UNHEALTHY] > 20
    assert result.bars_to_full is not None
    assert result.bars_to_full > 50
