"""A sweep from its plan to its table: forecasts first, then the runs, then what they are worth."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from data.errors import DataError, OptionError
from regime.errors import ModelUnavailable, UserCodeRaised
from regime.files import alone_in, write_durably
from regime.model.checkpoint import find_checkpoint
from sage.config import BacktestConfig, as_dict
from sage.plugins import locate_plugin
from sage.progress import Progress
from sage.rundir import software
from sage.sweep.forecasts import ForecastsMade, jobs_of, make_forecasts, total_of
from sage.sweep.judged import Judged, judge, returns_of
from sage.sweep.ledger import DailyReturns, Ledger, idea_of
from sage.sweep.places import is_remote, local_path, mirror_of, read_file, without_secrets
from sage.sweep.plan import Plan, SweepConfig, Task, asked
from sage.sweep.runs import RUNS, Outcome, Sources, read_outcome, run_task
from sage.sweep.table import TABLE, earlier_keys, row_of, write_table
from sage.sweep.workers import Died, Workers

SWEEP_FILE = "sweep.json"
_SECRETS_LEFT_OUT = "secrets_left_out"
TABLE_EVERY_S = 15.0
"""How often the table is written while runs go on; after a crash the runs' own directories tell the rest."""


@dataclass(frozen=True)
class Swept:
    """What a sweep has left.

    ``reused`` runs were there already, ``stale`` ones were there and made from other bars, weights or code, and were
    made again. ``overhead_s`` is the time in workers beside the backtests. ``notes`` are for people.
    """

    plan: Plan
    rows: list[dict[str, Any]]
    forecasts: ForecastsMade
    reused: int
    stale: int
    seconds: float
    overhead_s: float
    judged: Judged
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Rows of the runs that failed."""
        return [row for row in self.rows if row["status"] != "ok"]


def sweep(plan: Plan, place: Path | str, workers: Workers, ledger: Ledger, show: Progress) -> Swept:
    """Run what is not done yet, and judge all of it.

    Parameters
    ----------
    plan
        All runs.
    place
        Where they leave what they leave, a directory or anything that fsspec reaches; runs of the same key that went
        well are not run again, if bars, weights and the user's own code are still what they were.
    workers
        Who does it.
    ledger
        Counts trials.
    show
        Hears how far it is.

    Raises
    ------
    OptionError
        If another sweep is at work there, or has left runs that are not of this plan.
    ModelUnavailable
        If forecasts are missing and there is no model to make them.
    OSError
        If the directory or the ledger cannot be written.
    """
    began = time.perf_counter()
    place = str(place)
    directory = local_path(place)
    directory.mkdir(parents=True, exist_ok=True)
    taken = OptionError(f"{without_secrets(place)}: another sweep is at work there; wait for its end")
    with alone_in(directory, taken):
        if is_remote(place):
            mirror_of(place).fetch(exact=True)
        _require_all_of_before(plan, directory, place)
        _sweep_out(directory / RUNS)
        _checkpoint_digest.cache_clear()
        _write_plan(plan, place)
        state = _State(plan, place, ledger)
        state.look()
        reused, interrupted = len(state.outcomes), False
        made = ForecastsMade(0, 0)
        try:
            with workers:
                made, engines = _forecast(plan, state.todo, workers, show)
                state.run(workers, engines, show)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            write_table(state.rows.values(), directory)
            _sweep_out(directory / RUNS)
        show.stage("judging", 1)
        judged = _judge(plan, state, ledger)
        show.advance(1)
    notes = [f"{ledger.path}: {ledger.damaged_lines:,} lines cannot be read"] if ledger.damaged_lines else []
    return Swept(
        plan=plan,
        rows=sorted(state.rows.values(), key=lambda row: int(row["run"])),
        forecasts=made,
        reused=reused,
        stale=state.stale,
        seconds=time.perf_counter() - began,
        overhead_s=state.overhead_s,
        judged=judged,
        interrupted=interrupted,
        notes=notes,
    )


def planned_before(place: str) -> SweepConfig:
    """What an earlier sweep was to run, to go on with it.

    Raises
    ------
    OptionError
        If there is none, or only its options can tell.
    DataError
        If what it has left cannot be read.
    """
    shown = without_secrets(place)
    try:
        told = read_file(place, SWEEP_FILE)
        if told is None:
            raise OptionError(f"--resume {shown}: there is no sweep")
        document = json.loads(told)
        if document.get(_SECRETS_LEFT_OUT):
            raise OptionError(
                f"--resume {shown}: its catalog or store lies at an address with a password, which is not kept; give "
                "all options of that sweep again"
            )
        return msgspec.convert(document["config"], SweepConfig)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown}/{SWEEP_FILE}: cannot be read ({error}); give all options of that sweep") from error


def done_before(plan: Plan, place: str) -> int:
    """How many runs of a plan need not be run again in this place. Nothing there is changed.

    Raises
    ------
    OptionError
        If runs are there that are not of this plan.
    OSError
        If the place cannot be reached.
    """
    if is_remote(place):
        mirror_of(place).fetch()
    _require_all_of_before(plan, local_path(place), place)
    found = ((task, read_outcome(local_path(place) / RUNS / task.key)) for task in plan.tasks)
    return sum(outcome is not None and _is_of_today(outcome, task, plan) for task, outcome in found)


class _State:
    """How far a sweep is: the outcomes of what is done, and the rows of what was run."""

    def __init__(self, plan: Plan, place: str, ledger: Ledger) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, Outcome] = {}
        self._stale: set[str] = set()
        self.overhead_s = 0.0
        self._plan, self._place, self._ledger = plan, place, ledger
        self._runs = local_path(place) / RUNS
        self.ideas = _ideas(plan)

    @property
    def stale(self) -> int:
        """How many runs were there, made from other bars, weights or code."""
        return len(self._stale)

    @property
    def todo(self) -> list[Task]:
        """Runs that are not done."""
        return [task for task in self._plan.tasks if task.key not in self.outcomes]

    def look(self) -> None:
        """Find what is done already."""
        for task in self._plan.tasks:
            outcome = read_outcome(self._runs / task.key)
            if outcome is None:
                continue
            if not _is_of_today(outcome, task, self._plan):
                self._stale.add(task.key)
                continue
            self._begin(task)
            self._take(task, outcome)

    def run(self, workers: Workers, engines: dict[str, str], show: Progress) -> None:
        """Run the others."""
        todo = self.todo
        if not todo:
            return

        def begun() -> Iterator[Task]:
            for task in todo:
                # When it is handed out and not before: what is never begun is no trial, and what it was before stays.
                self._begin(task)
                if task.key in self._stale:
                    _remove(self._place, task.key)
                yield task

        show.stage("running", len(todo))
        failed, written_at = 0, time.monotonic()
        for task, found in workers.each(functools.partial(run_task, place=self._place, engines=engines), begun()):
            outcome = Outcome(task.key, found.told) if isinstance(found, Died) else found
            self._take(task, outcome)
            self.overhead_s += outcome.overhead_s
            failed += bool(outcome.error)
            show.advance(1, f"{failed} failed" if failed else "")
            if time.monotonic() - written_at > TABLE_EVERY_S:
                written_at = time.monotonic()
                self._write_table()

    def _begin(self, task: Task) -> None:
        """Count a trial."""
        self._ledger.begin(self._plan.market(task).question, self.ideas[task.key], without_secrets(self._place))

    def _write_table(self) -> None:
        write_table(self.rows.values(), local_path(self._place))
        if is_remote(self._place):
            # Tried again with the next one; what it lacks in the end is told then.
            with contextlib.suppress(OSError):
                mirror_of(self._place).publish_file(TABLE)

    def _take(self, task: Task, outcome: Outcome) -> None:
        self.rows[task.key] = row_of(task, "failed" if outcome.error else "ok", outcome.error, outcome.figures)
        (self.failures if outcome.error else self.outcomes)[task.key] = outcome


def _judge(plan: Plan, state: _State, ledger: Ledger) -> Judged:
    """What the runs are worth among all trials ever made, theirs among them from now on."""
    questions = {plan.market(task).question for task in plan.tasks}
    own: set[tuple[str, str]] = {(plan.market(task).question, state.ideas[task.key]) for task in plan.tasks}
    first = {task.trial: task for task in reversed(plan.tasks)}
    table = returns_of(plan, state.outcomes)
    for column, trial in enumerate(table.trials):
        found = DailyReturns(table.days, table.table[:, column])
        ledger.finish(plan.market(first[trial]).question, state.ideas[first[trial].key], found)
    ledger.refresh()
    earlier = ledger.earlier(questions, own)
    every = state.outcomes | state.failures
    return judge(plan, every, ledger.count(questions), plan.config.seed, earlier, table)


def _forecast(plan: Plan, todo: list[Task], workers: Workers, show: Progress) -> tuple[ForecastsMade, dict[str, str]]:
    """Make what is missing; gives back what came of it, and the engines by what is asked of them."""
    jobs = jobs_of(plan.only(todo), workers.count)
    if not jobs:
        return ForecastsMade(0, 0), {}
    show.stage("forecasting ahead", sum(job.bars for job in jobs))
    made, engines = [], {}
    for job, found in workers.each(make_forecasts, jobs):
        if isinstance(found, Died):
            raise ModelUnavailable(f"forecasts could not be made: {found.told}")
        made.append(found)
        engines[asked(job.config)] = found.engine
        show.advance(job.bars, f"{sum(one.made for one in made):,} new")
    return total_of(made), engines


def _is_of_today(outcome: Outcome, task: Task, plan: Plan) -> bool:
    """Whether bars, weights and the user's own code are what a run was made from."""
    return outcome.sources == _sources(task, plan, outcome.sources)


