"""Weights keep their promises: the regret theorem before the floor, and what the floor asks after it."""

from __future__ import annotations

import math
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sage.weights import GAIN_LIMIT, RISK_AVERSION, AdaHedge, ExpertWeights, WeightsConfig, losses_of

FloatArray = NDArray[np.float64]

FINITE = st.floats(-1e3, 1e3, width=32)
STREAMS = st.integers(2, 6).flatmap(lambda experts: arrays(np.float64, st.tuples(st.integers(1, 80), st.just(experts)),
                                                           elements=FINITE))  # fmt: skip
UNIT_STREAMS = st.integers(2, 5).flatmap(
    lambda experts: arrays(
        np.float64, st.tuples(st.integers(1, 60), st.just(experts)), elements=st.sampled_from([0, 1])
    )
)
DECAYS = st.sampled_from([1.0, 0.999, 0.97, 0.8, 0.3])
CAUTIONS = st.sampled_from([1.0, 2.0, 5.0])


def regret_and_bound(stream: FloatArray, decay: float, caution: float) -> tuple[float, float]:
    """Regret and bound of a stream of losses, both worked out here from the weights alone."""
    rounds, experts = stream.shape
    hedge = AdaHedge(experts, decay, caution)
    age = decay ** np.arange(rounds)[::-1]
    played = []
    for losses in stream:
        played.append(hedge.weights())
        assert played[-1].sum() == pytest.approx(1.0) and played[-1].min() >= 0.0
        hedge.update(losses)
    weights = np.array(played)
    lost = (weights * stream).sum(axis=1)
    variance = (weights * (stream - lost[:, None]) ** 2).sum(axis=1)
    c = math.log(experts) / caution
    widest = float((age * np.ptp(stream, axis=1)).max())
    bound = (1 + math.log(experts) / c) * (math.sqrt(c * float(age**2 @ variance)) + (2 / 3 * c + 1) * widest)
    regret = float((age[:, None] * (lost[:, None] - stream)).sum(axis=0).max())
    assert hedge.regret == pytest.approx(regret, rel=1e-6, abs=1e-6)
    assert hedge.bound == pytest.approx(bound, rel=1e-6, abs=1e-6)
    return regret, bound


@given(STREAMS, DECAYS, CAUTIONS)
def test_regret_stays_under_its_bound_whatever_the_losses(stream: FloatArray, decay: float, caution: float) -> None:
    regret, bound = regret_and_bound(stream, decay, caution)
    assert regret <= bound * (1 + 1e-9) + 1e-6


@given(UNIT_STREAMS, DECAYS)
def test_regret_stays_under_its_bound_where_losses_are_all_or_nothing(stream: FloatArray, decay: float) -> None:
    regret, bound = regret_and_bound(stream, decay, 1.0)
    assert regret <= bound * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("decay", [1.0, 0.99])
def test_regret_against_an_adversary_who_punishes_the_heaviest_is_bounded_too_and_not_trivially(decay: float) -> None:
    hedge, worst = AdaHedge(4, decay), 0.0
    for _ in range(2000):
        hedge.update(np.eye(4)[hedge.weights().argmax()])
        worst = max(worst, hedge.regret / hedge.bound)
    assert 0.05 < worst <= 1.0


def test_the_floor_breaks_the_bound_and_its_cost_is_told() -> None:
    weights = ExpertWeights(4, WeightsConfig(floor=0.2, memory_bars=100_000, by_volatility=False))
    awake = np.ones(4, dtype=bool)
    for _ in range(4000):
        weights.learn("LOW", np.array([2.0, -2.0, -2.0, -2.0]), awake)
    [report] = weights.report()
    assert report.regret <= report.bound
    extra = report.floored_lost - report.hedge_lost
    assert extra > report.bound
    # AdaHedge is all but as good as the best: the floor costs what it is said to.
    assert report.floor_cost == pytest.approx(extra, rel=0.05)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["LOW", "HIGH"]),
            arrays(np.float64, 5, elements=st.floats(-50, 50)),
            arrays(np.bool_, 5),
            arrays(np.bool_, 5),
        ),
        max_size=40,
    ),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.booleans(),
)
def test_those_available_have_the_floor_and_sum_to_one_the_others_have_nothing(
    stream: list[tuple[str, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]], floor: float, by_volatility: bool
) -> None:
    config = WeightsConfig(floor=floor, by_volatility=by_volatility)
    subject, again = ExpertWeights(5, config), ExpertWeights(5, config)
    for regime, gains, awake, available in stream:
        subject.learn(regime, gains, awake)
        # What an alpha that was asleep would have gained is nobody's business.
        again.learn(regime, np.where(awake, gains, np.nan), awake)
        weights = subject.weights(regime, available)
        assert (weights == again.weights(regime, available)).all()
        assert (weights[~available] == 0.0).all()
        if available.any():
            assert weights.sum() == pytest.approx(1.0)
            assert weights[available].min() >= floor - 1e-12
        else:
            assert not weights.any()


