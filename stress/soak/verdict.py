"""What a soak has proved: each promise with what was measured, and whether that is enough to tell."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from sage.percentiles import EDGES_S
from stress.soak.beside import slower
from stress.soak.growth import SETTLING_BARS, Growth, beyond_control, growth_of
from stress.soak.pieces import Trace
from stress.soak.record import Record

COUNTS_LIMIT = 10.0
"""File descriptors or threads that a process may have more at its end than after its warm-up."""

COUNTS_FALL_SHARE = 0.2
_MINUTE_S = 60.0
DRIFT_LIMIT = 0.25
"""Relative rise of the latency's median over a run that is no drift yet: on shared machines it wanders by as much."""

ANSWERS_FOR_P99 = 1000
_SLOWEST_SHARE = 0.01
TRADING, MODEL, WATCHING = "trading process beyond NautilusTrader", "model process", "watching process"
CONTROL = "NautilusTrader alone (control)"


class Status(StrEnum):
    """How a promise came out."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Check:
    """One promise: what it is, how it came out, why in words, and its figures for machines."""

    name: str
    status: Status
    told: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """Memory of one process over time, for whoever draws it; ``growth`` is what it comes to."""

    name: str
    trace: Trace
    growth: Growth
    ours: bool


@dataclass(frozen=True)
class Assessment:
    """All of it. The soak as a whole is as good as its worst check."""

    checks: list[Check]
    series: list[Series]

    @property
    def status(self) -> Status:
        """FAILED where anything is, else UNDECIDED where anything is."""
        found = {check.status for check in self.checks}
        return next((status for status in (Status.FAILED, Status.UNDECIDED) if status in found), Status.PASSED)


def assess(record: Record) -> Assessment:
    """Judge a record by the limits that its journal begins with."""
    limits = record.begun["limits"]
    series = list(_series(record, limits["leak_mb_per_hour"], limits["growth_mb"]))
    checks = [
        *_memory_checks(series, record),
        *_count_checks(record),
        _latency_check(record, limits["target_ms"]),
        _drift_check(record),
        _answers_check(record),
        _invariants_check(record),
        _steadiness_check(record),
    ]
    return Assessment(checks, series)


def _series(record: Record, leak: float, growth: float) -> Iterator[Series]:
    trading, control = record.trace("trading", "trading"), record.trace("control", "control")
    traces = [
        (TRADING, beyond_control(trading, control) if len(control.hours) else trading),
        (MODEL, record.trace("trading", "model")),
        (WATCHING, record.clock_trace("watching")),
        (CONTROL, control),
    ]
    for name, trace in traces:
        if len(trace.hours):
            # Whoever watches has no histories that fill with bars.
            settling = SETTLING_BARS if trace.bars.any() else 0
            yield Series(name, trace, growth_of(trace, leak, growth, settling), ours=name != CONTROL)


def _memory_checks(series: list[Series], record: Record) -> Iterator[Check]:
    found = {one.name: one.growth for one in series}
    for name in (TRADING, MODEL, WATCHING):
        label = f"memory of the {name}"
        if name in found:
            check = _growth_check(label, found[name])
            yield _without_control(check, record, CONTROL in found) if name == TRADING else check
        elif name != MODEL or record.asks_a_model:
            yield Check(label, Status.UNDECIDED, "was never sampled")


def _without_control(check: Check, record: Record, sampled: bool) -> Check:
    """What can still be said where the control is missing for a part of the time, or for all of it."""
    if not record.event_count("control_died"):
        return check
    if sampled:
        kept, why = Status.FAILED, "the control died, and what came after is not judged"
    else:
        # All of it together under the limit is ours under the limit; over it, it may be NautilusTrader's.
        kept, why = Status.PASSED, "there is no control, and nothing to tell NautilusTrader's share by"
    status = check.status if check.status is kept else Status.UNDECIDED
    return dataclasses.replace(check, status=status, told=f"{why}: {check.told}")


def _growth_check(name: str, growth: Growth) -> Check:
    slope, bars = growth.per_hour, growth.per_100k_bars
    told = growth.reason
    if bars is not None:
        told += f"; {bars.estimate:+.2f} ({bars.lower:+.2f} to {bars.upper:+.2f}) MB per 100,000 bars"
    smallest = growth.smallest_leak_mb_per_hour
    if smallest is not None:
        told += f"; the smallest leak that this run could have found: {smallest:.1f} MB/h"
    else:
        told += "; it could have found no leak of any size"
    return Check(name, Status(growth.verdict.value), told, _growth_figures(growth) | {"slope": _plain(slope)})


def _growth_figures(growth: Growth) -> dict[str, Any]:
    return dataclasses.asdict(growth) | {"verdict": growth.verdict.value}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _count_checks(record: Record) -> Iterator[Check]:
    """File descriptors and threads of the two processes that trade."""
    for value, name in (("files", "file descriptors"), ("threads", "threads")):
        for role in ("trading", "model"):
            trace = record.trace("trading", role, value, 1.0)
            if not len(trace.hours):
                continue
            rise, status = _rise_of_counts(trace)
            told = f"{trace.megabytes[0]:.0f} at first, {trace.megabytes[-1]:.0f} at last; {rise:+.0f} after warm-up"
            yield Check(f"{name} of the {role} process", status, told, {"rise": rise})


def _rise_of_counts(trace: Trace) -> tuple[float, Status]:
    """How much a count rose within the lives of processes, after a fifth of each, and what that proves.

    Counts are nearly free of noise: one that rises by COUNTS_LIMIT and hardly ever falls leaks, one that hardly
    changes does not, and between the two a longer run must tell.
    """
    rise, leaks = 0.0, False
    for generation in np.unique(trace.generation):
        values = trace.megabytes[trace.generation == generation]
        values = values[len(values) // 5 :]
        steps = np.diff(values)
        own = float(values[-1] - values[0])
        rise += own
        leaks |= own >= COUNTS_LIMIT and float(steps[steps < 0].sum()) > -COUNTS_FALL_SHARE * own
    if leaks:
        return rise, Status.FAILED
    return rise, Status.PASSED if rise < COUNTS_LIMIT else Status.UNDECIDED


def _latency_check(record: Record, target_ms: float) -> Check:
    """The 99th percentile of every minute, and of those that have too few answers for one that of all together."""
    alone = [line for line in record.minutes if line["latency"]["p99"] is not None]
    rest = [line for line in record.minutes if line["latency"]["p99"] is None and line["latency"]["answers"]]
    late = [line for line in alone if line["latency"]["p99"] > target_ms]
    worst = max((line["latency"]["p99"] for line in alone), default=None)
    figures = {"minutes": len(record.minutes), "judged": len(alone), "judged_together": len(rest), "late": len(late),
               "worst_p99_ms": worst}  # fmt: skip
    if late:
        told = f"p99 over {target_ms:g} ms in {len(late)} of {len(alone)} minutes, the worst {worst:.1f} ms"
        return Check("latency", Status.FAILED, told, figures)
    together, told = _judged_together(rest, target_ms)
    if alone:
        each = f"p99 within {target_ms:g} ms in each of {len(alone)} minutes, the worst {worst:.2f} ms"
        return Check("latency", together, f"{each}; {told}" if rest else each, figures)
    if together is not Status.FAILED:
        together, told = _of_the_whole_run(record, target_ms) or (together, told)
    return Check("latency", together, told, figures)


def _judged_together(minutes: list[dict[str, Any]], target_ms: float) -> tuple[Status, str]:
    """The p99 of minutes of which none has the answers that it takes, as far as their buckets tell."""
    answers = sum(line["latency"]["answers"] for line in minutes)
    surely, at_most = _slower_than(target_ms, minutes)
    # Of fewer answers than one minute's p99 takes, as many may be late as in such a minute.
    allowed = _SLOWEST_SHARE * max(answers, ANSWERS_FOR_P99)
    which = f"{len(minutes)} minutes with fewer than {ANSWERS_FOR_P99:,} answers"
    if surely > allowed:
        told = f"p99 over {target_ms:g} ms in {which}, taken together: {surely:,} of {answers:,} answers took longer"
        return Status.FAILED, told
    if at_most <= allowed:
        return Status.PASSED, f"p99 within {target_ms:g} ms in {which}, taken together"
    return Status.UNDECIDED, f"{which} cannot tell: {surely:,} to {at_most:,} of {answers:,} answers took longer"


def _of_the_whole_run(record: Record, target_ms: float) -> tuple[Status, str] | None:
    """The p99 of a run of which no minute has its own; None where all its minutes together tell more."""
    few = (
        f"no minute had the {ANSWERS_FOR_P99:,} answers that its p99 takes" if record.minutes else "no minute was over"
    )
    overall = [line["latency"]["p99"] for line in record.totals.values() if line["latency"]["p99"] is not None]
    if overall:
        status = Status.PASSED if max(overall) <= target_ms else Status.FAILED
        whole = "of the whole run" if len(record.totals) == 1 else "of each trading process, at most"
        return status, f"p99 {whole} {max(overall):.2f} ms, target {target_ms:g} ms; {few}"
    enough = sum(line["latency"]["answers"] for line in record.minutes) >= ANSWERS_FOR_P99
    return None if enough else (Status.UNDECIDED, few)


def _slower_than(target_ms: float, minutes: list[dict[str, Any]]) -> tuple[int, int]:
    """How many answers of minutes took longer, surely and at most: a target between two edges parts no bucket."""
    edges_ms = [1e3 * edge for edge in EDGES_S]
    above, below = bisect_left(edges_ms, target_ms), bisect_right(edges_ms, target_ms)
    surely = at_most = 0
    for line in minutes:
        answers, buckets = line["latency"]["answers"], line["latency"]["buckets"]
        surely += answers - buckets[above] if above < len(buckets) else 0
        at_most += answers - buckets[below - 1] if 0 < below <= len(buckets) else answers
    return surely, at_most


def _drift_check(record: Record) -> Check:
    """Whether answers take longer than those of a process that has just begun; by the run's minutes where none was."""
    newest = [line for line in record.beside if line["generation"] == record.beside[-1]["generation"]]
    found = slower([line["aged_ms"] for line in newest], [line["fresh_ms"] for line in newest])
    if found is None:
        return _drift_over_minutes(record)
    rise, low, high = (100.0 * value for value in (found.estimate, found.lower, found.upper))
    told = (
        f"{rise:+.0f} % ({low:+.0f} to {high:+.0f}) beside a process that had just begun, in {found.pairs} segments "
        f"by turns; {100 * DRIFT_LIMIT:g} % is the limit"
    )
    if found.lower > DRIFT_LIMIT:
        status = Status.FAILED
    else:
        status = Status.PASSED if found.upper < DRIFT_LIMIT else Status.UNDECIDED
    return Check("latency drift", status, told, {"pairs": found.pairs, "rise_percent": rise, "interval": [low, high]})


