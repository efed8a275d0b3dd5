"""The ensemble: what is dropped and counted, what learners hear, what the weights are taught."""

from __future__ import annotations

import dataclasses
import math
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.signal import Level
from regime.window import BarInput
from sage.ensemble import Absence, Ensemble, EnsembleSettings, combined
from sage.models.alpha import AlphaView, Outcome
from sage.votes import drop_notes, ensemble_figures, slow_votes, telemetry, weights_table
from sage.weights import WeightsConfig
from tests.sage.models.views import SETTINGS, market, polled
from tests.sage.test_sizing import signal


class Fixed:
    """Says what it is told to, over and over."""

    min_bars = 1
    needs_model = False

    def __init__(self, name: str, *said: object) -> None:
        self.name = name
        self._said = cycle(said)

    def vote(self, view: AlphaView) -> float:
        said = next(self._said)
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[return-value]


class Attentive(Fixed):
    """Keeps what it hears."""

    def __init__(self, name: str, *said: object) -> None:
        super().__init__(name, *said)
        self.heard: list[Outcome] = []

    def learn(self, outcome: Outcome) -> None:
        self.heard.append(outcome)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (math.nan, Absence.NOT_A_NUMBER),
        (1.0001, Absence.OUT_OF_BOUNDS),
        (-math.inf, Absence.OUT_OF_BOUNDS),
        (RuntimeError("no luck"), Absence.RAISED),
        ("much", Absence.RAISED),
        (None, Absence.RAISED),
    ],
)
def test_a_vote_that_is_none_is_dropped_and_counted_and_the_others_make_up_the_sum(said: object, why: Absence) -> None:
    ensemble = polled([Fixed("good", 0.5), Fixed("bad", 0.1, said), Fixed("other", -0.5)], market(40))
    for poll in ensemble.polls[1::2]:
        assert poll.absent == (None, why, None)
        assert math.isnan(poll.votes[1]) and poll.weights[1] == 0.0
        assert sum(poll.weights) == pytest.approx(1.0)
        assert min(poll.weights[0], poll.weights[2]) >= 0.05
    assert all(poll.weights[1] >= 0.05 for poll in ensemble.polls[::2])
    assert ensemble.faults["bad"] == {why: 20}
    assert not ensemble.faults["good"]
    [note] = drop_notes(ensemble)
    assert "bad" in note and f"{why} 20 times" in note


def test_an_alpha_whose_learning_raises_goes_on_voting() -> None:
    class Clumsy(Attentive):
        def learn(self, outcome: Outcome) -> None:
            raise KeyError("lost")

    ensemble = polled([Clumsy("clumsy", 0.2), Fixed("good", 0.5)], market(40))
    assert all(poll.absent[0] is None for poll in ensemble.polls)
    assert ensemble.faults["clumsy"] == {"learning raised": 24}
    assert "KeyError" in ensemble.first_errors["clumsy"]


def test_without_the_model_those_that_need_it_have_no_weight_for_that_bar() -> None:
    class Leaning(Fixed):
        needs_model = True

    ensemble = Ensemble([Leaning("leaning", 0.9), Fixed("good", 0.5)], SETTINGS, lambda: 0.0)
    for level, weights in ((Level.BASIC, None), (Level.SMART, (0.0, 1.0)), (Level.FULL, None)):
        poll = ensemble.step(BarInput(1, 1.0, 1.0, 1.0, 1.0, 1.0), signal(level))
        if weights is not None:
            assert poll.weights == weights
            assert poll.absent[0] is Absence.NO_MODEL
            assert poll.conviction == 0.5
        else:
            assert min(poll.weights) >= 0.05
    assert not ensemble.faults["leaning"]


def test_where_nobody_votes_there_is_no_conviction() -> None:
    ensemble = polled([Fixed("bad", math.nan)], market(3))
    assert all(math.isnan(poll.conviction) and poll.disagreement == 1.0 for poll in ensemble.polls)
    assert ensemble_figures(ensemble)["disagreement"] is None  # type: ignore[index]


def test_a_late_vote_is_dropped_where_there_is_a_limit_and_a_replay_drops_the_same() -> None:
    watch = iter(np.cumsum(np.tile([0.0, 0.001, 0.0, 0.02, 0.0, 0.001, 0.0, 0.003], 10)).tolist())
    limited = dataclasses.replace(SETTINGS, vote_limit_s=0.01)

    def run(settings: EnsembleSettings) -> Ensemble:
        ensemble = Ensemble([Fixed("quick", 0.5), Fixed("slow", -0.5)], settings, lambda: next(watch))
        for number in range(20):
            ensemble.step(BarInput(number, 1.0, 1.0, 1.0, 1.0, 1.0), dataclasses.replace(signal(), ts_event=number))
        return ensemble

    first = run(limited)
    assert [poll.absent[1] for poll in first.polls] == [Absence.SLOW, None] * 10
    late = slow_votes(weights_table(first))
    assert late == {(number, "slow") for number in range(0, 20, 2)}
    watch = cycle([0.0, 5.0])  # type: ignore[assignment]
    again = run(dataclasses.replace(limited, slow_votes=late))
    assert repr(again.polls) == repr(first.polls)
    watch = cycle([0.0, 5.0])  # type: ignore[assignment]
    assert not run(SETTINGS).faults["slow"]


