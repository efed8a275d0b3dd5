"""A sweep from its plan to its table: forecasts first, then the runs, then what they are worth."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regime.errors import ModelUnavailable
from sage.config import as_dict
from sage.progress import Progress
from sage.rundir import software
from sage.sweep.forecasts import ForecastsMade, jobs_of, make_forecasts, total_of
from sage.sweep.judged import Judged, judge
from sage.sweep.ledger import Ledger, question_of
from sage.sweep.places import is_remote, local_path, mirror_of, without_secrets
from sage.sweep.plan import Plan, Task
from sage.sweep.runs import ERROR_FILE, RUNS, read_outcome, run_task
from sage.sweep.table import row_of, write_table
from sage.sweep.workers import Died, Workers

SWEEP_FILE = "sweep.json"
TABLE_EVERY_S = 15.0
"""How often the table is written while runs go on; after a crash the runs' own directories tell the rest."""


@dataclass(frozen=True)
class Swept:
    """What a sweep has left. ``reused`` runs were there already; ``overhead_s`` is the time beside the backtests."""

    plan: Plan
    rows: list[dict[str, Any]]
    forecasts: ForecastsMade
    reused: int
    seconds: float
    overhead_s: float
    judged: Judged
    interrupted: bool = False

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
        well are not run again.
    workers
        Who does it.
    ledger
        Counts trials.
    show
        Hears how far it is.

    Raises
    ------
    ModelUnavailable
        If forecasts are missing and there is no model to make them.
    OSError
        If the directory or the ledger cannot be written.
    """
    began = time.perf_counter()
    place = str(place)
    directory = local_path(place)
    directory.mkdir(parents=True, exist_ok=True)
    if is_remote(place):
        mirror_of(place).fetch()
    _sweep_out(directory / RUNS, errors=True)
    _write_plan(plan, directory)
    kept = {task.key: _kept(directory / RUNS / task.key) for task in plan.tasks}
    rows = {task.key: row_of(task, "ok", "", figures) for task in plan.tasks if (figures := kept[task.key])}
    todo = [task for task in plan.tasks if task.key not in rows]
    made = _forecast(plan, todo, workers, show)
    interrupted, overhead_s = False, 0.0
    if todo:
        show.stage("running", len(todo))
    try:
        overhead_s = _run_all(todo, place, workers, ledger, show, rows)
    except KeyboardInterrupt:
        interrupted = True
    if is_remote(place):
        mirror_of(place).fetch(RUNS)
    write_table(rows.values(), directory)
    if interrupted:
        _sweep_out(directory / RUNS, errors=False)
    show.stage("judging", 1)
    outcomes = {key: outcome for key in rows if (outcome := read_outcome(directory / RUNS / key)) is not None}
    questions = {question_of(task.config) for task in plan.tasks}
    judged = judge(plan, outcomes, ledger.count(questions), plan.config.seed)
    show.advance(1)
    ordered = sorted(rows.values(), key=lambda row: int(row["run"]))
    reused = len(plan.tasks) - len(todo)
    return Swept(plan, ordered, made, reused, time.perf_counter() - began, overhead_s, judged, interrupted)


def _run_all(
    todo: list[Task], place: str, workers: Workers, ledger: Ledger, show: Progress, rows: dict[str, dict[str, Any]]
) -> float:
    """Run each task; gives back the seconds that went by in workers beside the backtests."""
    overhead_s, failed, written_at = 0.0, 0, time.monotonic()

    def begun() -> Iterator[Task]:
        for task in todo:
            # When it is handed out and not before: what is never begun is no trial.
            ledger.begin(task.config, without_secrets(place))
            yield task

    for task, outcome in workers.each(functools.partial(run_task, place=place), begun()):
        error = outcome.told if isinstance(outcome, Died) else outcome.error
        figures = {} if isinstance(outcome, Died) else outcome.figures
        rows[task.key] = row_of(task, "failed" if error else "ok", error, figures)
        overhead_s += 0.0 if isinstance(outcome, Died) else outcome.overhead_s
        failed += bool(error)
        show.advance(1, f"{failed} failed" if failed else "")
        if time.monotonic() - written_at > TABLE_EVERY_S:
            written_at = time.monotonic()
            write_table(rows.values(), local_path(place))
    return overhead_s


def _forecast(plan: Plan, todo: list[Task], workers: Workers, show: Progress) -> ForecastsMade:
    jobs = jobs_of(Plan(plan.config, todo, plan.bars), workers.count)
    if not jobs:
        return ForecastsMade(0, 0)
    show.stage("forecasting ahead", len(jobs))
    made = []
    for _, found in workers.each(make_forecasts, jobs):
        if isinstance(found, Died):
            raise ModelUnavailable(f"forecasts could not be made: {found.told}")
        made.append(found)
        show.advance(1, f"{sum(one.made for one in made):,} new")
    return total_of(made)


def _kept(directory: Path) -> dict[str, Any] | None:
    """The figures of a run that is there whole."""
    try:
        found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def _sweep_out(runs: Path, *, errors: bool) -> None:
    """Remove what runs that were killed have left half written, and errors where they are to be tried again."""
    if not runs.is_dir():
        return
    for path in runs.iterdir():
        if path.name.endswith(".partial") or (errors and (path / ERROR_FILE).exists()):
            shutil.rmtree(path, ignore_errors=True)


def _write_plan(plan: Plan, directory: Path) -> None:
    document = {**software(), "config": as_dict(plan.config), "runs": len(plan.tasks), "trials": plan.trials}
    partial = directory / f".{SWEEP_FILE}.partial"
    partial.write_text(without_secrets(json.dumps(document, indent=2, default=str)) + "\n")
    os.replace(partial, directory / SWEEP_FILE)