def _drift_over_minutes(record: Record) -> Check:
    """Whether the median latency of the minutes rises, beside what a fixed piece of work takes in the same minutes."""
    speeds = _speeds(record)
    medians = [
        (line["at_s"] / 3600.0, line["latency"]["p50"], speed)
        for line, speed in zip(record.minutes, speeds, strict=True)
        if line["latency"]["p50"]
    ]
    name = "latency drift"
    if len(medians) < 3:
        return Check(name, Status.UNDECIDED, f"{len(medians)} minutes are too few to see a drift in")
    table = np.array(medians)
    level = float(np.median(table[:, 1]))
    rows = len(table)
    zeros = np.zeros(rows, dtype=np.int64)
    beside = table[:, 1] / table[:, 2]
    trace = Trace(table[:, 0], np.arange(rows, dtype=np.float64), beside / float(np.median(beside)), zeros, zeros)
    lasted_h = float(table[-1, 0] - table[0, 0])
    growth = growth_of(trace, DRIFT_LIMIT / max(lasted_h, 1e-9), float("inf"))
    slope = growth.per_hour
    if slope is None:
        return Check(name, Status.UNDECIDED, f"{rows} minutes are too few to see a drift in")
    rise, low, high = (100.0 * lasted_h * value for value in (slope.estimate, slope.lower, slope.upper))
    told = (
        f"median {level:.2f} ms, {rise:+.0f} % over the run ({low:+.0f} to {high:+.0f}) beside a fixed piece of work; "
        f"{100 * DRIFT_LIMIT:g} % is the limit"
    )
    figures = {"median_ms": level, "per_hour": _plain(slope), "rise_percent": rise}
    return Check(name, Status(growth.verdict.value), told, figures)


