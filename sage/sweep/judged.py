"""What a sweep's results are worth: the winner less its luck, the chance of overfitting, and windows chosen blindly."""

from __future__ import annotations

import dataclasses
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
BoolArray = NDArray[np.bool_]

_SHARED_DAYS = 0.5
"""A trial of before must have been there on this share of the days, or its returns say nothing of them."""


@dataclass(frozen=True)
class Returns:
    """Daily returns of all trials on the days of all their windows, shape (days, trials); 0 where one was not there.

    ``there`` marks the days of each trial's own runs, in the same shape. ``trials`` are the plan's numbers, a column
    each; trials with a run that failed or was not made are left out.
    """

    days: IntArray
    table: FloatArray
    there: BoolArray
    trials: list[int]

    def own(self, column: int, before_day: int | None = None) -> FloatArray:
        """One trial's returns on its own days, all or those before a day."""
        counted = self.there[:, column]
        if before_day is not None:
            counted = counted & (self.days < before_day)
        found: FloatArray = self.table[counted, column]
        return found


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
    """All windows of an instrument but the first, each with the trial chosen before it; and their days pooled."""

    instrument: str
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
    """One trial over all its own days. The t statistic is that of its mean return, by which trials are ranked: of
    those that were there equally long the order is that of their Sharpe ratios. The probabilistic Sharpe ratio is that
    of it alone; the deflated one is how sure it is that it beats what luck would have made of all trials."""

    sharpe: float | None
    t_statistic: float | None
    total_return: float
    max_drawdown: float
    probabilistic_sharpe: float | None
    deflated_sharpe: float | None


@dataclass(frozen=True)
class Judged:
    """The statistics of a sweep; None where there is too little to say.

    ``trials`` are those that were planned; of ``failed_trials`` a run failed, of ``unfinished_trials`` one was not
    made. ``days`` are those of all trials together. A trial's figures are of its own days, annualised by the days on
    which its instrument trades; ``days_per_year`` are the winner's. The probability of overfitting is of the
    ``shared_days``, on which all trials were there. ``luck_sharpe`` is what the best of all trials ever made would have
    reached by luck, annualised on the winner's days.
    """

    trials: int
    trials_ever: int
    failed_trials: int
    unfinished_trials: int
    days: int
    days_per_year: int | None = None
    luck_sharpe: float | None = None
    winner: Task | None = None
    winner_sharpe: float | None = None
    winner_interval: Interval | None = None
    winner_drawdown: float | None = None
    winner_drawdown_interval: Interval | None = None
    deflated: Deflated | None = None
    overfitting: Overfitting | None = None
    shared_days: int = 0
    walks: list[WalkedForward] = field(default_factory=list)
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
        By key; those with an error fail their trial.
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
    ever = max(trials_ever, len(found.trials))
    failed = {task.trial for task in plan.tasks if task.key in outcomes and outcomes[task.key].error}
    judged = Judged(
        trials=plan.trials,
        trials_ever=ever,
        failed_trials=len(failed),
        unfinished_trials=plan.trials - len(found.trials) - len(failed),
        days=len(found.days),
    )
    if not found.trials or not len(found.days):
        return judged
    years = {task.trial: plan.market(task).trading_days_per_year for task in plan.tasks}
    known = _on_days(earlier, found.days)
    idle = max(0, ever - len(found.trials) - known.shape[1])
    deflated = deflated_sharpe(found.table, idle, known)
    column = deflated.winner if deflated is not None else _best(found.table)
    winner = next(task for task in plan.tasks if task.trial == found.trials[column])
    own, year = found.own(column), years[winner.trial]
    shared = found.table[found.there.all(axis=1)]
    # A ratio over all days is one over its own that is smaller by the root of the share it was there.
    luck = None if deflated is None else deflated.expected_sharpe * math.sqrt(year * len(found.days) / len(own))
    return dataclasses.replace(
        judged,
        days_per_year=year,
        luck_sharpe=luck,
        winner=winner,
        winner_sharpe=sharpe(own, year),
        winner_interval=sharpe_interval(own, year, seed),
        winner_drawdown=_drawdown(own),
        winner_drawdown_interval=drawdown_interval(own, seed),
        deflated=deflated,
        overfitting=probability_of_overfitting(shared),
        shared_days=len(shared),
        walks=_walks(plan, outcomes, found, years, seed),
        shuffled=_shuffled(plan, outcomes, found, winner.trial, years),
        by_trial={trial: _pooled(found, column, years[trial], deflated) for column, trial in enumerate(found.trials)},
    )


