"""What a sweep's results are worth: the winner less its luck, the chance of overfitting, and windows chosen blindly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage.performance import Interval, drawdown_interval, max_drawdown, sharpe, sharpe_interval
from sage.sweep.deflation import Deflated, deflated_sharpe, probabilistic_sharpe
from sage.sweep.ledger import DailyReturns
from sage.sweep.overfitting import Overfitting, probability_of_overfitting
from sage.sweep.plan import Plan, Task
from sage.sweep.runs import Outcome
from sage.sweep.shuffled import Moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SHARED_DAYS = 0.5
"""A trial of before must have been there on this share of the days, or its returns say nothing of them."""


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
    """Sharpe ratios, annualised, of all trials at the true times and with their positions moved in time.

    All are reckoned alike, as exposures times the market's returns less costs. ``true`` are the trials' at the true
    times, ``winner`` is that of the sweep's winner, and ``best`` the best of them. ``moved`` are all trials' after all
    shifts, and ``best_moved`` the best trial's after each. ``p_value`` is the share of shifts with a best that is as
    good as the true one, that one among them.
    """

    true: FloatArray
    winner: float | None
    best: float
    moved: FloatArray
    best_moved: FloatArray
    p_value: float


@dataclass(frozen=True)
class Pooled:
    """One trial over all its days. The probabilistic Sharpe ratio is that of it alone; the deflated one is how sure it
    is that it beats what luck would have made of all trials."""

    sharpe: float | None
    total_return: float
    max_drawdown: float
    probabilistic_sharpe: float | None
    deflated_sharpe: float | None


@dataclass(frozen=True)
class Judged:
    """The statistics of a sweep; None where there is too little to say.

    ``days_per_year`` is what figures are annualised by that are of all days: those of the instrument that trades on
    most of them. One that trades on fewer has returns of nought on the others, which makes its figures the same as by
    its own days alone.
    """

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
    by_trial: dict[int, Pooled] = field(default_factory=dict)


def judge(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    trials_ever: int,
    seed: int,
    earlier: Sequence[DailyReturns] = (),
    found: Returns | None = None,
) -> Judged:
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
    earlier
        What trials of before have earned, none of this plan's among them. Those on other days count as trials of which
        nothing is known.
    found
        What :func:`returns_of` makes of the outcomes, where that is there already.
    """
    found = found or returns_of(plan, outcomes)
    ever = max(trials_ever, plan.trials)
    failed = plan.trials - len(found.trials)
    years = {task.trial: plan.market(task).trading_days_per_year for task in plan.tasks}
    year = max(years.values())
    judged = Judged(plan.trials, ever, failed, len(found.days), year)
    if not found.trials or not len(found.days):
        return judged
    known = _on_days(earlier, found.days)
    idle = max(0, ever - len(found.trials) - known.shape[1])
    deflated = deflated_sharpe(found.table, idle, known)
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
        walked=_walked(plan, outcomes, found, years, seed),
        shuffled=_shuffled(plan, outcomes, found, winner.trial, years),
        by_trial={trial: _pooled(found.table[:, column], year, deflated) for column, trial in enumerate(found.trials)},
    )


def _pooled(days: FloatArray, days_per_year: int, deflated: Deflated | None) -> Pooled:
    moves = deflated is not None and float(days.std()) > 0.0
    return Pooled(
        sharpe=sharpe(days, days_per_year),
        total_return=float(np.prod(1.0 + days) - 1.0),
        max_drawdown=_drawdown(days),
        probabilistic_sharpe=probabilistic_sharpe(days) if moves else None,
        deflated_sharpe=probabilistic_sharpe(days, deflated.expected_sharpe)
        if deflated is not None and moves
        else None,
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


def _walked(
    plan: Plan, outcomes: Mapping[str, Outcome], found: Returns, years: Mapping[int, int], seed: int
) -> WalkedForward | None:
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
    lasted_years = 0.0
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
                sharpe_before=scores[column_of[trial]] * math.sqrt(max(years.values())),
                sharpe=sharpe(days, years[trial]),
                total_return=float(np.prod(1.0 + days) - 1.0),
            )
        )
        traded.append(days)
        lasted_years += len(days) / years[trial]
    if not lasted_years:
        return None
    pooled = np.concatenate(traded)
    year = len(pooled) / lasted_years
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
    return {column: sharpe(before[:, column], 1) or 0.0 for column in columns}


def _first_day(outcome: Outcome) -> int:
    return int(outcome.days[0]) if len(outcome.days) else 0


def _on_days(earlier: Sequence[DailyReturns], days: IntArray) -> FloatArray:
    """Columns of those that were there on half of the days, at least, shape (days, trials); 0 on the others."""
    columns = []
    for one in earlier:
        _, here, there = np.intersect1d(days, one.days, return_indices=True)
        if len(here) >= _SHARED_DAYS * len(days):
            column = np.zeros(len(days))
            column[here] = one.returns[there]
            columns.append(column)
    return np.stack(columns, axis=1) if columns else np.empty((len(days), 0))


def _shuffled(
    plan: Plan, outcomes: Mapping[str, Outcome], found: Returns, winner: int, years: Mapping[int, int]
) -> Shuffled | None:
    """All trials' positions moved by the same share of each window, and the best of them after each such move."""
    moments: dict[int, Moments] = {}
    judged = set(found.trials)
    for task in plan.tasks:
        own = outcomes[task.key].shuffled if task.trial in judged else None
        if own is not None:
            moments[task.trial] = own + moments[task.trial] if task.trial in moments else own
    # What never traded has no luck to compare with, and would stand at nought among those that lose.
    moments = {trial: one for trial, one in moments.items() if one.sums[0, 2] > 0.0}
    if not moments:
        return None
    ratios = np.stack([one.sharpes() * math.sqrt(years[trial]) for trial, one in moments.items()])
    best = ratios.max(axis=0)
    as_good = int(np.sum(best[1:] >= best[0]))
    rows = {trial: row for row, trial in enumerate(moments)}
    return Shuffled(
        true=ratios[:, 0],
        winner=float(ratios[rows[winner], 0]) if winner in rows else None,
        best=float(best[0]),
        moved=ratios[:, 1:].ravel(),
        best_moved=best[1:],
        p_value=(1.0 + as_good) / len(best),
    )


def _best(table: FloatArray) -> int:
    ratios = [sharpe(days, 1) for days in table.T]
    return int(np.argmax([-math.inf if ratio is None else ratio for ratio in ratios]))


def _drawdown(returns: FloatArray) -> float:
    return max_drawdown(np.asarray(np.cumprod(1.0 + returns), dtype=np.float64), 1.0)
