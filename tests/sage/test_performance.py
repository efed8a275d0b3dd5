"""Sharpe with its interval, drawdown, and the same trades at other costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sage.performance import (
    at_multiple,
    block_days,
    break_even,
    daily_returns,
    max_drawdown,
    politis_white,
    resampled_rows,
    sharpe,
    sharpe_difference_interval,
    sharpe_interval,
    trading_days,
)

DAY_NS = 86_400 * 1_000_000_000
FloatArray = NDArray[np.float64]


def stamps(count: int, hours: int = 24) -> NDArray[np.int64]:
    return (np.arange(count) + 1) * hours * 3600 * 1_000_000_000 + 20_000 * DAY_NS


def autoregressive(weight: float, rows: int, seed: int) -> FloatArray:
    noise = np.random.default_rng(seed).standard_normal(rows + 100)
    values = np.zeros(rows + 100)
    for row in range(1, rows + 100):
        values[row] = weight * values[row - 1] + noise[row]
    return values[100:]


def test_sharpe_is_of_daily_equity() -> None:
    growth = np.array([1.01, 0.99, 1.02, 1.0, 1.005])
    returns = daily_returns(stamps(5), 500.0 * np.cumprod(growth), 500.0, opens_on_sunday=False)
    assert returns == pytest.approx(growth - 1.0)
    assert sharpe(returns, 365) == pytest.approx((growth - 1).mean() / growth.std(ddof=1) * math.sqrt(365))


def test_hours_within_a_day_do_not_change_it() -> None:
    daily = np.array([101_000.0, 100_500.0, 102_000.0])
    hourly = np.array([value for end in daily for value in [end * 0.9] * 23 + [end]])
    whole = daily_returns(stamps(3), daily, 1e5, opens_on_sunday=False)
    assert daily_returns(stamps(72, hours=1), hourly, 1e5, opens_on_sunday=False) == pytest.approx(whole)


def test_a_week_of_fx_has_five_days_and_one_of_coins_seven() -> None:
    sunday = np.datetime64("2024-01-07T22:00", "ns").astype(np.int64)
    hours = sunday + (1 + np.arange(2 * 7 * 24)) * 3_600 * 1_000_000_000
    open_hours = hours[(np.arange(len(hours)) % (7 * 24)) < 5 * 24]
    growth = 1.0 + 0.001 * np.arange(len(open_hours))
    assert len(daily_returns(open_hours, growth, 1.0, opens_on_sunday=True)) == 10
    assert len(daily_returns(hours, np.ones(len(hours)), 1.0, opens_on_sunday=False)) == 15
    named = trading_days(open_hours, opens_on_sunday=True).astype("datetime64[D]")
    assert np.isin(named.astype(str), ["2024-01-06", "2024-01-07", "2024-01-13", "2024-01-14"]).sum() == 0
    assert (np.diff(trading_days(open_hours, opens_on_sunday=True)) >= 0).all()


def test_equity_that_never_moves_has_no_sharpe() -> None:
    assert sharpe(daily_returns(stamps(5), np.full(5, 1e5), 1e5, opens_on_sunday=False), 365) is None
    assert sharpe_interval(np.zeros(100), 365, seed=1) is None


def test_returns_end_with_the_day_of_ruin() -> None:
    returns = daily_returns(stamps(5), np.array([100.0, 50.0, -20.0, 30.0, 60.0]), 100.0, opens_on_sunday=False)
    assert returns.tolist() == [0.0, -0.5, -1.0]


def test_drawdown_counts_from_the_cash() -> None:
    assert max_drawdown(np.array([50.0, 100.0, 80.0]), 200.0) == -0.75
    assert max_drawdown(np.array([]), 200.0) == 0.0


@pytest.mark.parametrize(("weight", "rows"), [(0.0, 500), (0.3, 2000), (0.7, 1000), (0.9, 3000), (-0.5, 800)])
def test_block_lengths_are_those_of_arch(weight: float, rows: int) -> None:
    for seed in range(4):
        values = autoregressive(weight, rows, seed)
        expected = float(optimal_block_length(values)["circular"].iloc[0])
        assert politis_white(values) == pytest.approx(expected, rel=0.02, abs=0.05)


def test_blocks_span_a_tenth_of_the_days_at_most() -> None:
    trending = np.cumsum(np.random.default_rng(3).standard_normal(200))
    assert block_days(trending) == 20
    assert block_days(np.zeros(50)) == 1


def test_samples_are_whole_blocks_that_close_the_circle() -> None:
    returns = autoregressive(0.9, 300, seed=5)
    block = block_days(returns)
    rows = np.concatenate(resampled_rows(returns, seed=2))
    assert rows.shape == (2_000, 300)
    steps = np.diff(rows, axis=1)
    inside = (np.arange(1, 300) % block) != 0
    assert set(np.unique(steps[:, inside])) <= {1, -299}


def test_the_interval_is_a_matter_of_the_seed() -> None:
    returns = autoregressive(0.1, 400, seed=8) / 100
    one, same, other = (sharpe_interval(returns, 252, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one is not None
    found = sharpe(returns, 252)
    assert found is not None
    assert one.low < found < one.high


def test_too_few_days_have_no_interval() -> None:
    assert sharpe_interval(autoregressive(0.0, 29, seed=8), 252, seed=1) is None
    assert sharpe_interval(autoregressive(0.0, 30, seed=8), 252, seed=1) is not None


def test_samples_that_hold_none_of_the_few_days_of_trading_count_as_nothing_earned() -> None:
    returns = np.zeros(57)
    returns[[20, 40]] = 0.02, 0.0005
    found = sharpe_interval(returns, 365, seed=1)
    assert found is not None and found.low == 0.0 < found.high
    difference = sharpe_difference_interval(returns, np.full(57, 0.001) * (np.arange(57) % 2), 365, seed=1)
    assert difference is not None and difference.low < 0.0


def test_intervals_cover_the_true_sharpe_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for market in range(100):
        found = sharpe_interval(0.05 + rng.standard_normal(250), 252, seed=market)
        assert found is not None
        held += found.low <= 0.05 * math.sqrt(252) <= found.high
    assert 88 <= held <= 100


def test_the_difference_of_one_series_to_itself_is_nothing_and_pairs_share_their_noise() -> None:
    noise = autoregressive(0.0, 600, seed=4)
    same = sharpe_difference_interval(noise, noise, 252, seed=1)
    assert same is not None
    assert (same.low, same.high) == (0.0, 0.0)
    better = sharpe_difference_interval(noise + 0.02, noise, 252, seed=1)
    alone = sharpe_interval(noise + 0.02, 252, seed=1)
    assert better is not None
    assert alone is not None
    assert better.low > 0
    assert better.high - better.low < (alone.high - alone.low) / 5


money = st.floats(-1e6, 1e6)


@given(
    arrays(np.float64, 20, elements=money),
    arrays(np.float64, 20, elements=st.floats(0, 1e4)),
    st.floats(0.0, 4.0),
)
def test_costs_scale_linearly_and_less_of_them_never_leaves_less(
    equity: FloatArray, paid: FloatArray, multiple: float
) -> None:
    costs = np.cumsum(paid)
    none, once, times = (at_multiple(equity, costs, factor) for factor in (0.0, 1.0, multiple))
    assert np.array_equal(once, equity)
    assert (none >= once).all()
    assert times == pytest.approx(none - multiple * costs, abs=1e-6)


@given(st.floats(1.0, 1e6), st.floats(0.0, 1e5), st.floats(1e3, 1e7), st.floats(1.0, 1e8))
def test_at_the_break_even_cost_the_total_return_is_nothing(
    final: float, costs: float, cash: float, traded: float
) -> None:
    even = break_even(final - cash, costs, traded, is_ruined=False)
    if final + costs < cash:
        assert even.bps is None
        assert "lose" in even.told
        return
    assert even.bps is not None
    assert final + costs - even.bps * 1e-4 * traded == pytest.approx(cash, rel=1e-9, abs=1e-6)
    charged = 1e4 * costs / traded
    assume(abs(final - cash) > 1e-6)
    # A trade bears more than it was charged just where something was earned.
    assert (even.bps > charged) == (final > cash)


def test_without_trades_there_is_no_break_even_cost() -> None:
    even = break_even(0.0, 0.0, 0.0, is_ruined=False)
    assert even.bps is None and "nothing was traded" in even.told


def test_losses_that_add_up_to_more_than_the_cash_are_no_ruin() -> None:
    # Ten windows, each begun with 100: none of them was ruined.
    even = break_even(-110.0, 120.0, 2_000.0, is_ruined=False)
    assert even.bps == pytest.approx(50.0)
    assert "ruined" in break_even(-110.0, 120.0, 2_000.0, is_ruined=True).told
