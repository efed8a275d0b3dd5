"""The check for look-ahead: what is planted is found each time, what is honest passes, the rest is undecided."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import OptionError
from data.market import Market, synthetic_market
from regime.config import RegimeConfig
from sage import backtest
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.lookahead import Future, Lookahead, Verdict, altered, check_lookahead
from tests.conftest import short_config
from tests.sage import own
from tests.sage.test_plugins import with_own
from tests.sage.test_replay import without_model

BARS = 300
SEEDS = range(3)


def checked(name: str, seed: int = 7, cuts: int = 3, bars: int = BARS, **params: Any) -> Lookahead:
    config = with_own(bars, strategy=f"tests.sage.own:{name}", params=params)
    return check_lookahead(run_backtest(dataclasses.replace(config, seed=seed)), cuts)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_strategy_that_peeks_one_bar_is_caught_at_its_first_order(seed: int) -> None:
    found = checked("PeeksOneBar", seed)
    assert found.verdict is Verdict.FOUND and found.finding is not None
    assert found.finding.bars_ahead == 1
    assert found.finding.difference.table == "orders" and found.finding.difference.row == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scaler_fitted_on_all_data_is_caught(seed: int) -> None:
    found = checked("ScalesOnAll", seed)
    assert found.verdict is Verdict.FOUND and found.finding is not None
    assert found.finding.difference.table == "orders"


@pytest.mark.parametrize("seed", SEEDS)
def test_an_indicator_stamped_at_the_open_is_caught(seed: int) -> None:
    found = checked("StampedAtOpen", seed)
    assert found.verdict is Verdict.FOUND and found.finding is not None
    # It knows the rest of a bar of four hours.
    assert 1 <= found.finding.bars_ahead <= 3


@pytest.mark.parametrize("name", ["Handed", "FlattensAtTheEnd", "Flips"])
def test_an_honest_strategy_passes(name: str) -> None:
    found = checked(name)
    assert found.verdict is Verdict.CLEAN and found.finding is None and not found.notes
    assert found.runs == 1 + 3 * len(Future) and len(found.cuts) == 3
    assert found.steps > 0 and found.signals > 0 and found.probed == 3 < found.decisions


def test_a_price_that_is_known_too_early_is_caught() -> None:
    found = checked("QuotesTheNextBar")
    assert found.finding is not None
    difference = found.finding.difference
    assert (difference.table, difference.column) == ("orders", "price")
    assert difference.first != difference.second


def test_a_single_peek_among_honest_decisions_is_caught_where_each_has_a_cut_behind_it() -> None:
    found = checked("PeeksNowAndThen", seed=6, bars=60, cuts=8)
    assert found.probed == found.decisions == 3
    assert found.finding is not None
    assert (found.finding.bar, found.finding.bars_ahead) == (40, 1)


def test_falling_over_where_the_future_ends_is_look_ahead() -> None:
    found = checked("KnowsTheLength")
    assert found.finding is not None
    assert found.finding.difference.column == "raised" and "IndexError" in found.finding.difference.second
    assert (found.finding.future, found.finding.bars_ahead) == (Future.CUT_OFF, 1)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("WithoutConfig", "sent no order"),
        ("LeavesItToChance", "two runs over the same bars differ"),
        ("BuiltTwiceOnly", "no run with another future"),
    ],
)
def test_what_cannot_be_compared_is_undecided(name: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.BuiltTwiceOnly, "built", 0)
    found = checked(name)
    assert found.verdict is Verdict.UNDECIDED and why in found.why


def test_runs_that_cannot_be_made_are_noted_and_the_others_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.BuiltTwiceOnly, "built", -6)
    found = checked("BuiltTwiceOnly")
    assert found.verdict is Verdict.CLEAN and found.runs == 10
    assert len(found.notes) == 3 and all("not twice, but more" in note for note in found.notes)


def test_files_that_the_users_code_opens_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "level.txt"
    file.write_text("40000")
    monkeypatch.setenv("SAGE_TEST_LEVEL", str(file))
    (note,) = checked("ReadsAFile", cuts=1).notes
    assert f"opens {file} by itself" in note


def test_too_few_bars_are_undecided_and_clocks_refused() -> None:
    config = short_config(40)
    assert check_lookahead(run_backtest(with_own(40, strategy="tests.sage.own:Handed"))).verdict is Verdict.UNDECIDED
    timed = dataclasses.replace(config, regime=dataclasses.replace(config.regime, deadline_ms=20.0, pinned_level=None))
    with pytest.raises(OptionError, match="deadline"):
        check_lookahead(run_backtest(timed))


def test_sages_own_build_passes_with_its_model() -> None:
    run = run_backtest(short_config(300))
    found = check_lookahead(run, 2)
    assert found.verdict is Verdict.CLEAN, found
    assert found.signals > 100 and not found.notes


def test_a_threshold_fitted_on_all_bars_is_found_in_sages_own_build(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = backtest.for_market

    def fitted_on_all(regime: RegimeConfig, market: Market) -> RegimeConfig:
        spread = float(np.std(np.log(market.bars.close)))
        classifier = dataclasses.replace(regime.classifier, direction_band=0.1 + 5 * spread)
        return dataclasses.replace(honest(regime, market), classifier=classifier)

    monkeypatch.setattr(backtest, "for_market", fitted_on_all)
    found = check_lookahead(run_backtest(without_model(BARS)), 4)
    assert found.finding is not None and found.finding.difference.table == "signals"


@settings(max_examples=25)
@given(kept=st.integers(1, 599), future=st.sampled_from(Future))
def test_altered_bars_are_valid_and_leave_the_past_alone(kept: int, future: Future) -> None:
    market = _market()
    other = altered(market, kept, future)
    assert other.bars[:kept].sha256() == market.bars[:kept].sha256()
    rest = other.bars[slice(kept, None)]
    assert len(rest) == (0 if future is Future.CUT_OFF else min(64, 600 - kept))
    assert rest.ts_close_ns.tolist() == market.bars.ts_close_ns[kept : kept + len(rest)].tolist()
    assert (rest.low > 0).all() and (rest.volume >= 0).all()
    assert (rest.high >= np.maximum(rest.open, rest.close)).all()
    assert (rest.low <= np.minimum(rest.open, rest.close)).all()
    assert len(other.nautilus_bars) == len(other.bars)
    if len(rest):
        up = future is Future.RISING
        assert (rest.close[0] > market.bars.close[kept - 1]) == up
        assert bool((np.diff(rest.close[:16]) > 0).all() if up else (np.diff(rest.close[:16]) < 0).all())


def _market() -> Market:
    return synthetic_market(dataclasses.replace(BacktestConfig().data.synthetic, bars=600, seed=3))