def _speeds(record: Record) -> list[float]:
    """For each minute what a fixed piece of work took, by the samples in it or the last before; 1 where none tells."""
    known = [(line["at_s"], line["yardstick_ms"]) for line in record.samples["trading"] if line.get("yardstick_ms")]
    if not known:
        return [1.0] * len(record.minutes)
    at_s, took_ms = np.array(known).T
    found = []
    for line in record.minutes:
        first, stop = np.searchsorted(at_s, (line["at_s"] - _MINUTE_S, line["at_s"]), side="right")
        found.append(float(np.median(took_ms[min(first, max(0, stop - 1)) : max(stop, 1)])))
    return found


def _answers_check(record: Record) -> Check:
    """One signal per accepted bar, and one rejection per other."""
    bars, answers = (sum(line[name] for line in record.segments) for name in ("bars", "answers"))
    figures = {"segments": len(record.segments), "bars": bars, "answers": answers}
    if not record.segments:
        return Check("signals", Status.UNDECIDED, "no segment was played to its end", figures)
    faulty = any(line["faults"] for line in record.segments)
    status = Status.PASSED if answers == bars or faulty else Status.FAILED
    told = f"{answers:,} answers to {bars:,} bars"
    if faulty and answers != bars:
        told += "; faults make bars and take them away, and the invariants count each"
    return Check("signals", status, told, figures)


