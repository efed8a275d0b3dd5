"""What is said of a sweep follows from its runs' days, and a planted edge is told from luck."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from data.synthetic import SyntheticConfig
from sage.config import BacktestConfig, DataConfig
from sage.sweep.axes import Axis
from sage.sweep.judged import judge, returns_of
from sage.sweep.ledger import DailyReturns
from sage.sweep.plan import Plan, SweepConfig, market_key, plan_of
from sage.sweep.runs import Outcome
from sage.sweep.shuffled import SHIFTS, Moments
from sage.sweep.windows import WindowConfig

BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=400)))
WINDOWS = WindowConfig(100, 30)
DAYS = 120


def planned(trials: int, windows: WindowConfig | None = WINDOWS) -> Plan:
    values = tuple(round(0.05 + 0.01 * number, 2) for number in range(trials))
    return plan_of(SweepConfig(BASE, (Axis("sizing.target_volatility", values),), windows=windows))


def outcomes(plan: Plan, edges: Sequence[float], failed: int = -1, seed: int = 3) -> dict[str, Outcome]:
    """Made-up days: each window has DAYS of its own; a trial's edge is its Sharpe ratio of a day."""
    rng = np.random.default_rng(seed)
    found = {}
    for task in plan.tasks:
        number = 0 if task.window is None else task.window.number
        days = 20_000 + DAYS * number + np.arange(DAYS)
        returns = 0.01 * (edges[task.trial] + rng.standard_normal(DAYS))
        sums = np.stack([np.array([DAYS, 0.001 * (row == 0), 0.01]) for row in range(1 + SHIFTS)])
        error = "it went wrong" if task.number == failed else ""
        found[task.key] = Outcome(task.key, error, {}, None, days, returns, Moments(sums), 0.0)
    return found


def test_an_edge_that_lasts_wins_is_significant_and_is_chosen_in_every_window() -> None:
    plan = planned(10)
    judged = judge(plan, outcomes(plan, [0.0] * 9 + [0.5]), trials_ever=10, seed=1)
    windows = len({task.window.number for task in plan.tasks if task.window is not None})
    assert judged.days == DAYS * windows
    assert judged.winner is not None and judged.winner.trial == 9
    assert judged.deflated is not None and judged.deflated.is_significant
    assert judged.overfitting is not None and judged.overfitting.probability < 0.05
    assert judged.walked is not None
    assert [one.trial for one in judged.walked.windows] == [9] * (windows - 1)
    assert judged.walked.sharpe is not None and judged.walked.sharpe > 5.0
    assert judged.winner_interval is not None and judged.winner_interval.low > 3.0
    assert judged.winner_drawdown_interval is not None and judged.winner_drawdown_interval.high < 0.0


def test_trials_made_elsewhere_make_the_same_winner_worth_less() -> None:
    plan = planned(5)
    found = outcomes(plan, [0.0] * 4 + [0.12])
    few, many = (judge(plan, found, trials_ever=ever, seed=1).deflated for ever in (5, 5_000))
    assert few is not None and many is not None
    assert many.trials == 5_000 and many.probability < few.probability


def test_trials_made_elsewhere_that_were_much_the_same_cost_less_than_others() -> None:
    plan = planned(2, windows=None)
    found = outcomes(plan, [0.0, 0.12])
    days, winner = found[plan.tasks[1].key].days, found[plan.tasks[1].key].returns
    rng = np.random.default_rng(9)
    alike = [DailyReturns(days, winner + 0.0005 * rng.standard_normal(DAYS)) for _ in range(50)]
    unlike = [DailyReturns(days, 0.01 * rng.standard_normal(DAYS)) for _ in range(50)]
    elsewhere = [DailyReturns(days + 10 * DAYS, one.returns) for one in alike]
    same, other, unknown = (judge(plan, found, 52, 1, earlier).deflated for earlier in (alike, unlike, elsewhere))
    assert same is not None and other is not None and unknown is not None
    assert same.trials == other.trials == unknown.trials == 52
    assert same.probability > other.probability and same.probability > unknown.probability


def test_figures_are_annualised_by_the_days_on_which_the_instrument_trades() -> None:
    plan = plan_of(SweepConfig(BacktestConfig(data=DataConfig(source="sp500"))))
    judged = judge(plan, outcomes(plan, [0.1]), 1, 1)
    (task,) = plan.tasks
    days = outcomes(plan, [0.1])[task.key].returns
    assert judged.days_per_year == 252
    assert judged.winner_sharpe == pytest.approx(days.mean() / days.std(ddof=1) * np.sqrt(252))
    assert judged.by_trial[0].sharpe == judged.winner_sharpe