def _sources(task: Task, plan: Plan, before: Sources | None) -> Sources | None:
    """What a run would be made from today; where that cannot be told, what it was made from."""
    if before is None:
        return None
    checkpoint = before.checkpoint
    if checkpoint:
        with contextlib.suppress(ModelUnavailable):
            checkpoint = _checkpoint_digest(task.config.model.name)
    own = {}
    for option, digest in before.own.items():
        # "--strategy", or "--alpha" with the class behind it.
        spec = option.partition(" ")[2] or task.config.own.strategy
        own[option] = locate_plugin(option, spec).sha256 if spec else digest
    return Sources(plan.sha256[task.key], checkpoint, own)


def _ideas(plan: Plan) -> dict[str, str]:
    """What each run tries, by its key: on other bars, or learnt from windows of another length, it is another idea."""
    made_of: dict[str, tuple[str, ...]] = {}
    windows = plan.config.windows
    learnt_from = f"rolling {windows.train_bars}" if windows is not None and windows.rolling else ""
    found = {}
    for task in plan.tasks:
        config = task.config
        names = json.dumps([config.model.name, config.own.strategy, config.own.alphas])
        if names not in made_of:
            made_of[names] = tuple(_digests(config))
        found[task.key] = idea_of(config, [*made_of[names], plan.market(task).size, learnt_from])
    return found


