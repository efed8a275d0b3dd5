"""Thousands of schedules over worker processes; what was violated, and the smallest schedule that still violates it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from data.errors import OptionError
from regime.signal import Level
from sage.processes import end_with
from sage.progress import Progress, Silent
from stress.chaos import FAULTS_UNTIL, Verdict, fault_lengths, judge, run_hash
from stress.invariants import Violation
from stress.schedule import Schedule, check_seed, random_schedule, shrunk
from stress.witness import ChaosRig

CHUNK = 20
"""Schedules in one task."""

TASKS_PER_WORKER = 10
"""A worker is replaced after so many: NT keeps some memory of every engine in a process."""


SCHEDULES_MAX = 10_000_000
SHOWN = 10

ELSEWHERE = Violation(7, 0, "the same schedule has another hash in another process")


@dataclass(frozen=True)
class ChaosConfig:
    """Schedules have the seeds ``seed``, ``seed`` + 1 and so on; each ``again_every``-th is run again.

    Again means: cut off at a random bar (invariant 2), a second time, and a third time in another process (7).
    """

    schedules: int
    seed: int = 1
    workers: int = 2
    again_every: int = 20


@dataclass
class ChaosReport:
    """What came of all schedules. ``found`` holds the first violating ones, ``smallest`` the shrunk first of them."""

    schedules: int = 0
    bars: int = 0
    run_again: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    breaker_openings: int = 0
    violating: int = 0
    violated: Counter[int] = field(default_factory=Counter)
    found: list[Verdict] = field(default_factory=list)
    smallest: Verdict | None = None
    hashes: dict[int, str] = field(default_factory=dict)

    def take(self, verdict: Verdict) -> None:
        """Count one schedule in."""
        self.schedules += 1
        self.bars += verdict.bars
        self.faults.update(planted.name for planted in verdict.schedule.planted)
        self.levels.update(verdict.levels)
        self.restarts += verdict.restarts
        self.breaker_openings += verdict.breaker_openings
        if verdict.run_hash:
            self.run_again += 1
            self.hashes[verdict.schedule.seed] = verdict.run_hash
        if verdict.violations:
            self.violating += 1
            self.violated.update({violation.invariant for violation in verdict.violations})
            self.found = sorted([*self.found, verdict], key=lambda one: one.schedule.seed)[:SHOWN]

    def document(self) -> dict[str, Any]:
        """Everything for machines."""
        return {
            "schedules": self.schedules,
            "bars": self.bars,
            "run_again": self.run_again,
            "seconds": round(self.seconds, 3),
            "faults": dict(sorted(self.faults.items())),
            "levels": {level.name: self.levels[level.name] for level in Level},
            "model_restarts": self.restarts,
            "breaker_openings": self.breaker_openings,
            "violating": self.violating,
            "violated": {str(invariant): count for invariant, count in sorted(self.violated.items())},
            "found": [_document(verdict) for verdict in self.found],
            "smallest": _document(self.smallest) if self.smallest is not None else None,
        }

    def add(self, other: ChaosReport) -> None:
        """Count the schedules of another report in."""
        for name in ("schedules", "bars", "run_again", "restarts", "breaker_openings", "violating"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("faults", "levels", "violated"):
            getattr(self, name).update(getattr(other, name))
        self.hashes |= other.hashes
        self.found = sorted([*self.found, *other.found], key=lambda one: one.schedule.seed)[:SHOWN]


def check(config: ChaosConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    if not 1 <= config.schedules <= SCHEDULES_MAX:
        raise OptionError(f"--schedules {config.schedules}: must be 1 to {SCHEDULES_MAX:,}")
    check_seed(config.seed)


def run_schedules(
    config: ChaosConfig, progress: Progress | None = None, rig_type: type[ChaosRig] = ChaosRig
) -> ChaosReport:
    """Run random schedules over worker processes, judge each, and shrink the first that violates anything.

    Raises
    ------
    OptionError
        If the numbers make no sense.
    """
    check(config)
    show, report, started = progress or Silent(), ChaosReport(), time.perf_counter()
    show.stage("schedules of faults", config.schedules)
    seeds = range(config.seed, config.seed + config.schedules)
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    tasks = [(chunk, config.again_every, config.seed, rig_type) for chunk in chunks]
    for part in _in_workers(config.workers, _run_chunk, tasks):
        report.add(part)
        show.advance(part.schedules, _note(report))
    _compare_across_processes(config, report, show, rig_type)
    if report.found:
        show.stage("shrinking the first", 1)
        report.smallest = smallest_of(report.found[0], rig_type)
        show.advance(1)
    report.seconds = time.perf_counter() - started
    return report


def run_one(schedule: Schedule, rig_type: type[ChaosRig] = ChaosRig) -> ChaosReport:
    """Run one schedule with everything that is asked of some of them; a violation is shrunk."""
    started, report = time.perf_counter(), ChaosReport()
    verdict = judge(schedule, rig_type, again=True)
    if verdict.run_hash:
        (elsewhere,) = _in_workers(1, run_hash, [(schedule, rig_type)])
        if elsewhere != verdict.run_hash:
            verdict.violations.append(ELSEWHERE)
    report.take(verdict)
    if verdict.violations:
        report.smallest = smallest_of(verdict, rig_type)
    report.seconds = time.perf_counter() - started
    return report


def smallest_of(verdict: Verdict, rig_type: type[ChaosRig] = ChaosRig) -> Verdict:
    """The smallest schedule found that violates the invariant that this one violates first, and how it comes out."""
    invariant = verdict.violations[0].invariant
    again = invariant in {2, 7}

    def fails(schedule: Schedule) -> bool:
        found = judge(schedule, rig_type, again=again).violations
        return any(violation.invariant == invariant for violation in found)

    schedule = shrunk(verdict.schedule, fails)
    return judge(schedule, rig_type, again=again) if schedule != verdict.schedule else verdict


def schedule_of(seed: int) -> Schedule:
    """The random schedule of a seed."""
    return random_schedule(seed, fault_lengths(), FAULTS_UNTIL)


def _run_chunk(seeds: Sequence[int], again_every: int, first: int, rig_type: type[ChaosRig]) -> ChaosReport:
    report = ChaosReport()
    for seed in seeds:
        report.take(judge(schedule_of(seed), rig_type, again=(seed - first) % again_every == 0))
    return report


def _hashes(seeds: Sequence[int], rig_type: type[ChaosRig]) -> dict[int, str]:
    return {seed: run_hash(schedule_of(seed), rig_type) for seed in seeds}


def _compare_across_processes(
    config: ChaosConfig, report: ChaosReport, show: Progress, rig_type: type[ChaosRig]
) -> None:
    """Run what was run again once more, in processes that are sure to be others."""
    seeds = sorted(report.hashes)
    show.stage("again elsewhere", len(seeds))
    tasks = [(seeds[start : start + CHUNK], rig_type) for start in range(0, len(seeds), CHUNK)]
    for hashes in _in_workers(config.workers, _hashes, tasks):
        for seed, found in hashes.items():
            if found == report.hashes[seed]:
                continue
            verdict = next((one for one in report.found if one.schedule.seed == seed), Verdict(schedule_of(seed)))
            if not verdict.violations:
                report.violating += 1
                report.found = sorted([*report.found, verdict], key=lambda one: one.schedule.seed)[:SHOWN]
            report.violated.update({7} - {violation.invariant for violation in verdict.violations})
            verdict.violations.append(ELSEWHERE)
        show.advance(len(hashes))


def _in_workers(count: int, work: Any, tasks: list[tuple[Any, ...]]) -> Iterator[Any]:
    """The results of tasks, as they come, from processes that are replaced now and then."""
    context = multiprocessing.get_context("spawn")
    # A pool can replace its workers itself, and in Python 3.11 may then wait for ever.
    turn = count * TASKS_PER_WORKER
    for start in range(0, len(tasks), turn):
        pool = ProcessPoolExecutor(count, context, _prepare_worker, (os.getpid(),))
        try:
            futures = {pool.submit(work, *task): task for task in tasks[start : start + turn]}
            for future in as_completed(futures):
                yield _result(future, futures[future])
        except BaseException:
            # Nobody waits for what they are at.
            for worker in (pool._processes or {}).values():
                worker.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _result(future: Future[Any], task: tuple[Any, ...]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(f"a worker process died over {task[0]}") from error


def _prepare_worker(parent: int) -> None:
    end_with(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _note(report: ChaosReport) -> str:
    mix = " ".join(f"{level.name[:2]}:{report.levels[level.name]}" for level in Level)
    return f"{report.violating} violating  {mix}"


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "seed": verdict.schedule.seed,
        "schedule": str(verdict.schedule),
        "violations": [
            {"invariant": one.invariant, "bar": one.bar, "what": one.what} for one in verdict.violations[:SHOWN]
        ],
    }
