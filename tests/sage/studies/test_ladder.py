"""The degradation ladder: each level pinned, and what it costs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from data.catalog import BarCatalog
from data.errors import OptionError
from data.market import synthetic_market
from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.backtest import run_backtest
from sage.config import BacktestConfig, OwnConfig
from sage.progress import Silent
from sage.results import summary, tables
from sage.studies import ladder_report as report
from sage.studies.ladder import Ladder, LadderConfig, Rungs, climb
from tests.conftest import short_config

BARS = 600


class Interrupting(Silent):
    """Is interrupted after the first run."""

    def advance(self, steps: int, note: str = "") -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    """A simulated market, and the newest bars of another that lies in a catalog."""
    place = tmp_path_factory.mktemp("ladder")
    held = synthetic_market(SyntheticConfig(bars=BARS + 100, seed=3))
    BarCatalog(place / "catalog", create=True).write(held.bars, held.instrument, held.size)
    return climb(LadderConfig(seeds=1, bars=BARS, catalog=place / "catalog", out=place / "kept"))


def test_every_market_is_run_at_every_level_as_a_backtest_is(climbed: Ladder) -> None:
    assert [(rungs.market, rungs.simulated) for rungs in climbed.markets] == [
        ("seed 7", True), ("SYNTHUSDT.SIM 1h", False),
    ]  # fmt: skip
    for rungs in climbed.markets:
        assert [cell["level"] for cell in rungs.cells] == list(range(6))
        assert {cell["bars"] for cell in rungs.cells} == {BARS}
    config = short_config(BARS)
    run = run_backtest(dataclasses.replace(config, regime=dataclasses.replace(config.regime, pinned_level=Level.SMART)))
    figures = summary(run, tables(run))
    cell = climbed.markets[0].cells[Level.SMART]
    for name in ("determinism_hash", "total_return", "sharpe", "costs_paid", "break_even_bps"):
        assert cell[name] == figures[name]
    assert cell["accuracy"] == figures["regime_accuracy"]


def test_the_newest_bars_of_an_instrument_count_whose_regimes_nobody_knows(climbed: Ladder) -> None:
    closes = synthetic_market(SyntheticConfig(bars=BARS + 100, seed=3)).bars.close
    cell = climbed.markets[1].cells[0]
    assert cell["accuracy"] is None
    assert cell["buy_and_hold"]["total_return"] == pytest.approx(closes[-1] / closes[-BARS] - 1.0, abs=0.002)


def test_what_must_be_so_is_so_and_a_level_that_misbehaves_is_told(climbed: Ladder) -> None:
    found = report.groups(climbed)
    assert [finding.met for finding in report.findings(climbed, found)][:3] == [True, True, True]
    assert climbed.markets[0].cells[Level.FULL]["fills"] > 0
    assert climbed.markets[0].cells[Level.EMERGENCY]["total_return"] == 0.0
    bad = [dict(cell) for cell in climbed.markets[0].cells]
    bad[Level.EMERGENCY]["fills"] = 1
    bad[Level.BASIC]["over_cap"] = 2
    bad[Level.SMART]["better"] = 3
    worse = dataclasses.replace(climbed, markets=[dataclasses.replace(climbed.markets[0], cells=bad)])
    findings = report.findings(worse, report.groups(worse))
    assert [finding.met for finding in findings][:3] == [False, False, False]


def test_finished_runs_are_used_again_and_others_are_not(climbed: Ladder) -> None:
    again = climb(climbed.config)
    assert again.reused == 12
    assert report.page(dataclasses.replace(again, reused=0)) == report.page(climbed)
    base = dataclasses.replace(climbed.config.base, cash=50_000.0)
    with pytest.raises(KeyboardInterrupt):
        climb(dataclasses.replace(climbed.config, base=base, seeds=1), Interrupting())
    assert climbed.config.out is not None
    kept = {len(list(settings.iterdir())) for settings in climbed.config.out.iterdir()}
    assert kept == {12, 1}


def cells(sharpes: list[float | None], seed: int) -> Rungs:
    rng = np.random.default_rng(seed)
    hold = {"total_return": 0.1, "sharpe": 0.5, "max_drawdown": -0.2, "daily_returns": []}
    plain = {
        "bars": 1200, "total_return": 0.0, "sharpe_interval": None, "max_drawdown": 0.0, "turnover_per_year": 1.0,
        "costs_share": 0.0, "fills": 0, "break_even_bps": None, "average_exposure": 0.0, "orders_cut": 0,
        "answered": 1.0, "better": 0, "over_cap": 0, "accuracy": {"direction": 0.4, "volatility": 0.9},
        "coverage": 0.9, "width": 0.1, "buy_and_hold": hold,
    }  # fmt: skip
    return Rungs(
        f"seed {seed}",
        True,
        365,
        [
            plain | {"level": level, "sharpe": value, "daily_returns": rng.standard_normal(60).tolist()}
            for level, value in enumerate(sharpes)
        ],
    )


def test_means_over_markets_have_students_interval_and_differences_are_paired() -> None:
    markets = [cells([2.0 + seed, 1.0 + seed, None, None, None, None], seed) for seed in (0, 1, 4)]
    group = report.groups(Ladder(LadderConfig(), markets, 0))[0]
    full, basic, smart = (group.steps[level].figures for level in (Level.FULL, Level.BASIC, Level.SMART))
    mean, deviation = 2.0 + 5 / 3, np.std([2.0, 3.0, 6.0], ddof=1)
    reach = 4.302653 * deviation / math.sqrt(3)
    assert full["sharpe"].value == pytest.approx(mean)
    assert (full["sharpe"].low, full["sharpe"].high) == pytest.approx((mean - reach, mean + reach))
    # What all markets share is no uncertainty.
    assert (basic["difference"].low, basic["difference"].high) == pytest.approx((-1.0, -1.0))
    assert smart["sharpe"].value is None
    assert smart["difference"].value == pytest.approx(-mean)


def test_one_instrument_has_bootstrap_intervals() -> None:
    one = cells([1.0, 0.5, None, None, None, None], 3)
    one.cells[0]["sharpe_interval"] = {"low": -1.0, "high": 3.0}
    group = report.groups(Ladder(LadderConfig(), [dataclasses.replace(one, simulated=False)], 0))[0]
    assert group.steps[0].figures["sharpe"] == report.Figure(1.0, -1.0, 3.0)
    difference = group.steps[1].figures["difference"]
    assert difference.value == -0.5
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < difference.high
    assert report.rows(group)[1][6:8] == ["0.50", difference.told("{:+.2f}")]


def test_tables_picture_and_document_tell_of_every_level(climbed: Ladder) -> None:
    group = report.groups(climbed)[0]
    rows = report.rows(group)
    assert [row[0] for row in rows] == [f"{level.value} {level.name}" for level in Level] + ["buy and hold"]
    assert {len(row) for row in rows} == {len(report.COLUMNS)}
    text = report.page(climbed)
    assert "Degradation ladder" in text
    assert "buy and hold" in text
    document = report.as_document(climbed)
    assert [level["level"] for level in document["groups"][0]["levels"]] == [*Level.__members__, "buy and hold"]
    assert "daily_returns" not in str(document)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LadderConfig(seeds=-1), "--seeds"),
        (LadderConfig(bars=500), "--bars"),
        (LadderConfig(seeds=0), "nothing to run on"),
        (LadderConfig(instruments=("A.B",)), "--instrument goes with --catalog"),
        (LadderConfig(base=BacktestConfig(own=OwnConfig(strategy="mine:Own"))), "--strategy"),
    ],
)
def test_what_makes_no_sense_is_refused(config: LadderConfig, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        climb(config)