def _digests(config: BacktestConfig) -> Iterator[str]:
    """Digests of the weights and of the user's own classes; what cannot be found fails the runs that need it."""
    with contextlib.suppress(ModelUnavailable):
        yield _checkpoint_digest(config.model.name)
    own = [("--alpha", spec) for spec in config.own.alphas]
    if config.own.strategy is not None:
        own.append(("--strategy", config.own.strategy))
    for option, spec in own:
        with contextlib.suppress(OptionError, UserCodeRaised):
            yield locate_plugin(option, spec).sha256


@functools.lru_cache(maxsize=16)
def _checkpoint_digest(name: str) -> str:
    return find_checkpoint(name).digest


def _require_all_of_before(plan: Plan, directory: Path, place: str) -> None:
    """Refuse a plan without runs that are in the table: they would be gone from it."""
    others = earlier_keys(directory) - {task.key for task in plan.tasks}
    if others:
        shown = without_secrets(place)
        raise OptionError(
            f"--resume {shown}: {len(others):,} runs there are not of this sweep, and would be left out of its table; "
            "leave all options out to go on with it as it was, give all of its options again with values added, or "
            "choose another --out"
        )


def _remove(place: str, key: str) -> None:
    shutil.rmtree(local_path(place) / RUNS / key, ignore_errors=True)
    if is_remote(place):
        mirror_of(place).remove(f"{RUNS}/{key}")


def _sweep_out(runs: Path) -> None:
    """Remove what runs that were killed have left half written."""
    for path in runs.iterdir() if runs.is_dir() else ():
        if path.name.endswith(".partial"):
            shutil.rmtree(path, ignore_errors=True)


def _write_plan(plan: Plan, place: str) -> None:
    """Write what is to be run, so that it can be gone on with whatever becomes of this process."""
    document = {**software(), "config": as_dict(plan.config), "runs": len(plan.tasks), "trials": plan.trials}
    text = json.dumps(document, default=str)
    plain = without_secrets(text)
    document = json.loads(plain) | {_SECRETS_LEFT_OUT: plain != text}
    write_durably(local_path(place) / SWEEP_FILE, json.dumps(document, indent=2) + "\n")
    if is_remote(place):
        mirror_of(place).publish_file(SWEEP_FILE)
