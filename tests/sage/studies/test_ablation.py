"""The ablation: the same backtest with other alphas, and the ensemble beside equal weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import OptionError
from regime.signal import Level
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.ensemble import EnsembleConfig
from sage.progress import Silent
from sage.results import summary, tables
from sage.studies import ablation_report as report
from sage.studies.ablation import (
    ENSEMBLE,
    EQUAL,
    HOLD,
    Ablated,
    Ablation,
    AblationConfig,
    ablate,
    returns_by,
    variants_of,
)
from sage.studies.markets import SP500, StudyMarkets

HOUR_NS = 3_600 * 1_000_000_000
BARS = 500


def base() -> BacktestConfig:
    """Two cheap alphas on the indicators alone, which need no model."""
    config = BacktestConfig(ensemble=EnsembleConfig(alphas=("trend", "breakout")))
    return dataclasses.replace(config, regime=dataclasses.replace(config.regime, pinned_level=Level.SMART))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    markets = StudyMarkets(seeds=2, bars=BARS, sp500=True)
    return ablate(AblationConfig(markets, base(), tmp_path_factory.mktemp("kept")))


def test_every_market_is_run_with_every_variant_as_a_backtest_is(found: Ablation) -> None:
    assert [market.market for market in found.markets] == ["seed 7", "seed 8", SP500]
    for market in found.markets:
        assert list(market.cells) == ["trend", "breakout", EQUAL, ENSEMBLE, HOLD]
        assert market.bars == BARS
    config = base()
    data = dataclasses.replace(config.data, synthetic=dataclasses.replace(config.data.synthetic, bars=BARS))
    run = run_backtest(dataclasses.replace(variants_of(config)["breakout"], data=data, seed=8))
    figures = summary(run, tables(run))
    cell = found.markets[1].cells["breakout"]
    for name in ("determinism_hash", "total_return", "turnover_per_year", "max_drawdown"):
        assert cell[name] == figures[name]
    assert np.prod(1.0 + cell["returns"]) - 1.0 == pytest.approx(figures["total_return"])
    assert cell["mean_weights"].keys() == {"breakout"}


def test_variants_differ_in_alphas_and_weights_alone() -> None:
    config = base()
    variants = variants_of(config)
    assert variants["breakout"].ensemble.alphas == ("breakout",)
    assert variants[EQUAL].ensemble.weights.kind == "equal"
    assert variants[ENSEMBLE] == config
    for variant in variants.values():
        assert dataclasses.replace(variant, ensemble=config.ensemble) == config


def test_history_decides_and_simulated_markets_do_not(found: Ablation) -> None:
    groups = report.groups(found)
    assert [group.name for group in groups] == ["simulated markets", SP500]
    findings = report.findings(groups)
    assert findings[0].met is None
    assert findings[1].met is True


def spoilt(found: Ablation, drift: float) -> Ablation:
    """Two histories on which the ensemble earns so much more than equal weights, a day."""

    def changed(market: Ablated, name: str) -> Ablated:
        equal = market.cells[EQUAL]
        returns = equal["returns"] + drift + 1e-4 * np.sin(np.arange(len(equal["returns"])))
        cells = market.cells | {ENSEMBLE: market.cells[ENSEMBLE] | {"returns": returns}}
        return dataclasses.replace(market, market=name, cells=cells)

    history = found.markets[2]
    return dataclasses.replace(found, markets=[changed(history, "A"), changed(history, "B")])


@pytest.mark.parametrize(("drift", "met"), [(-0.002, False), (0.0, True), (0.002, True)])
def test_only_an_interval_wholly_below_zero_fails(found: Ablation, drift: float, met: bool) -> None:
    groups = report.groups(spoilt(found, drift))
    assert [group.name for group in groups] == ["A", "B", report.TOGETHER]
    findings = report.findings(groups)
    assert [finding.met for finding in findings] == [None, None, met, None]
    # The same history twice is that history.
    assert groups[2].judged.value == pytest.approx(groups[0].judged.value)
    if drift < 0:
        assert "wholly below 0 on A, B" in findings[3].text


def test_short_histories_are_looked_at_by_the_hour(found: Ablation) -> None:
    simulated, daily = found.markets[0], found.markets[2]
    assert not simulated.periods_are_days and simulated.periods_per_year == 365 * 24
    assert daily.periods_are_days and daily.periods_per_year == 252
    assert len(simulated.cells[EQUAL]["returns"]) == BARS
    both = dataclasses.replace(simulated, simulated=False)
    groups = report.groups(dataclasses.replace(found, markets=[both, daily]))
    # Hours of a day are put together before they are held beside days.
    assert f"{len(set((np.array(both.cells[EQUAL]['ts_ns']) - 1) // (24 * HOUR_NS))) + BARS:,} days" in groups[2].said


def test_returns_are_those_from_one_period_to_the_next() -> None:
    stamps = np.array([1, 2, 4, 9]) * HOUR_NS  # each closes the hour before it
    periods, returns = returns_by((stamps - 1) // (2 * HOUR_NS), np.array([110.0, 99.0, 99.0, 0.0]), 100.0)
    assert periods.tolist() == [0, 1, 4]
    assert returns == pytest.approx([-0.01, 0.0, -1.0])
    assert returns_by(np.arange(4), np.array([0.0, 5.0, 5.0, 5.0]), 100.0)[1].tolist() == [-1.0, 0.0, 0.0, 0.0]


def test_finished_runs_are_found_again(tmp_path: Path, found: Ablation) -> None:
    class Interrupting(Silent):
        def advance(self, steps: int, note: str = "") -> None:
            raise KeyboardInterrupt

    config = AblationConfig(StudyMarkets(seeds=1, bars=BARS), base(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ablate(config, Interrupting())
    again = ablate(config)
    assert again.reused == 1
    assert repr(again.markets[0].cells) == repr(found.markets[0].cells)
    assert ablate(config).reused == 4


def test_the_page_and_the_document_tell_all(found: Ablation) -> None:
    html = report.page(found)
    document = json.loads(json.dumps(report.as_document(found)))
    assert [group["name"] for group in document["groups"]] == ["simulated markets", SP500]
    assert {variant["name"] for variant in document["groups"][1]["variants"]} == {
        "trend",
        "breakout",
        EQUAL,
        ENSEMBLE,
        HOLD,
    }
    assert HOLD in html and "beside equal weights" in html


def test_what_makes_no_sense_is_refused() -> None:
    one = dataclasses.replace(base(), ensemble=EnsembleConfig(alphas=("trend",)))
    with pytest.raises(OptionError, match="two alphas at least"):
        ablate(AblationConfig(StudyMarkets(seeds=1, bars=BARS), one))
    for markets, said in (
        (StudyMarkets(seeds=0, bars=BARS), "nothing to run on"),
        (StudyMarkets(seeds=1, bars=10), "--bars must be 500"),
        (StudyMarkets(seeds=-1, bars=BARS), "--seeds"),
        (StudyMarkets(seeds=1, bars=BARS, bar="30m"), "--bar goes with --catalog"),
        (StudyMarkets(seeds=1, bars=BARS, instruments=("X.Y",)), "--instrument goes with --catalog"),
    ):
        with pytest.raises(OptionError, match=said):
            ablate(AblationConfig(markets, base()))
