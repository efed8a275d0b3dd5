"""What a sweep's results are worth: the winner less its luck, the chance of overfitting, and windows chosen blindly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage.performance import Interval, drawdown_interval, sharpe, sharpe_interval
from sage.sweep.deflation import Deflated, deflated_sharpe, sharpes
from sage.sweep.overfitting import Overfitting, probability_of_overfitting
from sage.sweep.plan import Plan, Task
from sage.sweep.runs import Outcome
from sage.sweep.shuffled import Moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Returns:
    """Daily returns of all trials on the days of all their windows, shape (days, trials); 0 where one did not trade.

    ``trials`` are the plan's numbers, a column each; trials with a run that failed are left out.
    """

    days: IntArray
    table: FloatArray
    trials: list[int]


@dataclass(frozen=True)
class Chosen:
    """One window, traded by the trial that had done best in all windows before it."""

    window: int
    trial: int
    values: dict[str, Any]
    sharpe_before: float
    sharpe: float | None
    total_return: float


@dataclass(frozen=True)
class WalkedForward:
    """All windows but the first, each with the trial chosen before it; and their days pooled."""

    windows: list[Chosen]
    sharpe: float | None
    interval: Interval | None
    total_return: float
    max_drawdown: float
    drawdown_interval: Interval | None


@dataclass(frozen=True)
class Shuffled:
    """Best Sharpe ratios, annualised, that all trials together reached with their positions moved in time.

    ``best`` holds one for each shift, ``winner`` the best at the true times, reckoned in the same way. ``p_value`` is
    the share of shifts with a best that is as good, the true one among them.
    """

    best: FloatArray
    every: FloatArray
    winner: float
    p_value: float


@dataclass(frozen=True)
class Judged:
    """The statistics of a sweep; None where there is too little to say."""

    trials: int
    trials_ever: int
    failed_trials: int
    days: int
    days_per_year: int
    winner: Task | None = None
    winner_sharpe: float | None = None
    winner_interval: Interval | None = None
    winner_drawdown: float | None = None
    winner_drawdown_interval: Interval | None = None
    deflated: Deflated | None = None
    overfitting: Overfitting | None = None
    walked: WalkedForward | None = None
    shuffled: Shuffled | None = None
    pooled: dict[int, float | None] = field(default_factory=dict)


def judge(plan: Plan, outcomes: Mapping[str, Outcome], trials_ever: int, seed: int) -> Judged:
    """Judge what the runs of a plan have left.

    Parameters
    ----------
    plan
        All runs.
    outcomes
        By key; those without an error count.
    trials_ever
        How many trials were ever made on these instruments, these among them.
    seed
        Of the bootstraps.
    """
    found = returns_of(plan, outcomes)
    ever = max(trials_ever, plan.trials)
    failed = plan.trials - len(found.trials)
    year = max((int(one.figures.get("trading_days_per_year", 0)) for one in outcomes.values()), default=0) or 365
    judged = Judged(plan.trials, ever, failed, len(found.days), year)
    if not found.trials or not len(found.days):
        return judged
    pooled = {trial: sharpe(found.table[:, column], year) for column, trial in enumerate(found.trials)}
    deflated = deflated_sharpe(found.table, idle_trials=ever - len(found.trials))
    column = deflated.winner if deflated is not None else _best(found.table)
    days = found.table[:, column]
    winner = next(task for task in plan.tasks if task.trial == found.trials[column])
    return Judged(
        trials=plan.trials,
        trials_ever=ever,
        failed_trials=failed,
        days=len(found.days),
        days_per_year=year,
        winner=winner,
        winner_sharpe=sharpe(days, year),
        winner_interval=sharpe_interval(days, year, seed),
        winner_drawdown=_drawdown(days),
        winner_drawdown_interval=drawdown_interval(days, seed),
        deflated=deflated,
        overfitting=probability_of_overfitting(found.table),
        walked=_walked(plan, outcomes, found, year, seed),
        shuffled=_shuffled(plan, outcomes, found, year),
        pooled=pooled,
    )


def returns_of(plan: Plan, outcomes: Mapping[str, Outcome]) -> Returns:
    """The matrix of daily returns. Runs of one trial on several windows and periods stand one behind the other."""
    by_trial: dict[int, list[Outcome | None]] = {}
    for task in plan.tasks:
        outcome = outcomes.get(task.key)
        good = outcome if outcome is not None and not outcome.error else None
        by_trial.setdefault(task.trial, []).append(good)
    trials = [trial for trial, runs in by_trial.items() if all(run is not None for run in runs)]
    runs = {trial: [run for run in by_trial[trial] if run is not None] for trial in trials}
    days = np.unique(np.concatenate([run.days for every in runs.values() for run in every] or [np.empty(0, np.int64)]))
    table = np.zeros((len(days), len(trials)))
    for column, trial in enumerate(trials):
        for run in runs[trial]:
            # Two windows may share a day: its returns of both count.
            table[np.searchsorted(days, run.days), column] += run.returns
    return Returns(days, table, trials)


def _walked(plan: Plan, outcomes: Mapping[str, Outcome], found: Returns, year: int, seed: int) -> WalkedForward | None:
    """At each window the trial that did best in all windows before it; their embargo keeps outcomes apart."""
    column_of = {trial: column for column, trial in enumerate(found.trials)}
    windows: dict[tuple[str, int], list[Task]] = {}
    for task in plan.tasks:
        if task.window is not None and task.trial in column_of:
            windows.setdefault((str(task.period), task.window.number), []).append(task)
    if len(windows) < 2:
        return None
    first_day = {key: min(_first_day(outcomes[task.key]) for task in tasks) for key, tasks in windows.items()}
    ordered = sorted(windows, key=lambda key: first_day[key])
    chosen: list[Chosen] = []
    traded: list[FloatArray] = []
    for number, key in enumerate(ordered[1:], start=1):
        before = found.table[found.days < first_day[key]]
        tasks = {task.trial: task for task in windows[key]}
        scores = _scores(before, [column_of[trial] for trial in tasks])
        if len(before) < 2:
            continue
        trial = max(tasks, key=lambda one: scores[column_of[one]])
        days = outcomes[tasks[trial].key].returns
        chosen.append(
            Chosen(
                window=number + 1,
                trial=trial,
                values=tasks[trial].values,
                sharpe_before=scores[column_of[trial]] * math.sqrt(year),
                sharpe=sharpe(days, year),
                total_return=float(np.prod(1.0 + days) - 1.0),
            )
        )
        traded.append(days)
    if not traded:
        return None
    pooled = np.concatenate(traded)
    return WalkedForward(
        windows=chosen,
        sharpe=sharpe(pooled, year),
        interval=sharpe_interval(pooled, year, seed),
        total_return=float(np.prod(1.0 + pooled) - 1.0),
        max_drawdown=_drawdown(pooled),
        drawdown_interval=drawdown_interval(pooled, seed),
    )


def _scores(before: FloatArray, columns: Sequence[int]) -> dict[int, float]:
    """Sharpe ratios of a day; of what never moved it is nothing."""
    found = {}
    for column in columns:
        days = before[:, column]
        found[column] = float(sharpes(days[:, None])[0]) if len(days) > 1 and days.std() > 0 else 0.0
    return found


def _first_day(outcome: Outcome) -> int:
    return int(outcome.days[0]) if len(outcome.days) else 0


def _shuffled(plan: Plan, outcomes: Mapping[str, Outcome], found: Returns, year: int) -> Shuffled | None:
    """All trials' positions moved by the same share of each window, and the best of them after each such move."""
    moments: dict[int, Moments] = {}
    for task in plan.tasks:
        own = outcomes[task.key].shuffled if task.trial in found.trials else None
        if own is not None:
            moments[task.trial] = own + moments[task.trial] if task.trial in moments else own
    # What never traded has no luck to compare with, and would stand at nought among those that lose.
    moments = {trial: one for trial, one in moments.items() if one.sums[0, 2] > 0.0}
    if not moments:
        return None
    ratios = np.stack([one.sharpes() for one in moments.values()]) * math.sqrt(year)
    best = ratios.max(axis=0)
    as_good = int(np.sum(best[1:] >= best[0]))
    return Shuffled(best[1:], ratios[:, 1:].ravel(), float(best[0]), (1.0 + as_good) / len(best))


def _best(table: FloatArray) -> int:
    return int(np.argmax([days.mean() / days.std() if days.std() > 0 else -math.inf for days in table.T]))


def _drawdown(returns: FloatArray) -> float:
    worth = np.cumprod(1.0 + returns)
    peak = np.maximum(np.maximum.accumulate(worth), 1.0)
    return float((worth / peak - 1.0).min()) if len(worth) else 0.0
