"""Alphas of the user's own, beside SAGE's or in their place."""

from __future__ import annotations

import dataclasses

import pytest

from data.errors import OptionError
from regime.errors import UserCodeRaised
from regime.signal import Level
from sage.backtest import run_backtest
from sage.config import BacktestConfig, OwnConfig
from sage.lookahead import Verdict, check_lookahead
from sage.models.built_in import BUILT_IN
from sage.run import BacktestRun
from tests.conftest import short_config


def with_alphas(*names: str, bars: int = 200, built_in: tuple[str, ...] = ("trend",)) -> BacktestConfig:
    config = short_config(bars)
    return dataclasses.replace(
        config,
        regime=dataclasses.replace(config.regime, pinned_level=Level.SMART),
        ensemble=dataclasses.replace(config.ensemble, alphas=built_in),
        own=OwnConfig(alphas=tuple(f"tests.sage.own_alphas:{name}" for name in names)),
    )


def names_of(run: BacktestRun) -> tuple[str, ...]:
    assert run.ensemble is not None
    return run.ensemble.names


def test_an_alpha_votes_after_sages_own_and_changes_what_is_traded() -> None:
    run = run_backtest(with_alphas("LastMove", built_in=BUILT_IN))
    assert names_of(run) == (*BUILT_IN, "last move")
    polls = run.ensemble.polls  # type: ignore[union-attr]
    assert {poll.votes[-1] for poll in polls[1:]} == {-1.0, 1.0} and polls[-1].weights[-1] > 0.0
    assert polls != run_backtest(with_alphas(built_in=BUILT_IN)).ensemble.polls  # type: ignore[union-attr]
    assert list(run.own) == ["--alpha tests.sage.own_alphas:LastMove"]


def test_alphas_may_take_the_place_of_sages_own() -> None:
    assert names_of(run_backtest(with_alphas("LastMove", "TakesBars", built_in=()))) == ("last move", "takes bars")


def test_votes_that_raise_are_dropped_and_told() -> None:
    run = run_backtest(with_alphas("RaisesNowAndThen"))
    assert len(run.signals) == 200 and run.stopped is None
    assert any("my own mistake" in note and "raised 40 times" in note for note in run.notes), run.notes


@pytest.mark.parametrize("name", ["PeeksOneBar", "ScalesOnAll", "StampedAtOpen"])
def test_an_alpha_that_looks_ahead_is_caught(name: str) -> None:
    found = check_lookahead(run_backtest(with_alphas(name)), 3)
    assert found.finding is not None and found.finding.difference.table == "votes"


def test_an_honest_alpha_passes() -> None:
    assert check_lookahead(run_backtest(with_alphas("TakesBars")), 3).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_alphas("NoVote"), "NoVote is no alpha model: NoVote has no method `vote"),
        (with_alphas("LastMoves"), "has no class LastMoves; it has LastMove"),
        (with_alphas("LastMove", "LastMove"), "names one twice"),
        (dataclasses.replace(with_alphas(), own=OwnConfig(alphas=("nowhere_at_all:A",))), "--alpha .*no module"),
        (dataclasses.replace(with_alphas(), own=OwnConfig(strategy="tests.sage.own:Flips", alphas=("a:B",))), "no say"),
    ],
)
def test_what_is_no_alpha_is_refused(config: BacktestConfig, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run_backtest(config)


def test_a_constructor_that_raises_is_told_with_its_traceback() -> None:
    with pytest.raises(UserCodeRaised, match="the constructor raised ConnectionError: no such feed") as found:
        run_backtest(with_alphas("RaisesWhenBuilt"))
    assert "own_alphas.py" in found.value.trace