def _pooled(found: Returns, column: int, days_per_year: int, deflated: Deflated | None) -> Pooled:
    days, own = found.table[:, column], found.own(column)
    ratio = sharpe(days, 1)
    moves = deflated is not None and float(days.std()) > 0.0
    return Pooled(
        sharpe=sharpe(own, days_per_year),
        t_statistic=None if ratio is None else ratio * math.sqrt(len(days)),
        total_return=float(np.prod(1.0 + own) - 1.0),
        max_drawdown=_drawdown(own),
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
    there = np.zeros(table.shape, dtype=np.bool_)
    for column, trial in enumerate(trials):
        for run in runs[trial]:
            # Two windows may share a day: its returns of both count.
            rows = np.searchsorted(days, run.days)
            table[rows, column] += run.returns
            there[rows, column] = True
    return Returns(days, table, there, trials)


def _walks(
    plan: Plan, outcomes: Mapping[str, Outcome], found: Returns, years: Mapping[int, int], seed: int
) -> list[WalkedForward]:
    """A walk for each instrument: windows count bars, so that those of two instruments are not the same days."""
    windowed: dict[str, list[Task]] = {}
    judged = set(found.trials)
    for task in plan.tasks:
        if task.window is not None and task.trial in judged:
            windowed.setdefault(task.instrument, []).append(task)
    walks = [_walked(tasks, outcomes, found, years[tasks[0].trial], seed) for tasks in windowed.values()]
    return [walk for walk in walks if walk is not None]


def _walked(
    tasks: Sequence[Task], outcomes: Mapping[str, Outcome], found: Returns, days_per_year: int, seed: int
) -> WalkedForward | None:
    """At each window the trial that did best in all windows before it; their embargo keeps outcomes apart."""
    column_of = {trial: column for column, trial in enumerate(found.trials)}
    windows: dict[tuple[str, int], dict[int, Task]] = {}
    for task in tasks:
        if task.window is not None:
            windows.setdefault((str(task.period), task.window.number), {})[task.trial] = task
    first_day = {key: min(_first_day(outcomes[task.key]) for task in own.values()) for key, own in windows.items()}
    ordered = sorted(windows, key=lambda key: first_day[key])
    chosen: list[Chosen] = []
    traded: list[Outcome] = []
    for number, key in enumerate(ordered[1:], start=1):
        before = {trial: found.own(column_of[trial], first_day[key]) for trial in windows[key]}
        if max(map(len, before.values())) < 2:
            continue
        # Of what never moved it is nothing.
        scores = {trial: sharpe(days, days_per_year) or 0.0 for trial, days in before.items()}
        trial = max(scores, key=lambda one: scores[one])
        task = windows[key][trial]
        outcome = outcomes[task.key]
        chosen.append(
            Chosen(
                window=number + 1,
                trial=trial,
                values=task.values,
                sharpe_before=scores[trial],
                sharpe=sharpe(outcome.returns, days_per_year),
                total_return=float(np.prod(1.0 + outcome.returns) - 1.0),
            )
        )
        traded.append(outcome)
    if not sum(len(outcome.days) for outcome in traded):
        return None
    pooled = _by_day(traded)
    return WalkedForward(
        instrument=tasks[0].instrument,
        windows=chosen,
        sharpe=sharpe(pooled, days_per_year),
        interval=sharpe_interval(pooled, days_per_year, seed),
        total_return=float(np.prod(1.0 + pooled) - 1.0),
        max_drawdown=_drawdown(pooled),
        drawdown_interval=drawdown_interval(pooled, seed),
    )


def _by_day(traded: Sequence[Outcome]) -> FloatArray:
    """Returns of windows behind each other; a day that two of them share holds both."""
    days, rows = np.unique(np.concatenate([outcome.days for outcome in traded]), return_inverse=True)
    found = np.zeros(len(days))
    np.add.at(found, rows, np.concatenate([outcome.returns for outcome in traded]))
    return found


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
