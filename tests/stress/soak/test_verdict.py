"""What a record proves, on journals that were made up: leaks are found, and in the right process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sage.percentiles import EDGES_S
from stress.soak.record import Record
from stress.soak.verdict import Status, assess

HOURS = 3.0
SEGMENT_S = 30.0
SEGMENT_BARS = 1_000
PHASES = (250, 500, 750, 1000)
LIMITS = {"leak_mb_per_hour": 5.0, "growth_mb": 500.0, "target_ms": 50.0}


def process(role: str, pid: int, megabytes: float, files: int = 15) -> dict[str, Any]:
    size = int(1e6 * megabytes)
    return {"role": role, "pid": pid, "rss": size, "pss": size, "shm": 0, "files": files, "threads": 6, "cpu": 1.0}


def pinned(level: int | None) -> dict[str, Any]:
    """A configuration, as far as it is looked at."""
    return {"backtest": {"regime": {"pinned_level": level}}}


def journal(
    leak: dict[str, float] | None = None, recycle_every: int = 0, files_per_hour: float = 0.0, **changes: Any
) -> Iterator[dict[str, Any]]:
    """Lines of a soak of three hours; ``leak`` is in MB per hour, by role. NT itself grows by 40 MB an hour."""
    rng = np.random.default_rng(4)
    leak = {"nautilus": 40.0} | (leak or {})
    yield {"kind": "soak", "at_s": 0.0, "limits": LIMITS, "faults": "none", "config": pinned(None)} | changes
    began = 0.0
    generation = 0
    for segment in range(int(HOURS * 3600 / SEGMENT_S)):
        if recycle_every and segment and segment % recycle_every == 0:
            began, generation = segment * SEGMENT_S, generation + 1
        for number, phase in enumerate(PHASES):
            at_s = (segment + phase / SEGMENT_BARS) * SEGMENT_S
            hours, saw = (at_s - began) / 3600.0, 3.0 * number
            bars = int((at_s - began) / SEGMENT_S * SEGMENT_BARS)
            trading = 380 + saw + hours * (leak["nautilus"] + leak.get("trading", 0.0)) + rng.normal(0, 0.3)
            model = 47 + hours * leak.get("model", 0.0) + rng.normal(0, 0.05)
            common = {"kind": "sample", "generation": generation, "segment": segment, "phase": phase, "bars": bars}
            files = 15 + int(files_per_hour * hours)
            mine = [process("trading", 100 + generation, trading, files), process("model", 200 + generation, model)]
            yield {**common, "at_s": at_s, "side": "trading", "processes": mine}
            control = 360 + hours * leak["nautilus"] + rng.normal(0, 0.3)
            theirs = [process("control", 300 + generation, control)]
            yield {**common, "at_s": at_s + 1.0, "side": "control", "processes": theirs}
        watching = [process("watching", 1, 150 + at_s / 3600.0 * leak.get("watching", 0.0) + rng.normal(0, 0.2))]
        yield {"kind": "machine", "at_s": at_s, "processes": watching, "used": 1, "limit": 2}
        yield {
            "kind": "segment", "at_s": at_s, "segment": segment, "generation": generation, "bars": SEGMENT_BARS,
            "answers": SEGMENT_BARS, "orders": 3, "violations": [], "faults": "", "seconds": SEGMENT_S,
        }  # fmt: skip
    yield from minutes(rng)


def minutes(rng: np.random.Generator, drift: float = 0.0, late: int = -1) -> Iterator[dict[str, Any]]:
    for number in range(int(HOURS * 60)):
        p50 = 3.0 * (1 + drift * number / 60) + rng.normal(0, 0.02)
        latency = {"answers": 2_000, "p50": p50, "p99": 70.0 if number == late else 8.0, "buckets": []}
        yield {"kind": "minute", "at_s": 60.0 * (number + 1), "latency": latency}


def statuses(lines: Iterator[dict[str, Any]]) -> dict[str, Status]:
    return {check.name: check.status for check in assess(Record.of(lines)).checks}


def test_a_clean_soak_passes_whatever_nautilus_itself_takes() -> None:
    found = statuses(journal())
    assert set(found.values()) == {Status.PASSED}, found
    assert assess(Record.of(journal())).status is Status.PASSED


def test_nautilus_share_is_told_apart() -> None:
    series = {one.name: one for one in assess(Record.of(journal())).series}
    control = series["NautilusTrader alone (control)"]
    assert not control.ours and control.growth.per_hour is not None
    assert control.growth.per_hour.estimate == pytest.approx(40.0, abs=1.0)


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("trading", "memory of the trading process beyond NautilusTrader"),
        ("model", "memory of the model process"),
        ("watching", "memory of the watching process"),
    ],
)
def test_a_leak_is_found_in_the_process_that_has_it_and_in_no_other(role: str, name: str) -> None:
    found = statuses(journal({role: 20.0}))
    assert {check for check, status in found.items() if status is Status.FAILED} == {name}


def test_a_recycled_worker_neither_hides_a_leak_nor_fakes_one() -> None:
    name = "memory of the trading process beyond NautilusTrader"
    assert statuses(journal(recycle_every=120))[name] is not Status.FAILED
    assert statuses(journal({"trading": 40.0}, recycle_every=120))[name] is Status.FAILED


def test_processes_that_take_the_ids_of_those_before_them_are_others_all_the_same() -> None:
    """As where a container was started anew: the second life of each lies 30 MB above the first, both flat."""

    def lines(same_ids: bool) -> Iterator[dict[str, Any]]:
        resumed = False
        for line in journal(recycle_every=180):
            later = line["at_s"] > 180 * SEGMENT_S + 2.0  # the control is a second behind
            if later and not resumed:
                resumed = True
                yield {"kind": "event", "at_s": 180 * SEGMENT_S + 1.0, "event": "resumed", "detail": ""}
            for one in line.get("processes", ()):
                one["rss"] += 30_000_000 * (later and one["role"] != "control")
                one["pid"] = {"trading": 100, "model": 200, "control": 300, "watching": 1}[one["role"]] + (
                    1_000 * (later and not same_ids)
                )
            yield line

    same, other = (assess(Record.of(lines(each))) for each in (True, False))
    assert [one.growth for one in same.series] == [one.growth for one in other.series]
    assert same.status is Status.PASSED


def test_file_descriptors_that_pile_up_fail_and_a_few_more_do_not() -> None:
    name = "file descriptors of the trading process"
    assert statuses(journal(files_per_hour=10.0))[name] is Status.FAILED
    assert statuses(journal(files_per_hour=1.0))[name] is Status.PASSED


def test_one_late_minute_fails() -> None:
    rng = np.random.default_rng(1)
    lines = [line for line in journal() if line["kind"] != "minute"]
    assert statuses(iter([*lines, *minutes(rng, late=77)]))["latency"] is Status.FAILED


def test_latency_that_creeps_up_fails() -> None:
    rng = np.random.default_rng(1)
    lines = [line for line in journal() if line["kind"] != "minute"]
    assert statuses(iter([*lines, *minutes(rng, drift=0.3)]))["latency drift"] is Status.FAILED


@pytest.mark.parametrize(("slower", "status"), [(0.3, Status.PASSED), (0.0, Status.FAILED)])
def test_latency_that_creeps_up_with_the_whole_machine_is_no_drift(slower: float, status: Status) -> None:
    rng = np.random.default_rng(1)
    lines = [line for line in journal() if line["kind"] != "minute"]
    for line in lines:
        if line["kind"] == "sample" and line["side"] == "trading":
            line["yardstick_ms"] = 1.0 + slower * line["at_s"] / 3600.0 + rng.normal(0, 0.01)
    assert statuses(iter([*lines, *minutes(rng, drift=0.3)]))["latency drift"] is status


def beside(aged: float, noise: float = 0.05, pairs: int = 8) -> Iterator[dict[str, Any]]:
    """Segments by turns on a machine that is half as fast in every third; ``aged`` is the ratio of medians."""
    rng = np.random.default_rng(2)
    for number in range(pairs):
        fresh_ms = 3.0 * (2.0 if number % 3 else 1.0)
        aged_ms = fresh_ms * aged * float(np.exp(rng.normal(0, noise)))
        yield {"kind": "beside", "at_s": 1e4, "generation": 0, "segment": number, "aged_ms": aged_ms,
               "fresh_ms": fresh_ms}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (beside(1.0), Status.PASSED),
        (beside(1.15), Status.PASSED),
        (beside(1.4), Status.FAILED),
        (beside(0.7), Status.PASSED),
        (beside(1.1, noise=0.4), Status.UNDECIDED),
    ],
)
def test_a_process_that_has_just_begun_tells_drift_from_a_slow_machine(
    lines: Iterator[dict[str, Any]], status: Status
) -> None:
    rng = np.random.default_rng(1)
    before = [line for line in journal() if line["kind"] != "minute"]
    # The minutes alone would be called drift, or none.
    every = [*before, *minutes(rng, drift=0.0 if status is Status.FAILED else 0.3), *lines]
    assert statuses(iter(every))["latency drift"] is status


def test_a_comparison_that_was_cut_short_leaves_the_minutes_to_judge() -> None:
    assert statuses(iter([*journal(), *beside(2.0, pairs=3)]))["latency drift"] is Status.PASSED


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ({"kind": "segment", "violations": ["invariant 5"], "answers": 1_000, "faults": ""}, "invariants"),
        ({"kind": "segment", "violations": [], "answers": 999, "faults": ""}, "signals"),
        ({"kind": "event", "event": "stalled", "detail": ""}, "steadiness"),
        ({"kind": "event", "event": "trading_died", "detail": ""}, "steadiness"),
    ],
)
def test_what_must_not_happen_fails(line: dict[str, Any], check: str) -> None:
    added = {"at_s": 9_000.0, "segment": 400, "bars": 1_000, "generation": 0, "orders": 0, "seconds": 30.0} | line
    found = statuses(iter([*journal(), added]))
    assert {name for name, status in found.items() if status is Status.FAILED} == {check}


def test_a_soak_that_has_hardly_begun_is_undecided() -> None:
    lines = list(journal())[:40]
    assert assess(Record.of(lines)).status is Status.UNDECIDED
    assert assess(Record.of(lines[:1])).status is Status.UNDECIDED


def without_minutes(p99_ms: float) -> Iterator[dict[str, Any]]:
    """At a rate at which no minute has the answers that a p99 takes."""
    for line in journal():
        if line["kind"] == "minute":
            line["latency"] = line["latency"] | {"answers": 120, "p99": None}
        yield line
    yield {"kind": "totals", "at_s": 1.0, "generation": 0, "latency": {"p99": p99_ms}, "model_restarts": 0}


@pytest.mark.parametrize(("p99_ms", "status"), [(8.0, Status.PASSED), (70.0, Status.FAILED)])
def test_at_a_low_rate_the_p99_of_the_whole_run_is_judged(p99_ms: float, status: Status) -> None:
    assert statuses(without_minutes(p99_ms))["latency"] is status


def slow_minutes(every: int, answers: int, took_ms: float) -> Iterator[dict[str, Any]]:
    """As many a minute as ``every`` says has too few answers for a p99 of its own, and each of them took so long."""
    buckets = [answers * (1e3 * edge >= took_ms) for edge in EDGES_S]
    for line in journal():
        if line["kind"] == "minute" and int(line["at_s"] // 60) % every == 0:
            line["latency"] = {"answers": answers, "p50": took_ms, "p99": None, "buckets": buckets}
        yield line


@pytest.mark.parametrize(
    ("every", "answers", "took_ms", "status"),
    [
        (2, 700, 80.0, Status.FAILED),
        (2, 700, 8.0, Status.PASSED),
        (170, 700, 80.0, Status.FAILED),
        (170, 9, 80.0, Status.PASSED),
    ],
)
def test_minutes_with_too_few_answers_for_a_p99_are_judged_together(
    every: int, answers: int, took_ms: float, status: Status
) -> None:
    record = Record.of(slow_minutes(every, answers, took_ms))
    (latency,) = [check for check in assess(record).checks if check.name == "latency"]
    assert latency.status is status
    assert latency.figures["judged"] + latency.figures["judged_together"] == latency.figures["minutes"] == HOURS * 60
    assert f"{latency.figures['judged_together']} minutes with fewer than 1,000 answers" in latency.told


@pytest.mark.parametrize(("target_ms", "status"), [(40.0, Status.UNDECIDED), (50.0, Status.PASSED)])
def test_a_target_between_two_edges_of_the_histogram_is_undecided_where_answers_lie_between_them(
    target_ms: float, status: Status
) -> None:
    lines = slow_minutes(2, 700, 45.0)
    changed = next(lines) | {"limits": LIMITS | {"target_ms": target_ms}}
    assert statuses(iter([changed, *lines]))["latency"] is status


def test_a_slow_process_with_few_answers_fails_a_run_whose_others_are_fast() -> None:
    """Each trading process tells its own p99 but the one that had too few answers for it."""
    lines = slow_minutes(1, 20, 80.0)
    totals = {"kind": "totals", "at_s": 1.0, "generation": 1, "latency": {"p99": 8.0}, "model_restarts": 0}
    assert statuses(iter([*lines, totals]))["latency"] is Status.FAILED


def dies(lines: Iterator[dict[str, Any]], after_h: float) -> Iterator[dict[str, Any]]:
    """The control dies at an hour, and is not sampled any more."""
    for line in lines:
        if line["kind"] != "sample" or line["side"] != "control" or line["at_s"] < 3600.0 * after_h:
            yield line
    yield {"kind": "event", "at_s": 3600.0 * after_h, "event": "control_died", "detail": "gone"}


BEYOND = "memory of the trading process beyond NautilusTrader"


@pytest.mark.parametrize(
    ("after_h", "leak", "status"),
    [
        (1.5, {}, Status.UNDECIDED),
        (1.5, {"trading": 300.0}, Status.FAILED),
        (0.0, {}, Status.UNDECIDED),
        (0.0, {"nautilus": 0.0}, Status.PASSED),
    ],
)
def test_without_its_control_a_soak_passes_only_what_needs_none(
    after_h: float, leak: dict[str, float], status: Status
) -> None:
    assert statuses(dies(journal(leak), after_h))[BEYOND] is status


def test_a_process_that_was_never_sampled_is_not_passed() -> None:
    lines = [line for line in journal() if line["kind"] != "sample" or line["side"] != "trading"]
    found = statuses(iter(lines))
    assert found[BEYOND] is found["memory of the model process"] is Status.UNDECIDED
    lines[0]["config"] = pinned(2)
    assert "memory of the model process" not in statuses(iter(lines))