def _invariants_check(record: Record) -> Check:
    violating = [line for line in record.segments if line["violations"]]
    if violating:
        first = violating[0]
        told = f"violated in {len(violating)} of {len(record.segments)} segments, first in segment {first['segment']}: "
        return Check("invariants", Status.FAILED, told + first["violations"][0], {"violating": len(violating)})
    if not record.segments:
        return Check("invariants", Status.UNDECIDED, "no segment was played to its end")
    told = f"held at every bar of {len(record.segments)} segments"
    if not record.begun.get("witnessed", True):
        told = (
            f"answers alone were counted in {len(record.segments)} segments: the rules of levels and orders are SAGE's"
        )
    return Check("invariants", Status.PASSED, told)


def _steadiness_check(record: Record) -> Check:
    """No stall, no death of the trading process; and of the model's none that nobody provoked."""
    stalls, deaths = record.event_count("stalled"), record.event_count("trading_died")
    provoked = record.begun["faults"] != "none"
    restarts = 0 if provoked else record.total("model_restarts")
    told = f"{stalls} stalls, {deaths} deaths of the trading process, {record.total('model_restarts')} of the model's"
    if provoked:
        told += " (provoked)"
    status = Status.FAILED if stalls or deaths or restarts else Status.PASSED
    return Check("steadiness", status, told, {"stalls": stalls, "deaths": deaths, "model_restarts": restarts})
