"""What people hear of: raised when it has lasted, cleared when it is surely over, and never twice in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.alerts import Alert, Severity
from regime.config import RegimeConfig
from sage.processes import MachineSample
from sage.vitals import LatencyFigures, Vitals
from sage.watch import DRIFT_STREAMS, Watch, WatchConfig, rules
from tests.regime.streams import ScriptedForecaster, bars, detector, normal_forecast, signals_of

CONFIG = WatchConfig()
Change = tuple[float, str, bool]


def changes(stream: Sequence[Vitals], watch: Watch | None = None) -> list[Change]:
    """When which alert came or went."""
    watch = watch or Watch(CONFIG)
    return [(vitals.elapsed_s, alert.name, alert.raised) for vitals in stream for alert in watch.see(vitals)]


def every_second(make: Callable[[int], Vitals], seconds: int) -> list[Vitals]:
    return [dataclasses.replace(make(at), elapsed_s=float(at), ts_ns=at * 10**9) for at in range(seconds)]


def memory(share: float, gpu: float | None = None) -> Vitals:
    gpu_bytes = None if gpu is None else int(gpu * 1000)
    return Vitals(machine=MachineSample(0.0, (), int(share * 1000), 1000, gpu_bytes, 1000 if gpu_bytes else None))


def minute(p99_ms: float | None, run_ms: float | None = None, answers: int = 2_000) -> Vitals:
    figures = LatencyFigures(answers, p99_ms, p99_ms, p99_ms, None, p99_ms)
    return Vitals(latency_minute=figures, latency=dataclasses.replace(figures, p99=run_ms), target_ms=50.0)


def test_nothing_is_said_of_a_run_that_is_well() -> None:
    well = dataclasses.replace(minute(30.0), machine=memory(0.5, 0.5).machine, level="FULL")
    assert changes([Vitals(), *every_second(lambda at: well, 500)]) == []


def test_memory_is_raised_when_it_has_lasted_and_cleared_under_a_lower_mark() -> None:
    course = {20: 0.86, 25: 0.80, 40: 0.86, 100: 0.82, 200: 0.79, 210: 0.81, 300: 0.79}

    def at(second: int) -> Vitals:
        return memory(next((share for start, share in reversed(course.items()) if second >= start), 0.5))

    assert changes(every_second(at, 400)) == [(50.0, "machine.memory", True), (360.0, "machine.memory", False)]


def test_gpu_memory_is_looked_at_where_there_is_a_gpu() -> None:
    assert changes(every_second(lambda at: memory(0.5, 0.96), 20)) == [(10.0, "machine.gpu_memory", True)]
    assert changes(every_second(lambda at: memory(0.5, 0.94), 20)) == []
    assert changes(every_second(lambda at: memory(0.5), 20)) == []


def test_a_number_that_is_not_known_for_a_while_changes_nothing() -> None:
    def at(second: int) -> Vitals:
        return Vitals() if second in {5, 200} else memory(0.9 if second < 150 else 0.5)

    assert changes(every_second(at, 400)) == [(16.0, "machine.memory", True), (261.0, "machine.memory", False)]


def test_nothing_is_raised_again_before_it_has_cooled_down() -> None:
    watch = Watch(dataclasses.replace(CONFIG, raise_after_s=0.0, clear_after_s=0.0, cool_down_s=100.0))
    flapping = every_second(lambda at: memory(0.9 if at % 20 < 10 else 0.5), 210)
    assert changes(flapping, watch) == [
        (0.0, "machine.memory", True), (10.0, "machine.memory", False),
        (100.0, "machine.memory", True), (110.0, "machine.memory", False),
        (200.0, "machine.memory", True),
    ]  # fmt: skip
    assert watch.held_back == 8
    assert watch.raised == {"machine.memory": 3}


def test_what_is_there_when_it_has_cooled_down_is_raised() -> None:
    watch = Watch(dataclasses.replace(CONFIG, raise_after_s=0.0, clear_after_s=0.0, cool_down_s=100.0))
    stream = every_second(lambda at: memory(0.5 if 10 <= at < 20 else 0.9), 210)
    assert [at for at, _, raised in changes(stream, watch) if raised] == [0.0, 100.0]
    assert watch.held_back == 1


@given(st.lists(st.tuples(st.floats(0.0, 90.0), st.floats(0.0, 1.0)), max_size=120))
def test_alerts_come_and_go_in_turns_and_not_faster_than_they_cool_down(course: list[tuple[float, float]]) -> None:
    at, stream = 0.0, []
    for step_s, share in course:
        at += step_s
        stream.append(dataclasses.replace(memory(share), elapsed_s=at))
    watch = Watch(CONFIG)
    found = changes(stream, watch)
    assert [raised for _, _, raised in found] == [index % 2 == 0 for index in range(len(found))]
    came = [at for at, _, raised in found if raised]
    assert all(later - earlier >= CONFIG.cool_down_s for earlier, later in pairwise(came))
    assert bool(watch.active) == (len(found) % 2 == 1)


def test_a_minute_over_the_target_is_told_of_and_one_within_it_clears() -> None:
    def at(second: int) -> Vitals:
        return minute(51.0 if 60 <= second < 120 else 49.0 if second < 240 else 47.0)

    assert changes(every_second(at, 400)) == [(60.0, "latency.p99", True), (300.0, "latency.p99", False)]


def test_where_a_minute_has_few_answers_the_run_is_looked_at() -> None:
    assert changes([minute(None, run_ms=60.0, answers=60)]) == [(0.0, "latency.p99", True)]
    assert changes([minute(None, run_ms=60.0, answers=0)]) == []
    assert changes([minute(None, run_ms=None, answers=60)]) == []


def test_a_breaker_that_opened_and_closed_between_two_looks_is_told_of() -> None:
    def at(second: int) -> Vitals:
        return Vitals(breaker_openings=int(second >= 10))

    assert changes(every_second(at, 100)) == [(10.0, "model.breaker", True), (71.0, "model.breaker", False)]


def test_a_breaker_that_stays_open_stays_on() -> None:
    assert changes(every_second(lambda at: Vitals(breaker="half-open", breaker_openings=1), 500)) == [
        (0.0, "model.breaker", True)
    ]


def test_restarts_are_one_alert_until_there_was_none_for_a_while() -> None:
    def at(second: int) -> Vitals:
        return Vitals(model_restarts=min(3, second // 100), model_recycled=second)

    watch = Watch(CONFIG)
    assert changes(every_second(at, 700), watch) == [
        (100.0, "model.restarted", True),
        (601.0, "model.restarted", False),
    ]


def test_a_count_that_begins_at_nought_again_is_no_event_and_goes_on_being_one() -> None:
    counts = [3, 3, 0, 0, 1, 1, 1, 3, 3, 3, 1]
    stream = [Vitals(model_restarts=count, elapsed_s=1_000.0 * at) for at, count in enumerate(counts)]
    came = [at for at, _, raised in changes(stream) if raised]
    assert came == [0.0, 4_000.0, 7_000.0, 10_000.0]


def test_what_happened_before_a_run_goes_on_is_no_news_and_what_happens_since_is() -> None:
    before = Vitals(elapsed_s=3_600.0, model_restarts=2, breaker_openings=3, deaths=1)
    watch = Watch(CONFIG)
    watch.go_on_from(before)
    assert watch.see(dataclasses.replace(before, elapsed_s=3_605.0)) == []

    watch = Watch(CONFIG)
    watch.go_on_from(before)
    found = watch.see(dataclasses.replace(before, elapsed_s=3_605.0, model_restarts=3, deaths=2))
    assert [(alert.name, alert.detail) for alert in found] == [
        ("model.restarted", "the model process ended and was started anew (1 now, 3 in all)"),
        ("run.died", "the trading process died (1 now, 2 in all)"),
    ]


def test_time_that_begins_at_nought_again_takes_none_away() -> None:
    stream = [dataclasses.replace(memory(0.9), elapsed_s=at) for at in (1e6, 1e6 + 6, 0.0, 3.9, 4.0)]
    assert changes(stream) == [(4.0, "machine.memory", True)]


def test_a_trading_process_that_stalls_or_dies_is_told_of() -> None:
    watch = Watch()
    watch.see(Vitals(elapsed_s=1.0))
    stalled = watch.see(Vitals(elapsed_s=2.0, stalled=True))
    died = watch.see(Vitals(elapsed_s=3.0, deaths=1))
    assert [(alert.name, alert.severity, alert.raised) for alert in (*stalled, *died)] == [
        ("run.stalled", Severity.HIGH, True), ("run.stalled", Severity.HIGH, False), ("run.died", Severity.HIGH, True),
    ]  # fmt: skip


def test_a_level_below_full_is_told_of_after_so_many_bars() -> None:
    stream = [Vitals(degraded_bars=bars_, level="SMART", elapsed_s=bars_ / 10) for bars_ in range(1, 60)]
    back = [Vitals(level="FULL", elapsed_s=10.0 + at) for at in range(70)]
    assert changes([*stream, *back]) == [(5.0, "level.degraded", True), (70.0, "level.degraded", False)]


@pytest.mark.parametrize("prefix", ["", "drift."])
def test_what_the_detector_found_is_taken_over_in_its_words(prefix: str) -> None:
    found = (
        Alert(7, "model.health", Severity.HIGH, True, "2 % worse than a moving volatility"),
        Alert(8, "drift.errors", Severity.MEDIUM, True, "the index is 0.4"),
    )
    watch = Watch(CONFIG)
    came = watch.see(Vitals(ts_ns=9, unhealthy=True, drifted=(f"{prefix}errors",), alerts=found))
    assert [dataclasses.replace(alert, ts_ns=0) for alert in came] == [
        dataclasses.replace(alert, ts_ns=0) for alert in found
    ]
    assert {alert.ts_ns for alert in came} == {9}
    assert [(alert.name, alert.raised) for alert in watch.see(Vitals(ts_ns=10))] == [
        ("model.health", False), ("drift.errors", False),
    ]  # fmt: skip


def test_the_rules_know_every_alert_of_the_detector_and_its_severity() -> None:
    def failing(call: int, horizon: int) -> object:
        if call < 12:
            raise RuntimeError
        return normal_forecast(horizon)

    subject = detector(ScriptedForecaster(failing), RegimeConfig())  # type: ignore[arg-type]
    signals_of(subject, bars(60))
    known = {rule.name: rule.severity for rule in rules(CONFIG)}
    assert {f"drift.{stream}" for stream in subject.state.drift.streams} | {"drift.error_size"} == {
        f"drift.{stream}" for stream in DRIFT_STREAMS
    }
    assert subject.state.alerts.log
    for alert in subject.state.alerts.log:
        assert known[alert.name] is alert.severity


def test_severities_are_those_that_were_asked_for() -> None:
    high = {rule.name for rule in rules(CONFIG) if rule.severity is Severity.HIGH}
    assert high == {"model.health", "model.breaker", "machine.memory", "run.stalled", "run.died"}


def test_the_words_say_how_much_and_beside_what() -> None:
    watch = Watch(dataclasses.replace(CONFIG, raise_after_s=0.0))
    gib = 1 << 30
    machine = MachineSample(0.0, (), int(3.6 * gib), 4 * gib)
    said = {
        alert.name: alert.detail
        for alert in watch.see(
            dataclasses.replace(
                minute(61.23), machine=machine, model_restarts=2, breaker="open", breaker_openings=1, degraded_bars=50,
                level="SMART",
            )
        )
    }  # fmt: skip
    assert said == {
        "machine.memory": "3.60 of 4.00 GiB used (90%), over 85%",
        "latency.p99": "p99 is 61.2 ms, over the target of 50 ms",
        "model.breaker": "the breaker opened; openings so far: 1",
        "model.restarted": "the model process ended and was started anew (2 now, 2 in all)",
        "level.degraded": "50 signals in a row below FULL, the newest SMART",
    }
