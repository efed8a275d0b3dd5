"""The volatility state: nearly as good as a filter that knows the truth, scale-free, causal, and lasting."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from regime.signal import VolatilityState
from regime.transitions import ChangePoint, Lasting
from regime.volatility_states import TRANSITION_BARS, VolatilityStates

CALM, TURBULENT = 0.01, 0.025
LEAVE_CALM, LEAVE_TURBULENT = 1 / 400, 1 / 100


def filtered() -> VolatilityStates:
    return VolatilityStates(memory_bars=2000, band=0.35, least_bars=2)


def market(seed: int, bars: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian returns of two states, and which of them is turbulent."""
    rng = np.random.default_rng(seed)
    turbulent = np.zeros(bars, dtype=bool)
    for bar in range(1, bars):
        leaves = rng.random() < (LEAVE_TURBULENT if turbulent[bar - 1] else LEAVE_CALM)
        turbulent[bar] = turbulent[bar - 1] ^ leaves
    return np.where(turbulent, TURBULENT, CALM) * rng.normal(size=bars), turbulent


def highs(states: VolatilityStates, returns: np.ndarray) -> np.ndarray:
    return np.array([states.update(value) is VolatilityState.HIGH for value in returns.tolist()])


def knowing_filter(returns: np.ndarray) -> np.ndarray:
    """The probability of turbulence by Hamilton's filter with the true parameters."""
    high = LEAVE_CALM / (LEAVE_CALM + LEAVE_TURBULENT)
    found = np.empty(len(returns))
    for bar, value in enumerate(returns):
        high = high * (1 - LEAVE_TURBULENT) + (1 - high) * LEAVE_CALM
        turbulent, calm = high * norm.pdf(value, scale=TURBULENT), (1 - high) * norm.pdf(value, scale=CALM)
        found[bar] = high = turbulent / (turbulent + calm)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_two_states_are_told_apart_and_last(seed: int) -> None:
    returns, turbulent = market(seed)
    found = highs(filtered(), returns)[500:]
    truth = turbulent[500:]
    recall = [(found == truth)[truth == state].mean() for state in (True, False)]
    assert np.mean(recall) > 0.93
    assert (found[1:] != found[:-1]).mean() < 0.015


def test_the_probability_is_close_to_that_of_a_filter_that_knows_the_parameters() -> None:
    returns, _ = market(11)
    states = filtered()
    found = np.empty(len(returns))
    for bar, value in enumerate(returns.tolist()):
        states.update(value)
        found[bar] = states.probability_high
    assert np.abs(found - knowing_filter(returns))[500:].mean() < 0.03


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-6, 1e6))
def test_the_scale_of_prices_does_not_matter(scale: float) -> None:
    returns, _ = market(0, 400)
    # A power of two, so that rounding decides nothing.
    factor = 2.0 ** round(np.log2(scale))
    assert (highs(filtered(), returns) == highs(filtered(), factor * returns)).all()


def test_a_market_that_moves_tenfold_for_good_is_followed() -> None:
    returns, turbulent = market(3, 5000)
    found = highs(filtered(), np.concatenate([market(4, 1000)[0], 10.0 * returns]))[2500:]
    truth = turbulent[1500:]
    assert np.mean([(found == truth)[truth == state].mean() for state in (True, False)]) > 0.9


def test_one_cloud_of_returns_is_hardly_split() -> None:
    shares = [highs(filtered(), np.random.default_rng(seed).normal(size=3000))[1000:].mean() for seed in range(4)]
    assert max(shares) < 0.1


def test_a_price_that_stands_still_teaches_nothing_false() -> None:
    returns, turbulent = market(5, 3000)
    stood = np.concatenate([returns[:1500], np.zeros(800), returns[1500:]])
    found = highs(filtered(), stood)[2300:]
    truth = turbulent[1500:]
    assert np.mean([(found == truth)[truth == state].mean() for state in (True, False)]) > 0.9


def test_after_missing_bars_the_state_is_open_and_what_states_are_like_is_not() -> None:
    returns, _ = market(6, 2000)
    states = filtered()
    highs(states, np.concatenate([returns, np.full(10, 4 * TURBULENT)]))
    assert states.state is VolatilityState.HIGH
    assert states.probability_high > 0.99
    states.restart()
    assert states.probability_high < 0.7
    assert states.state is VolatilityState.HIGH  # until a return speaks against it
    highs(states, np.full(8, 0.3 * CALM))
    assert states.state is VolatilityState.LOW


def test_a_copy_goes_on_as_the_original_does() -> None:
    returns, _ = market(7, 700)
    states = filtered()
    highs(states, returns[:333])
    copied = copy.deepcopy(states)
    first = highs(states, returns[333:])
    assert (highs(copied, returns[333:]) == first).all()
    assert copied.transition_probability == states.transition_probability


any_return = st.one_of(st.just(0.0), st.floats(-0.5, 0.5), st.floats(-1e300, 1e300), st.floats(-1e-300, 1e-300))


@settings(deadline=None, max_examples=60)
@given(st.lists(any_return, max_size=150), st.integers(1, 5))
def test_whatever_comes_probabilities_are_some_and_no_state_ends_before_it_has_lasted(
    returns: list[float], least_bars: int
) -> None:
    states = VolatilityStates(200, 0.35, least_bars)
    found = []
    for value in returns:
        found.append(states.update(value))
        assert 0.0 <= states.probability_high <= 1.0
        assert 0.0 < states.transition_probability < 1.0
    changes = [bar for bar in range(1, len(found)) if found[bar] is not found[bar - 1]]
    assert all(later - earlier >= least_bars for earlier, later in itertools.pairwise(changes))


def test_in_turbulence_a_transition_is_nearer() -> None:
    states = filtered()
    highs(states, market(8, 3000)[0])
    highs(states, np.full(30, 0.5 * CALM))
    calm = states.transition_probability
    highs(states, np.tile([2 * TURBULENT, -2 * TURBULENT], 15))
    assert calm < 0.12 < states.transition_probability
    assert states.transition_probability == pytest.approx(1 - (1 - LEAVE_TURBULENT) ** TRANSITION_BARS, abs=0.12)


def test_a_state_changes_only_after_it_has_lasted() -> None:
    state = Lasting("calm", least_bars=3)
    assert state.propose("wild")  # the first one has lasted for ever
    assert [state.propose("calm") for _ in range(3)] == [False, False, True]
    assert (state.value, state.bars, state.changes) == ("calm", 0, 2)


def test_a_change_is_dated_to_when_the_evidence_began() -> None:
    found = ChangePoint()
    for evidence in (-1.0, 0.3, -1.0, -0.2, 0.5, 0.1, 2.0):
        found.observe(evidence)
    found.named()
    assert found.delay_bars == 2


def test_a_change_noticed_at_once_has_no_delay() -> None:
    found = ChangePoint()
    for evidence in (-1.0, 5.0):
        found.observe(evidence)
    found.named()
    assert found.delay_bars == 0