def test_equal_weights_are_equal_among_those_available() -> None:
    subject = ExpertWeights(4, WeightsConfig(kind="equal"))
    subject.learn("LOW", np.array([4.0, -4.0, 0.0, 0.0]), np.ones(4, dtype=bool))
    assert subject.weights("LOW", np.array([True, True, False, True])) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_weights_move_to_what_works_and_on_when_that_changes() -> None:
    subject, awake = ExpertWeights(3, WeightsConfig(memory_bars=200)), np.ones(3, dtype=bool)
    rng = np.random.default_rng(5)
    for good in (0, 2):
        for _ in range(1000):
            subject.learn("LOW", rng.normal(0.0, 1.0, 3) + np.where(np.arange(3) == good, 0.3, -0.1), awake)
        assert int(subject.weights("LOW", awake).argmax()) == good
        assert subject.weights("LOW", awake)[good] > 0.5


def test_each_volatility_state_has_a_record_of_its_own() -> None:
    subject, awake = ExpertWeights(2, WeightsConfig()), np.ones(2, dtype=bool)
    for _ in range(300):
        subject.learn("LOW", np.array([1.0, -1.0]), awake)
        subject.learn("HIGH", np.array([-1.0, 1.0]), awake)
    assert subject.weights("LOW", awake)[0] > 0.9
    assert subject.weights("HIGH", awake)[1] > 0.9
    together = ExpertWeights(2, WeightsConfig(by_volatility=False))
    together.learn("LOW", np.array([1.0, -1.0]), awake)
    assert (together.weights("LOW", awake) == together.weights("HIGH", awake)).all()


def test_an_alpha_that_slept_keeps_its_share_of_what_the_others_left() -> None:
    subject = ExpertWeights(3, WeightsConfig(floor=0.0))
    rng = np.random.default_rng(1)
    for _ in range(200):
        subject.learn("LOW", rng.normal(0.0, 1.0, 3), np.ones(3, dtype=bool))
    before = subject.weights("LOW", np.ones(3, dtype=bool))
    subject.learn("LOW", np.array([0.5, 0.5, 99.0]), np.array([True, True, False]))
    after = subject.weights("LOW", np.ones(3, dtype=bool))
    assert after == pytest.approx(before, abs=1e-3)


def test_threads_teach_and_ask_at_once_and_nothing_is_lost() -> None:
    subject, awake = ExpertWeights(4), np.ones(4, dtype=bool)
    problems: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            subject.learn("LOW", rng.normal(0.0, 1.0, 4), awake)
            weights = subject.weights("LOW", awake)
            if abs(weights.sum() - 1.0) > 1e-9 or weights.min() < 0.05 - 1e-9:
                problems.append(str(weights))

    threads = [Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    [report] = subject.report()
    assert report.rounds == 1800
    assert report.regret <= report.bound


def test_what_is_not_finite_is_refused_and_changes_nothing() -> None:
    subject, awake = ExpertWeights(2), np.ones(2, dtype=bool)
    subject.learn("LOW", np.array([1.0, 0.0]), awake)
    before = subject.weights("LOW", awake)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            subject.learn("LOW", np.array([bad, 0.0]), awake)
    assert (subject.weights("LOW", awake) == before).all()


def test_a_floor_for_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="more than there is"):
        ExpertWeights(21, WeightsConfig(floor=0.05))
    assert ExpertWeights(20, WeightsConfig(floor=0.05)).weights("LOW", np.ones(20, dtype=bool)).min() > 0.0499


@given(arrays(np.float64, 4, elements=st.floats(-1e6, 1e6)), arrays(np.float64, 4, elements=st.floats(0.01, 1)))
def test_losses_lie_in_the_unit_interval(gains: FloatArray, shares: FloatArray) -> None:
    losses = losses_of(gains, shares / shares.sum())
    assert ((losses >= 0.0) & (losses <= 1.0)).all()


def test_regret_in_the_losses_bounds_regret_in_the_utility_beside_every_mixture() -> None:
    rng = np.random.default_rng(3)
    scale = 2.0 * GAIN_LIMIT * (1.0 + RISK_AVERSION * GAIN_LIMIT)
    for _ in range(200):
        gains, weights, mixture = rng.uniform(-4, 4, 5), rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))

        def utility(shares: FloatArray, of: FloatArray = gains) -> float:
            portfolio = float(shares @ of)
            return portfolio - RISK_AVERSION / 2 * portfolio**2

        losses = losses_of(gains, weights)
        assert utility(mixture) - utility(weights) <= scale * float((weights - mixture) @ losses) + 1e-9
