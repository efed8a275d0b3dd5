"""The study of regimes: peers that are what they are called, nothing that looks ahead, and honest figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import OptionError
from sage.progress import Silent
from sage.studies.page import Finding
from sage.studies.regime_peers import em_sweep, fit_gaussian_hmm, fit_t_hmm, online_jump_model
from sage.studies.regimes import (
    CEILING,
    OURS,
    PEERS,
    CellResult,
    Followed,
    RegimeStudy,
    RegimeStudyConfig,
    Row,
    cells_of,
    evaluate,
    follow,
    judge_ours,
    simulate,
    transitions,
)
from sage.studies.regimes_report import as_document, page
from sage.studies.regimes_verdict import figures, findings, reliability
from sage.studies.two_state import Score, TwoStateMarket, TwoStateModel

MARKET = TwoStateMarket((0.007759, 0.0214), 5.0)


def returns_of(seed: int, bars: int) -> np.ndarray:
    return MARKET.simulate(np.random.default_rng(seed), bars)[0]


def test_our_em_finds_what_hmmlearn_finds() -> None:
    market = TwoStateMarket((0.007759, 0.0214), None)
    returns = np.stack([market.simulate(np.random.default_rng(seed), 1500)[0] for seed in (1, 4)])
    ours, theirs = fit_t_hmm(returns, np.random.default_rng(0), nu=None), fit_gaussian_hmm(returns)
    assert ours.scales == pytest.approx(theirs.scales, rel=0.03)
    assert em_sweep(returns, ours)[1] == pytest.approx(em_sweep(returns, theirs)[1], abs=0.2)


def test_em_with_tails_never_becomes_less_likely_and_finds_the_parameters() -> None:
    returns = returns_of(3, 3000)[None]
    model = TwoStateModel(np.zeros((1, 2)), np.array([[0.005, 0.03]]), np.array([[0.05, 0.05]]), 5.0)
    likelihoods = []
    for _ in range(15):
        model, likelihood = em_sweep(returns, model)
        likelihoods.append(float(likelihood[0]))
    # To rounding: the first bar's probabilities follow from the moves, and are not maximised for themselves.
    assert np.diff(likelihoods).min() > -1e-3
    fitted = fit_t_hmm(returns, np.random.default_rng(0))
    assert fitted.scales == pytest.approx(TwoStateModel.of(MARKET, 1).scales, rel=0.12)


def test_the_online_jump_model_does_not_look_ahead() -> None:
    returns = returns_of(4, 700)
    changed = returns.copy()
    changed[600:] *= 5.0
    assert (online_jump_model(returns, 400)[:600] == online_jump_model(changed, 400)[:600]).all()


def test_the_classifier_that_trades_does_not_look_ahead() -> None:
    returns = returns_of(5, 700)
    changed = returns.copy()
    changed[600:] *= 5.0
    whole, other = follow(returns), follow(changed)
    assert (whole.found[:600] == other.found[:600]).all()
    assert (whole.transition_probability[:600] == other.transition_probability[:600]).all()
    assert (whole.transition_probability[600:] != other.transition_probability[600:]).any()


def said(probability: np.ndarray, turbulent: np.ndarray) -> Row:
    followed = Followed(turbulent, probability, probability, [])
    return Row(0, "", {}, transitions(followed, turbulent, 0), int((turbulent[1:] != turbulent[:-1]).sum()), [])


def test_a_true_probability_is_reliable_and_a_false_one_is_not() -> None:
    market = TwoStateMarket((1.0, 2.0), None, (0.0, 0.0), (0.995, 0.98))
    true, false = [], []
    for seed in range(20):
        _, turbulent = market.simulate(np.random.default_rng(seed), 3000)
        probability = np.where(turbulent, 1 - 0.98**20, 1 - 0.995**20)
        true.append(said(probability, turbulent))
        false.append(said(probability[::-1].copy(), turbulent))
    told = reliability(true)
    assert told.transitions > 200
    assert told.calibration_error < 0.03 and told.skill > 0.02
    for _, probability, share, low, high, named in told.bins:
        assert low <= share <= high and share == named
        assert share == pytest.approx(probability, abs=0.05)
    assert reliability(false).skill < 0.0


def row(seed: int, ours: float, peer: float) -> Row:
    def scored(accuracy: float) -> Score:
        return Score(accuracy, 4, (3, 5), 0)

    scores = {OURS: scored(ours), CEILING: scored(0.95), **{name: scored(peer) for name in PEERS}}
    return Row(seed, "", scores, [[10.0, 1.0, 1.0, 1.0, 0.9]] * 11, 30, [4])


def verdict(ours: float, peer: float, series: int = 30) -> list[Finding]:
    noise = np.random.default_rng(0).normal(0.0, 0.005, (series, 2))
    rows = tuple(row(at, ours + first, peer + other) for at, (first, other) in enumerate(noise.tolist()))
    config = RegimeStudyConfig()
    market = cells_of(config)[0]
    return findings(RegimeStudy(config, (CellResult(market, rows),), rows, None, 0))  # type: ignore[arg-type]


def test_findings_follow_the_targets() -> None:
    assert [finding.met for finding in verdict(0.94, 0.93)][:3] == [True, True, True]
    assert [finding.met for finding in verdict(0.92, 0.91)][:3] == [False, True, True]
    behind = verdict(0.94, 0.945)
    assert [finding.met for finding in behind][:3] == [True, True, False]
    assert "online jump model" in behind[2].text


def test_few_series_decide_nothing() -> None:
    assert [finding.met for finding in verdict(0.5, 0.9, series=9)][:3] == [None] * 3


def test_a_study_is_kept_and_goes_on_with_more_seeds(tmp_path: Path) -> None:
    config = RegimeStudyConfig(seeds=2, lengths=(400,), turbulent_volatilities=(0.0214,), out=tmp_path)
    first = evaluate(config, Silent())
    again = evaluate(config, Silent())
    assert again.reused == 2 and again.cells == first.cells and again.mixed == first.mixed
    judged = [result for result in first.cells if figures(result)]
    assert judged, "no seed was judged: choose others"
    for result in judged:
        assert set(figures(result)) == {OURS, CEILING, f"{CEILING}, cut at 0.5", *PEERS}
    document = json.loads(json.dumps(as_document(first), allow_nan=False))
    assert len(document["cells"]) == 2
    told = page(first)
    assert told.count('<div id="chart') == 3 and "Reliability" in told


def test_series_with_one_state_in_a_half_are_left_out_and_counted() -> None:
    cell = cells_of(RegimeStudyConfig(lengths=(300,)))[0]
    rows = judge_ours(cell, range(1, 9))
    assert any(judged.excluded for judged in rows) and not all(judged.excluded for judged in rows)
    for judged in rows:
        _, turbulent = simulate(cell, judged.seed)
        halves = [part.any() and not part.all() for part in (turbulent[:300], turbulent[300:])]
        assert bool(judged.excluded) is not all(halves)
        assert bool(judged.scores) is all(halves)


@pytest.mark.parametrize("config", [RegimeStudyConfig(seeds=0), RegimeStudyConfig(lengths=(50,))])
def test_numbers_that_make_no_sense_are_refused(config: RegimeStudyConfig) -> None:
    with pytest.raises(OptionError):
        evaluate(config, Silent())
