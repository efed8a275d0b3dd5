"""The coverage study: what it measures, on walks whose truth is known, and the walk itself."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data.errors import DataError, OptionError
from regime.window import FloatArray
from sage.studies import coverage as study
from sage.studies import coverage_report as report
from sage.studies.coverage import Coverage, CoverageConfig, cover
from sage.studies.coverage_breaks import (
    AFTER_BARS,
    KINDS,
    AfterBreak,
    BreakConfig,
    Kind,
    SimulatedBreaks,
    after_breaks,
    pooled,
    simulate_breaks,
)
from sage.studies.coverage_measures import Walk, covered, measures, thirds, winkler

HOUR_NS = 3600 * 1_000_000_000
BARS = 4_000


def walk_of(returns: FloatArray, half_width: float, horizon: int = 3) -> Walk:
    """Hourly bars with the same interval around zero at each of them."""
    bars = len(returns)
    half = np.full((bars, horizon + 1), half_width)
    half[:, -1] *= math.sqrt(horizon)
    return Walk(
        ts_ns=np.arange(1, bars + 1) * HOUR_NS,
        returns=returns,
        lows=-half,
        highs=half,
        levels=np.zeros(bars, dtype=np.int64),
        volatility=np.ones(bars),
    )


def test_intervals_of_a_known_width_have_the_coverage_of_theory() -> None:
    returns = np.random.default_rng(1).normal(size=BARS)
    found = measures(walk_of(returns, 1.645), 1_000, 0.1, intraday=True)
    assert found["judged"] == BARS - 1_000
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["horizon_coverage"] == pytest.approx(0.9, abs=0.03)
    assert found["steps"] == pytest.approx([0.9] * 3, abs=0.02)
    assert found["winkler"] == pytest.approx(40.0 * stats.norm.pdf(1.645), rel=0.05)
    assert found["winkler"] / found["static_winkler"] == pytest.approx(1.0, abs=0.02)
    assert found["levels"] == {"FULL": BARS - 1_000}
    assert found["hours"] == []


def test_an_interval_without_end_is_a_miss() -> None:
    walk = walk_of(np.zeros(2_000), 1.0)
    walk.highs[1_500:, 0] = math.inf
    walk.lows[1_500:, 0] = -math.inf
    found = measures(walk, 1_000, 0.1, intraday=False)
    assert found["unbounded"] == 499
    assert found["coverage"] == pytest.approx(1.0 - 499 / 1_000)


def test_what_spans_a_gap_is_not_judged_and_nothing_else_is_lost() -> None:
    returns = np.random.default_rng(2).normal(size=30)
    returns[10] = math.nan
    walk = walk_of(returns, 1.0)
    held, known = covered(walk, 1)
    assert np.flatnonzero(~known).tolist() == [9, 29]
    assert held[~known].sum() == 0
    _, known = covered(walk, 3)
    assert np.flatnonzero(~known).tolist() == [7, 8, 9, 27, 28, 29]
    held, known = covered(walk, 0)
    assert np.flatnonzero(~known).tolist() == [7, 8, 9, 27, 28, 29]
    for bar in np.flatnonzero(known):
        assert held[bar] == (abs(returns[bar + 1 : bar + 4].sum()) <= math.sqrt(3))


def test_the_winkler_score_is_width_and_ten_times_each_side_of_a_miss() -> None:
    scores = winkler(np.array([0.0, 1.5, -3.0]), np.full(3, -1.0), np.full(3, 1.0), 0.2)
    np.testing.assert_allclose(scores, [2.0, 2.0 + 10 * 0.5, 2.0 + 10 * 2.0])


def test_groups_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    volatility = np.exp(rng.normal(size=12_000))
    returns = np.concatenate([[0.0], volatility[:-1] * rng.normal(size=11_999)])
    hours = np.arange(1, 12_001) % 24
    walk = dataclasses.replace(walk_of(returns, 1.0), volatility=volatility)
    # Right for volatility, half as wide as it should be at 6 in the morning.
    half = 1.645 * volatility * np.where(np.roll(hours, -1) == 6, 0.5, 1.0)
    walk.lows[:, 0], walk.highs[:, 0] = -half, half
    found = measures(walk, 1_000, 0.1, intraday=True)
    shares = {hour: share for hour, _, share in found["hours"]}
    # The bar that closes at 6 is that of the hour from 5 on.
    assert shares.pop(5) == pytest.approx(0.59, abs=0.06)
    assert min(shares.values()) > 0.85
    assert report.apart(found["thirds"]) < 0.03
    constant = dataclasses.replace(walk, lows=-np.ones((12_000, 4)), highs=np.ones((12_000, 4)))
    assert report.apart(measures(constant, 1_000, 0.1, intraday=True)["thirds"]) > 0.3
    assert np.bincount(thirds(volatility)).tolist() == [4_000, 4_000, 4_000]


def oracle(kind: Kind, simulated: SimulatedBreaks, late_bars: int = 0, wider: float = 1.0) -> Walk:
    """Knows the volatility of the next bar, or that of some bars before."""
    unit = stats.t.ppf(0.95, 5) * math.sqrt(0.6) if kind.heavy else stats.norm.ppf(0.95)
    known = np.concatenate([simulated.volatility[:late_bars], simulated.volatility])[: len(simulated.volatility)]
    half = wider * unit * np.append(known[1:], known[-1])
    returns = np.diff(np.log(simulated.bars.close), prepend=math.log(simulated.bars.open[0]))
    walk = walk_of(returns, 1.0, horizon=1)
    walk.lows[:, 0], walk.highs[:, 0] = -half, half
    return walk


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_oracle_is_covered_at_its_own_width_after_every_break(kind: Kind) -> None:
    simulated = simulate_breaks(kind, BreakConfig(), 1_000, seed=1)
    found = AfterBreak.of(after_breaks(kind, simulated, oracle(kind, simulated), 0.1, 1_000))
    assert found.number == (70, 70)
    for way in (0, 1):
        assert found.covered[way].mean() == pytest.approx(0.9, abs=0.02)
        np.testing.assert_allclose(found.width[way], 1.0)
    assert found.coverage == pytest.approx(0.9, abs=0.01)


def test_who_is_late_misses_upwards_and_is_too_wide_downwards() -> None:
    kind = Kind(3.0, heavy=False)
    simulated = simulate_breaks(kind, BreakConfig(), 1_000, seed=1)
    found = AfterBreak.of(after_breaks(kind, simulated, oracle(kind, simulated, late_bars=12), 0.1, 1_000))
    np.testing.assert_allclose(found.width[0][:12], 1 / 3)
    np.testing.assert_allclose(found.width[1][:12], 3.0)
    assert found.covered[0][:12].mean() == pytest.approx(2 * stats.norm.cdf(1.645 / 3) - 1, abs=0.05)
    held, width = pooled([found, found], 1)
    assert held == pytest.approx(0.92, abs=0.02)
    assert width == pytest.approx((12 * 3 + 48) / 60)


@pytest.mark.parametrize("heavy", [False, True])
def test_simulated_bars_have_the_volatility_that_is_said_of_them(heavy: bool) -> None:
    kind = Kind(2.0, heavy)
    simulated = simulate_breaks(kind, BreakConfig(), 1_000, seed=3)
    bars = simulated.bars
    standardised = np.diff(np.log(bars.close)) / simulated.volatility[1:]
    assert standardised.std() == pytest.approx(1.0, abs=0.03)
    assert (stats.kurtosis(standardised) > 1.0) == heavy
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    closed = simulate_breaks(kind, BreakConfig(close_only=True), 1_000, seed=3).bars
    np.testing.assert_array_equal(closed.close, bars.close)
    np.testing.assert_array_equal(closed.high, np.maximum(closed.open, closed.close))
    assert (bars.high > closed.high).mean() > 0.6


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Coverage:
    config = CoverageConfig(source="synthetic", bars=400, warm_up_bars=250, breaks=BreakConfig(number=0))
    out = tmp_path_factory.mktemp("kept")
    cover(dataclasses.replace(config, out=out))
    return cover(dataclasses.replace(config, out=out))


def test_the_detector_is_walked_through_and_what_was_found_is_kept(found: Coverage) -> None:
    assert found.reused == 1
    (cell,) = found.series
    assert cell["series"] == "SYNTHUSDT.SIM 1h"
    assert cell["judged"] == 400
    assert 0.8 < cell["coverage"] < 1.0
    assert len(cell["steps"]) == 16
    assert sum(cell["levels"].values()) == 400


def test_findings_tables_and_pictures_come_of_it(found: Coverage) -> None:
    again = cover(dataclasses.replace(found.config, out=None))
    assert again.series == [found.series[0] | {"hours": again.series[0]["hours"]}]
    (finding,) = report.findings(found)
    assert finding.met is None
    assert "not judged" in finding.text
    long = dataclasses.replace(found, series=[found.series[0] | {"bars_held": 20_000, "coverage": 0.88}])
    judged = report.findings(long)
    assert judged[0].met is False
    assert "not on SYNTHUSDT.SIM 1h 0.880" in judged[0].text
    page = report.page(found)
    assert "By bar ahead" in page
    assert report.as_document(found)["series"][0]["coverage"] == found.series[0]["coverage"]


def test_breaks_are_walked_through_and_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "KINDS", KINDS[1:2])
    breaks = BreakConfig(number=2, calm_bars=(80, 90), wild_bars=70)
    done = cover(CoverageConfig(warm_up_bars=200, breaks=breaks))
    (after,) = done.breaks
    assert (after.kind, after.number) == ("x3 Gaussian", (2, 2))
    assert after.covered[0].shape == (AFTER_BARS,)
    assert after.width[0][0] < 0.6 < after.width[1][0]
    findings = report.findings(done)
    assert [finding.met is None for finding in findings] == [False, False, True]
    assert "After breaks of volatility" in report.page(done)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="nothing to look at"):
        cover(CoverageConfig(breaks=BreakConfig(number=0)))
    with pytest.raises(OptionError, match="level FULL begins"):
        cover(CoverageConfig(warm_up_bars=100))
    with pytest.raises(OptionError, match="goes with --catalog"):
        cover(CoverageConfig(instruments=("A.B",)))
    with pytest.raises(DataError, match="too few"):
        cover(CoverageConfig(source="sp500", warm_up_bars=8_000, breaks=BreakConfig(number=0)))


def test_a_catalog_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        cover(CoverageConfig(catalog=tmp_path / "none", breaks=BreakConfig(number=0)))
