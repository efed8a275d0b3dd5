"""What is said of a sweep follows from its runs' days, and a planted edge is told from luck."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from data.synthetic import SyntheticConfig
from sage.config import BacktestConfig, DataConfig
from sage.sweep.axes import Axis
from sage.sweep.judged import judge, returns_of
from sage.sweep.ledger import DailyReturns
from sage.sweep.overfitting import probability_of_overfitting
from sage.sweep.plan import Plan, SweepConfig, Task, market_key, plan_of
from sage.sweep.runs import Outcome
from sage.sweep.shuffled import SHIFTS, Moments
from sage.sweep.windows import WindowConfig

BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=400)))
WINDOWS = WindowConfig(100, 30)
DAYS = 120

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
    (walked,) = judged.walks
    assert [one.trial for one in walked.windows] == [9] * (windows - 1)
    assert walked.sharpe is not None and walked.sharpe > 5.0
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


STOCK, COIN = 1, 2


def two_instruments(windows: WindowConfig | None = None) -> Plan:
    """A stock, which trades on 252 days of a year, and a coin: seeds of the simulated market under names."""
    plan = plan_of(SweepConfig(BASE, (Axis("seed", (STOCK, COIN)),), windows=windows))
    names = {STOCK: "STOCK.TEST", COIN: "COIN.TEST"}
    tasks, sha256 = [], {}
    for task in plan.tasks:
        named = dataclasses.replace(task.config.data, instrument=names[task.config.seed])
        other = dataclasses.replace(task, config=dataclasses.replace(task.config, data=named))
        days = 252 if task.config.seed == STOCK else 365
        plan.markets[market_key(other.config)] = dataclasses.replace(plan.market(task), trading_days_per_year=days)
        tasks.append(other)
        sha256[other.key] = plan.sha256[task.key]
    return dataclasses.replace(plan, tasks=tasks, sha256=sha256)


MOMENTS = Moments(np.tile([1_000.0, 1.0, 0.1], (1 + SHIFTS, 1)))


def outcome_of(task: Task, days: IntArray, returns: FloatArray) -> Outcome:
    return Outcome(task.key, "", {}, None, days, returns, MOMENTS)


def test_an_instrument_that_trades_on_fewer_days_is_annualised_by_its_own() -> None:
    plan = two_instruments()
    stock, coin = plan.tasks
    rng = np.random.default_rng(4)
    days = np.arange(20_000, 23_650)
    open_days = np.sort(rng.choice(days, 2_520, replace=False))
    found = {
        task.key: outcome_of(task, own, 0.0006 + 0.01 * rng.standard_normal(len(own)))
        for task, own in ((stock, open_days), (coin, days))
    }
    judged = judge(plan, found, 2, 1)
    own = found[stock.key].returns
    assert judged.days_per_year == 365 and judged.winner is not None
    assert judged.by_trial[stock.trial].sharpe == pytest.approx(own.mean() / own.std(ddof=1) * np.sqrt(252))
    # By one measure for all: the winner is the first of the table, too.
    assert max(judged.by_trial, key=lambda trial: judged.by_trial[trial].t_statistic or 0.0) == judged.winner.trial
    assert judged.shuffled is not None
    assert judged.shuffled.true[1] / judged.shuffled.true[0] == pytest.approx(np.sqrt(365 / 252))


def test_how_long_others_were_there_has_no_say_in_a_trial_s_own_figures() -> None:
    plan = two_instruments()
    stock, coin = plan.tasks
    rng = np.random.default_rng(5)
    ten_years = np.arange(18_000, 21_650)[np.arange(3_650) % 7 < 5]
    two_years = np.arange(20_920, 21_650)
    found = {
        stock.key: outcome_of(stock, ten_years, 0.0008 + 0.01 * rng.standard_normal(len(ten_years))),
        coin.key: outcome_of(coin, two_years, 0.0010 + 0.01 * rng.standard_normal(len(two_years))),
    }
    both = judge(plan, found, 2, 1)
    for task, year in ((stock, 252), (coin, 365)):
        own = found[task.key].returns
        expected = own.mean() / own.std(ddof=1) * np.sqrt(year)
        alone = judge(plan, {task.key: found[task.key]}, 2, 1)
        assert both.by_trial[task.trial].sharpe == pytest.approx(expected)
        assert alone.winner_sharpe == pytest.approx(expected) and alone.days_per_year == year
        assert both.by_trial[task.trial].total_return == pytest.approx(alone.by_trial[task.trial].total_return)
    assert both.winner is not None and both.winner_sharpe == both.by_trial[both.winner.trial].sharpe
    # As surely told apart from nought: what luck would have reached is on the scale of the winner's ratio.
    assert both.deflated is not None and both.luck_sharpe is not None and both.winner_sharpe is not None
    assert both.winner_sharpe / both.luck_sharpe == pytest.approx(
        both.deflated.sharpe / both.deflated.expected_sharpe, rel=0.02
    )


def test_overfitting_is_judged_on_the_days_of_all_trials() -> None:
    plan = two_instruments()
    stock, coin = plan.tasks
    rng = np.random.default_rng(7)
    early, late = np.arange(20_000, 20_200), np.arange(20_100, 20_300)
    found = {
        task.key: outcome_of(task, days, 0.01 * rng.standard_normal(200))
        for task, days in ((stock, early), (coin, late))
    }
    judged = judge(plan, found, 2, 1)
    assert (judged.days, judged.shared_days) == (300, 100)
    both = np.stack([found[stock.key].returns[100:], found[coin.key].returns[:100]], axis=1)
    expected = probability_of_overfitting(both)
    assert judged.overfitting is not None and expected is not None
    assert judged.overfitting.probability == expected.probability
    apart = found | {coin.key: outcome_of(coin, late + 500, found[coin.key].returns)}
    assert judge(plan, apart, 2, 1).overfitting is None


def test_windows_of_each_instrument_are_walked_alone() -> None:
    plan = two_instruments(WINDOWS)
    rng = np.random.default_rng(6)
    found = {}
    for task in plan.tasks:
        assert task.window is not None
        # Windows count bars: those of the stock last longer, and are other days.
        step = 90 if task.config.seed == STOCK else 60
        days = 20_000 + step * task.window.number + np.arange(60)
        found[task.key] = outcome_of(task, days, 0.01 * rng.standard_normal(60))
    stock, coin = judge(plan, found, 2, 1).walks
    assert (stock.instrument, coin.instrument) == ("STOCK.TEST", "COIN.TEST")
    for walked, seed, year in ((stock, STOCK, 252), (coin, COIN, 365)):
        later = [task for task in plan.tasks if task.config.seed == seed and task.window and task.window.number > 1]
        pooled = np.concatenate([found[task.key].returns for task in later])
        assert {one.trial for one in walked.windows} == {later[0].trial} and len(walked.windows) == len(later)
        assert walked.sharpe == pytest.approx(pooled.mean() / pooled.std(ddof=1) * np.sqrt(year))


def test_a_day_that_two_windows_share_is_one_day_of_the_walk() -> None:
    plan = planned(1)
    found = outcomes(plan, [0.1])
    for task in plan.tasks:
        assert task.window is not None
        one = found[task.key]
        found[task.key] = dataclasses.replace(one, days=one.days - task.window.number)
    judged = judge(plan, found, 1, 1)
    (walked,) = judged.walks
    first = found[plan.tasks[0].key]
    table = returns_of(plan, found)
    later = table.table[table.days >= first.days[-1], 0].copy()
    later[0] -= first.returns[-1]
    assert walked.sharpe == pytest.approx(later.mean() / later.std(ddof=1) * np.sqrt(365))


def test_trials_that_were_never_run_are_neither_failed_nor_counted() -> None:
    plan = planned(6, windows=None)
    every = outcomes(plan, [0.0] * 6)
    made = {task.key: every[task.key] for task in plan.tasks[:2]}
    judged = judge(plan, made, trials_ever=2, seed=1)
    assert (judged.trials, judged.trials_ever, judged.failed_trials, judged.unfinished_trials) == (6, 2, 0, 4)
    assert judged.deflated is not None and judged.deflated.trials == 2


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
    (before,) = judge(plan, found, 6, 1).walks
    last = max(task.window.number for task in plan.tasks if task.window is not None)
    for task in plan.tasks:
        if task.window is not None and task.window.number == last:
            one = found[task.key]
            found[task.key] = dataclasses.replace(one, returns=-7.0 * one.returns)
    (after,) = judge(plan, found, 6, 1).walks
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
    assert not judged.walks and judged.winner is not None and judged.shuffled is not None
    nothing = {key: Outcome(key, "", one.figures) for key, one in outcomes(plan, [0.0] * 3).items()}
    assert judge(plan, nothing, 3, 1).winner is None
    assert judge(plan, {}, 3, 1).winner is None