def test_an_instrument_that_trades_on_fewer_days_is_annualised_by_its_own() -> None:
    plan = plan_of(SweepConfig(BASE, (Axis("seed", (1, 2)),)))
    stock, coin = plan.tasks
    key = market_key(stock.config)
    plan.markets[key] = dataclasses.replace(plan.markets[key], trading_days_per_year=252)
    rng = np.random.default_rng(4)
    days = np.arange(20_000, 23_650)
    open_days = np.sort(rng.choice(days, 2_520, replace=False))
    moments = Moments(np.tile([1_000.0, 1.0, 0.1], (1 + SHIFTS, 1)))
    found = {
        task.key: Outcome(task.key, "", {}, None, own, 0.0006 + 0.01 * rng.standard_normal(len(own)), moments)
        for task, own in ((stock, open_days), (coin, days))
    }
    judged = judge(plan, found, 2, 1)
    own = found[stock.key].returns
    assert judged.days_per_year == 365 and judged.winner is not None
    assert judged.by_trial[stock.trial].sharpe == pytest.approx(own.mean() / own.std(ddof=1) * np.sqrt(252), rel=0.01)
    # By one measure for all: the winner is the first of the table, too.
    assert max(judged.by_trial, key=lambda trial: judged.by_trial[trial].sharpe or 0.0) == judged.winner.trial
    assert judged.shuffled is not None
    assert judged.shuffled.true[1] / judged.shuffled.true[0] == pytest.approx(np.sqrt(365 / 252))


def test_every_trial_is_judged_alone_and_among_all() -> None:
    plan = planned(3, windows=None)
    judged = judge(plan, outcomes(plan, [0.0, 0.3, 0.0]), 3, 1)
    assert judged.deflated is not None and judged.winner is not None
    best = judged.by_trial[judged.winner.trial]
    assert best.deflated_sharpe == judged.deflated.probability
    assert best.probabilistic_sharpe == judged.deflated.naive_probability
    assert all(one.deflated_sharpe <= best.deflated_sharpe for one in judged.by_trial.values())  # type: ignore[operator]


def test_a_window_knows_nothing_of_itself_when_its_trial_is_chosen() -> None:
    plan = planned(6)
    found = outcomes(plan, [0.0] * 6)
    before = judge(plan, found, 6, 1).walked
    last = max(task.window.number for task in plan.tasks if task.window is not None)
    for task in plan.tasks:
        if task.window is not None and task.window.number == last:
            one = found[task.key]
            found[task.key] = dataclasses.replace(one, returns=-7.0 * one.returns)
    after = judge(plan, found, 6, 1).walked
    assert before is not None and after is not None
    assert [one.trial for one in before.windows] == [one.trial for one in after.windows]
    assert before.windows[:-1] == after.windows[:-1] and before.windows[-1] != after.windows[-1]


def test_a_trial_of_which_a_run_failed_is_counted_and_not_judged() -> None:
    plan = planned(4)
    judged = judge(plan, outcomes(plan, [0.0, 0.0, 0.9, 0.0], failed=plan.tasks[-1].number), 4, 1)
    assert judged.failed_trials == 1 and set(judged.by_trial) == {0, 1, 2}
    assert judged.deflated is not None and judged.deflated.trials == 4


def test_days_of_two_windows_stand_behind_each_other_and_a_shared_day_holds_both() -> None:
    plan = planned(2)
    found = outcomes(plan, [0.0, 0.0])
    first, second = [task.key for task in plan.tasks if task.trial == 0][:2]
    one, other = found[first], found[second]
    found[second] = dataclasses.replace(other, days=other.days - 1)
    table = returns_of(plan, found)
    shared = int(one.days[-1])
    row = int(np.searchsorted(table.days, shared))
    assert table.table[row, 0] == pytest.approx(one.returns[-1] + other.returns[0])


def test_without_windows_there_is_no_walk_forward_and_without_days_no_winner() -> None:
    plan = planned(3, windows=None)
    judged = judge(plan, outcomes(plan, [0.0] * 3), 3, 1)
    assert judged.walked is None and judged.winner is not None and judged.shuffled is not None
    nothing = {key: Outcome(key, "", one.figures) for key, one in outcomes(plan, [0.0] * 3).items()}
    assert judge(plan, nothing, 3, 1).winner is None
    assert judge(plan, {}, 3, 1).winner is None
