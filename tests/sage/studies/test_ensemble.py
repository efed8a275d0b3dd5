"""The study of the weights: it simulates what it says, and would notice weights that do not work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import OptionError
from sage.progress import Silent
from sage.studies import ensemble_report as report
from sage.studies.ensemble import OUTLOOK_BARS, EnsembleStudy, EnsembleStudyConfig, Kind, simulate, study, trade
from sage.weights import ExpertWeights, WeightsConfig

SMALL = EnsembleStudyConfig(markets=2, bars=600, alphas=3)


@pytest.fixture(scope="module")
def found() -> EnsembleStudy:
    return study(SMALL)


def test_each_kind_is_traded_on_the_same_markets_with_alphas_of_another_worth() -> None:
    config = dataclasses.replace(SMALL, bars=4_000, correlation=0.3)
    markets = {kind: simulate(config, kind, 1) for kind in Kind}
    first = markets[Kind.NOISE]
    for market in markets.values():
        assert np.array_equal(market.shocks, first.shocks)
        assert np.array_equal(market.state, first.state)
    assert not np.array_equal(simulate(config, Kind.NOISE, 2).shocks, first.shocks)
    assert 0.5 < (first.state == 0).mean() < 1.0

    def known(kind: Kind, rows: slice = slice(None)) -> list[float]:
        """Each alpha's correlation with the mean of the bars after its fill."""
        market = markets[kind]
        ahead = np.lib.stride_tricks.sliding_window_view(market.shocks, OUTLOOK_BARS).mean(axis=1)[2:]
        votes = market.votes[: len(ahead)]
        return [float(np.corrcoef(votes[rows, alpha], ahead[rows])[0, 1]) for alpha in range(3)]

    assert min(known(Kind.STEADY)) > 0.2
    assert max(np.abs(known(Kind.NOISE))) < 0.12
    parts = [known(Kind.ALTERNATING, slice(begin, begin + 300)) for begin in range(0, 3_900, 300)]
    assert (np.array(parts).max(axis=0) > 0.15).all() and (np.array(parts).min(axis=0) < -0.15).all()


def test_a_vote_knows_nothing_of_the_bar_in_which_it_is_filled_or_of_those_before() -> None:
    market = simulate(dataclasses.replace(SMALL, bars=20_000, correlation=0.5), Kind.STEADY, 0)
    for lag in (-1, 0, 1):
        shifted = np.roll(market.shocks, -lag)
        assert abs(np.corrcoef(market.votes[5:-5, 0], shifted[5:-5])[0, 1]) < 0.04
    assert np.corrcoef(market.votes[5:-5, 0], np.roll(market.shocks, -2)[5:-5])[0, 1] > 0.1


def test_weights_are_the_backtests_and_their_bound_holds(found: EnsembleStudy) -> None:
    assert {kind: len(results) for kind, results in found.results.items()} == dict.fromkeys(Kind, 2)
    for results in found.results.values():
        assert all(0.0 < result.regret_share <= 1.0 for result in results)
        assert all(1 / 3 <= result.heaviest <= 0.9 for result in results)
    again = trade(simulate(SMALL, Kind.NOISE, 1), SMALL.weights)
    assert again == found.results[Kind.NOISE][1]


def test_equal_weights_differ_in_nothing_from_themselves() -> None:
    result = trade(simulate(SMALL, Kind.ALTERNATING, 0), WeightsConfig(kind="equal"))
    assert result.ensemble == pytest.approx(result.equal)


def test_leaning_the_wrong_way_is_noticed(found: EnsembleStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = ExpertWeights.learn

    def backwards(self: ExpertWeights, regime: str, gains: np.ndarray, awake: np.ndarray) -> None:
        learn(self, regime, -gains, awake)

    config = dataclasses.replace(SMALL, bars=2_000, correlation=0.3, phase_bars=(400, 1_200))

    def met() -> bool | None:
        results = [trade(simulate(config, Kind.ALTERNATING, number), config.weights) for number in range(5)]
        return report.findings(EnsembleStudy(config, found.results | {Kind.ALTERNATING: results}))[0].met

    assert met() is True
    monkeypatch.setattr(ExpertWeights, "learn", backwards)
    assert met() is False


def test_finished_markets_are_found_again(tmp_path: Path, found: EnsembleStudy) -> None:
    class Interrupting(Silent):
        def advance(self, steps: int, note: str = "") -> None:
            if note.startswith(Kind.NOISE):
                raise KeyboardInterrupt

    kept = dataclasses.replace(SMALL, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        study(kept, Interrupting())
    again = study(kept)
    assert again.reused == 3
    assert again.results == found.results
    # More markets are more cells, not others.
    assert study(dataclasses.replace(kept, markets=3)).reused == 8


def test_the_page_and_the_document_tell_all(found: EnsembleStudy) -> None:
    html = report.page(found)
    document = json.loads(json.dumps(report.as_document(found)))
    for kind in Kind:
        assert str(kind) in html
        assert len(document["kinds"][kind]["markets"]) == 2
    assert [finding["met"] for finding in document["findings"]][2] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"markets": 1}, {"bars": 10}, {"alphas": 1}, {"alphas": 21}, {"correlation": 1.0}, {"phase_bars": (9, 9)},
        {"seed": -1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        study(dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]
