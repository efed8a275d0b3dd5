"""Positions moved in time keep what they are, and lose what they know."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sage.sweep.shuffled import SHIFTS, Moments, shuffled_moments

HOUR_NS = 3_600 * 10**9


def equity(bars: int, knows: bool, seed: int = 1) -> pd.DataFrame:
    """A market, and exposures that know the next bar or know nothing."""
    rng = np.random.default_rng(seed)
    returns = 0.01 * rng.standard_normal(bars)
    close = 100.0 * np.cumprod(1.0 + returns)
    exposure = np.sign(np.roll(returns, -1)) if knows else np.sign(rng.standard_normal(bars))
    return pd.DataFrame({"ts_ns": (1 + np.arange(bars)) * HOUR_NS, "close": close, "exposure": exposure})


def no_cost(_: int) -> float:
    return 0.0


def test_what_knows_the_next_bar_is_far_above_all_that_is_moved() -> None:
    found = shuffled_moments(equity(2_400, knows=True), no_cost, opens_on_sunday=False).sharpes()
    assert len(found) == 1 + SHIFTS and found[0] > 3.0 * np.abs(found[1:]).max()


def test_what_knows_nothing_is_one_among_many() -> None:
    ranks = []
    for seed in range(40):
        found = shuffled_moments(equity(1_200, knows=False, seed=seed), no_cost, opens_on_sunday=False).sharpes()
        ranks.append(float(np.mean(found[1:] >= found[0])))
    assert 0.35 < np.mean(ranks) < 0.65


def test_costs_are_taken_off_at_true_and_moved_times_alike() -> None:
    free, dear = (
        shuffled_moments(equity(1_200, knows=False), rate, opens_on_sunday=False).sums
        for rate in (no_cost, lambda _: 0.001)
    )
    paid = free[:, 1] - dear[:, 1]
    assert (paid > 0).all() and paid == pytest.approx(np.full(1 + SHIFTS, paid[0]), rel=0.01)


def test_two_windows_add_up_to_their_days_together() -> None:
    one, other = (
        shuffled_moments(equity(720, knows=False, seed=seed), no_cost, opens_on_sunday=False) for seed in (1, 2)
    )
    both: Moments = one + other
    assert both.sums[:, 0].tolist() == [60.0] * (1 + SHIFTS)
    assert both.sums[0, 1] == pytest.approx(one.sums[0, 1] + other.sums[0, 1])


def test_a_window_too_short_for_a_return_has_none() -> None:
    assert not shuffled_moments(equity(2, knows=False), no_cost, opens_on_sunday=False).sharpes().any()