def test_learners_hear_of_each_vote_once_its_horizon_is_over_and_of_nothing_sooner() -> None:
    bars = market(60)
    learner = Attentive("learner", 0.1, 0.2, math.nan)
    ensemble = polled([learner], bars)
    assert len(learner.heard) == 60 - SETTINGS.horizon_bars
    for number, outcome in enumerate(learner.heard):
        assert outcome.ts_ns == bars.ts_close_ns[number]
        assert outcome.vote == pytest.approx(ensemble.polls[number].votes[0], nan_ok=True)
        assert outcome.log_return == pytest.approx(math.log(bars.close[number + 16] / bars.close[number]))


def test_weights_go_to_the_alpha_whose_votes_were_paid_after_their_fill_and_their_costs() -> None:
    """The return of bar t pays the vote of bar t - 2: given at one close, filled at the next."""
    bars = market(800)
    change = np.concatenate([np.diff(np.log(bars.close)), [0.0, 0.0]])
    paid, soon = np.sign(change[1:801]), np.sign(change[:800])
    settings = dataclasses.replace(SETTINGS, trade_rate=lambda ts_ns: 0.0, weights=WeightsConfig(memory_bars=300))
    ensemble = polled([Fixed("paid", *paid.tolist()), Fixed("soon", *soon.tolist())], bars, settings)
    assert ensemble.polls[-1].weights[0] == pytest.approx(0.95, abs=0.01)
    at_once = dataclasses.replace(settings, fill_bars=0)
    ensemble = polled([Fixed("paid", *paid.tolist()), Fixed("soon", *soon.tolist())], bars, at_once)
    assert ensemble.polls[-1].weights[1] == pytest.approx(0.95, abs=0.01)
    # The same calls, one of them turning over all the time for nothing: its costs decide.
    costly = dataclasses.replace(settings, trade_rate=lambda ts_ns: 2e-3)
    ensemble = polled([Fixed("steady", 0.2), Fixed("busy", 1.0, -0.6)], bars, costly)
    assert ensemble.polls[-1].weights[0] > 0.8


def test_disagreement_is_the_weighted_spread_of_the_votes() -> None:
    weights = np.array([0.5, 0.5, 0.0])
    assert combined(np.array([1.0, -1.0, math.nan]), weights) == (0.0, 1.0)
    assert combined(np.array([0.3, 0.3, math.nan]), weights) == (pytest.approx(0.3), pytest.approx(0.0))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 1)), min_size=1, max_size=8))
def test_what_all_say_stays_within_what_each_says(said: list[tuple[float, float]]) -> None:
    votes, shares = (np.array(column) for column in zip(*said, strict=True))
    conviction, disagreement = combined(votes, shares / shares.sum())
    assert votes.min() - 1e-9 <= conviction <= votes.max() + 1e-9
    assert 0.0 <= disagreement <= np.ptp(votes) / 2 + 1e-9


def test_views_cannot_be_written_to() -> None:
    class Vandal(Fixed):
        def vote(self, view: AlphaView) -> float:
            view.closes[:] = 0.0
            return 0.0

    ensemble = polled([Vandal("vandal")], market(3))
    assert ensemble.faults["vandal"] == {Absence.RAISED: 3}


def test_names_are_unique_and_the_protocol_is_asked_for() -> None:
    with pytest.raises(ValueError, match="the same name: a, a"):
        polled([Fixed("a", 0.0), Fixed("a", 0.0)], market(2))
    with pytest.raises(ValueError, match="has no `name`"):
        polled([object()], market(2))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="one alpha at least"):
        polled([], market(2))


def test_the_record_of_a_run_is_a_table_with_figures_and_telemetry() -> None:
    ensemble = polled([Fixed("a", 0.5), Fixed("b", math.nan, -0.5)], market(50))
    frame = weights_table(ensemble)
    assert list(frame.columns) == [
        "ts_ns", "regime", "conviction", "disagreement", "vote_a", "weight_a", "absent_a", "vote_b",
        "weight_b", "absent_b",
    ]  # fmt: skip
    assert len(frame) == 50
    figures = ensemble_figures(ensemble)
    assert figures is not None
    assert figures["alphas"]["b"]["absent"] == {"not a number": 25}
    assert figures["alphas"]["b"]["votes"] == 25
    assert figures["alphas"]["a"]["mean_weight"] == pytest.approx(frame["weight_a"].mean())
    measured = telemetry(ensemble)
    assert measured["a"]["votes"] == 50
    assert measured["a"]["hdr_histogram_us"]
    assert weights_table(None).empty and telemetry(None) == {} and ensemble_figures(None) is None
