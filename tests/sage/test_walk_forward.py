"""Walk-forward: windows outside the sample, and what may have a say in them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data.bars import Bars
from data.catalog import to_nautilus
from data.errors import DataError, OptionError
from data.market import Market
from sage.backtest import run_backtest
from sage.config import BacktestConfig, OwnConfig, WalkForwardConfig, load_config, with_keys
from sage.results import tables
from sage.walk_forward import FoldResult, WalkForward, candidates_of, folds_of, walk_forward
from sage.walk_forward_report import as_document, page, write
from tests.sage.markets import market_of, without_model

BARS, TRAIN_BARS = 330, 150
GRID: dict[str, tuple[Any, ...]] = {"sizing.target_volatility": (0.1, 0.4)}


def walking(grid: dict[str, tuple[Any, ...]] | None = None, **walk: Any) -> BacktestConfig:
    settings = WalkForwardConfig(**({"folds": 3, "train_bars": TRAIN_BARS} | walk), grid=grid or {})
    return dataclasses.replace(without_model(), walk_forward=settings)


def changed_from(market: Market, row: int) -> Market:
    """The same market up to a row, and another one from there on."""
    factor = np.ones(len(market.bars))
    factor[row:] = 1.0 + 0.02 * np.random.default_rng(3).standard_normal(len(factor) - row)
    bars = market.bars
    changed = Bars(bars.ts_close_ns, *(np.round(values * factor, 2) for values in bars.columns()[1:5]), bars.volume)
    return dataclasses.replace(market, bars=changed, nautilus_bars=to_nautilus(changed, market.instrument, market.size))


def told(result: FoldResult) -> object:
    return result.chosen, result.candidates, json.dumps(result.figures), result.equity.to_dict()


@given(
    st.integers(130, 20_000),
    st.integers(100, 5_000),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(20, 3_000)),
    st.booleans(),
)
def test_windows_lie_side_by_side_up_to_the_last_bar_each_after_its_own_bars(
    bars: int, train: int, count: int, fold_bars: int | None, rolling: bool
) -> None:
    walk = WalkForwardConfig(count, fold_bars, train, rolling)
    try:
        folds = folds_of(bars, walk)
    except DataError:
        assume(False)
    assert (folds[0].start, folds[-1].stop) == (train, bars)
    assert all(before.stop == after.start for before, after in itertools.pairwise(folds))
    assert [fold.number for fold in folds] == list(range(1, len(folds) + 1))
    sizes = [fold.stop - fold.start for fold in folds]
    assert min(sizes) >= 20
    if fold_bars is None:
        assert len(folds) == count
        assert max(sizes) - min(sizes) <= 1
    else:
        assert sizes[:-1] == [fold_bars] * (len(folds) - 1)
        assert sizes[-1] < 1.5 * fold_bars
    for fold in folds:
        assert fold.first == (fold.start - train if rolling else 0)


@pytest.fixture(scope="module")
def whole() -> WalkForward:
    return walk_forward(walking(GRID), market=market_of(bars=BARS))


def test_a_window_that_is_longer_than_the_bars_is_refused() -> None:
    with pytest.raises(DataError, match="no window of 100,000 fits"):
        folds_of(288, WalkForwardConfig(fold_bars=100_000, train_bars=100))


def test_bars_after_a_window_change_nothing_in_it_nor_what_is_chosen_for_it(whole: WalkForward) -> None:
    for result in whole.folds[:-1]:
        other = walk_forward(walking(GRID), market=changed_from(whole.market, result.fold.stop))
        assert told(other.folds[result.fold.number - 1]) == told(result)
        assert told(other.folds[-1]) != told(whole.folds[-1])


def test_bars_of_a_window_have_no_say_in_what_is_chosen_for_it(whole: WalkForward) -> None:
    for result in whole.folds:
        assert [one.values["sizing.target_volatility"] for one in result.candidates] == [0.1, 0.4]
        best = max(candidate.score or -9.0 for candidate in result.candidates)
        assert result.chosen == next(one.values for one in result.candidates if one.score == best)
    last = whole.folds[-1]
    other = walk_forward(walking(GRID), market=changed_from(whole.market, last.fold.start)).folds[-1]
    assert (other.chosen, other.candidates) == (last.chosen, last.candidates)
    assert told(other) != told(last)


def test_nothing_is_traded_before_the_window_and_all_its_figures_are_its_own() -> None:
    market = market_of(bars=BARS)
    result = walk_forward(walking(), market=market).folds[1]
    fold = result.fold
    start_ns = int(market.bars.ts_close_ns[fold.start])
    run = run_backtest(walking(), market=market.part(0, fold.stop), trade_from_ns=start_ns)
    assert run.orders
    assert min(order.ts_ns for order in run.orders) >= start_ns
    assert len(run.signals) == fold.stop
    table = tables(run).equity
    assert set(table["equity"].iloc[: fold.start]) == {run.config.cash}
    assert result.equity["ts_ns"].tolist() == market.bars.ts_close_ns[fold.start : fold.stop].tolist()
    assert result.equity["equity"].tolist() == table["equity"].iloc[fold.start :].tolist()
    closes = market.bars.close[fold.start : fold.stop]
    rate = run.cost_rates.trade_rate(start_ns)
    assert result.figures["buy_and_hold_return"] == pytest.approx((1 - rate) * closes[-1] / closes[0] - 1)
    assert result.figures["total_return"] == table["equity"].iloc[-1] / run.config.cash - 1.0


def test_a_window_sees_the_same_whether_or_not_others_follow() -> None:
    market = market_of(bars=BARS)
    first = walk_forward(walking(folds=1), market=market.part(0, 210)).folds[0]
    assert told(walk_forward(walking(folds=3), market=market).folds[0]) == told(first)


def test_windows_together_are_their_product_and_cost_what_they_cost() -> None:
    walked = walk_forward(walking(rolling=True), market=market_of(bars=BARS))
    figures, pooled = [result.figures for result in walked.folds], walked.pooled
    for multiple, one in pooled["at_cost_multiples"].items():
        growth = np.prod([1.0 + each["at_cost_multiples"][multiple]["total_return"] for each in figures])
        assert one["total_return"] == pytest.approx(growth - 1.0)
    assert pooled["total_return"] == pooled["at_cost_multiples"]["1"]["total_return"]
    assert pooled["costs_paid"] == pytest.approx(sum(each["costs_paid"] for each in figures))
    assert len(walked.equity) == 180
    assert walked.equity["ts_ns"].is_monotonic_increasing
    worst = min(each["max_drawdown"] for each in figures)
    assert pooled["max_drawdown"] <= worst + 1e-12
    none, once, twice = (one["total_return"] for one in pooled["at_cost_multiples"].values())
    assert none > once > twice


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"sizing.target_volatilty": (0.1,)}, "target_volatility"),
        ({"sizing.target_volatility": ("much",)}, "target_volatility"),
        ({"sizing.target_volatility": (-0.1,)}, "target_volatility"),
        ({"sizing": (0.1,)}, "sizing"),
        ({"sizing.max_exposure.more": (0.1,)}, "max_exposure"),
        ({"costs.fee_bps": (0.0,)}, "not for a grid"),
        ({"data.source": ("sp500",)}, "not for a grid"),
        ({"seed": (1, 2)}, "not for a grid"),
        ({"sizing.target_volatility": tuple(np.linspace(0.1, 0.5, 65).tolist())}, "65 combinations"),
        ({"sizing.target_volatility": ()}, "grid"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(grid: dict[str, tuple[Any, ...]], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        walk_forward(walking(grid), market=market_of(bars=BARS))


def test_a_grid_comes_from_the_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "walk.toml"
    path.write_text('[walk_forward]\nfolds = 2\n[walk_forward.grid]\n"sizing.target_volatility" = [0.1, 0.3]\n')
    config = load_config(path)
    assert candidates_of(config) == [{"sizing.target_volatility": 0.1}, {"sizing.target_volatility": 0.3}]
    assert with_keys(config, {"sizing.target_volatility": 0.3}).sizing.target_volatility == 0.3
    assert config.walk_forward.folds == 2


def test_too_few_bars_and_a_strategy_of_ones_own_are_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        walk_forward(walking(train_bars=300), market=market_of(bars=BARS))
    own = dataclasses.replace(walking(), own=OwnConfig(strategy="mine:Strategy"))
    with pytest.raises(OptionError, match="of your own"):
        walk_forward(own, market=market_of(bars=BARS))


def test_without_a_model_it_is_said_beside_the_figures() -> None:
    config = with_keys(walking(), {"model.name": "nowhere", "model.allow_degraded": True, "regime.pinned_level": None})
    document = as_document(walk_forward(config))
    (note,) = [note for note in document["notes"] if "no model" in note]
    assert "nowhere" in note


def test_the_directory_is_there_whole_or_not_at_all(
    whole: WalkForward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(whole, tmp_path / "walk")
    assert {path.name for path in (tmp_path / "walk").iterdir()} == {
        "walk_forward.json", "equity.parquet", "report.html",
    }  # fmt: skip
    document = json.loads((tmp_path / "walk" / "walk_forward.json").read_text())
    assert [fold["bars"] for fold in document["folds"]] == [60, 60, 60]
    assert document["folds"][0]["chosen"] == whole.folds[0].chosen
    text = page(whole, as_document(whole))
    assert "sizing.target_volatility" in text
    assert "2024-01-07 to 2024-01-09" in text

    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sage.walk_forward_report.page", full)
    with pytest.raises(OSError, match="No space"):
        write(whole, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["walk"]
