"""The simulated market, the filter that knows it, and the scores are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from sage.studies.two_state import TwoStateMarket, TwoStateModel, changes_within, score


@pytest.mark.parametrize("nu", [None, 5.0])
def test_the_market_has_the_moments_and_stays_that_were_asked_for(nu: float | None) -> None:
    market = TwoStateMarket((0.007759, 0.0214), nu)
    returns, turbulent = market.simulate(np.random.default_rng(1), 400_000)
    assert turbulent.mean() == pytest.approx(market.turbulent_share, rel=0.1)
    for state, volatility in enumerate(market.volatilities):
        inside = turbulent == bool(state)
        assert returns[inside].std() == pytest.approx(volatility, rel=0.02)
        assert (turbulent[1:] != turbulent[:-1])[inside[:-1]].mean() == pytest.approx(market.leaves[state], rel=0.1)


def test_the_filter_that_knows_the_parameters_agrees_with_bayes_by_hand() -> None:
    market = TwoStateMarket((1.0, 2.0), None, (0.0, 0.0), (0.9, 0.8))
    found = TwoStateModel.of(market, 1).filtered(np.array([[0.0, 3.0]]))[0]
    first = (1 / 3 / 2) / (1 / 3 / 2 + 2 / 3)
    foretold = first * 0.8 + (1 - first) * 0.1
    odds = 0.5 * np.exp(-9 / 8) / np.exp(-9 / 2)
    assert found == pytest.approx([first, foretold * odds / (foretold * odds + 1 - foretold)])


def test_its_probabilities_are_true() -> None:
    market = TwoStateMarket((0.007759, 0.0174), 5.0)
    returns, turbulent = market.simulate(np.random.default_rng(2), 100_000)
    found = TwoStateModel.of(market, 1).filtered(returns[None])[0]
    for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 0.9), (0.9, 1.0)):
        inside = (found >= low) & (found < high)
        assert turbulent[inside].mean() == pytest.approx(found[inside].mean(), abs=0.04)


def test_a_score_counts_recalls_changes_and_delays() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    found = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    judged = score(found, truth)
    assert judged.balanced_accuracy == pytest.approx((5 / 6 + 1 / 4) / 2)
    assert judged.changes == 4
    assert judged.delays == (2, 0, 1, 0)  # the third change ended before it was noticed, after one bar
    assert judged.unnoticed == 1


def test_changes_ahead_are_those_of_the_next_bars_alone() -> None:
    turbulent = np.array([0, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert changes_within(turbulent, 2).tolist() == [False, True, True, False, False]
