"""The plan of a sweep: every combination once, and nothing that cannot be run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError, OptionError
from data.ingest import IngestRequest, ingest
from data.synthetic import SyntheticConfig
from sage.config import BacktestConfig, DataConfig, ModelConfig, OwnConfig, with_keys
from sage.sweep.axes import Axis, parse_axis
from sage.sweep.file import load_sweep, parse_period
from sage.sweep.plan import Period, SweepConfig, plan_of
from sage.sweep.windows import WindowConfig
from tests.data.files import candles, write_csv

BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=400)))
VOLATILITY = Axis("sizing.target_volatility", (0.05, 0.1, 0.2))
GAIN = Axis("sizing.conviction_gain", (1.0, 2.0))


def test_every_combination_is_a_run_with_a_key_of_its_own() -> None:
    plan = plan_of(SweepConfig(BASE, (VOLATILITY, GAIN), windows=WindowConfig(100, 100)))
    # Two windows of 100 bars and one of 52, after 100 to learn from and an embargo of the horizon each, 16 bars.
    assert len(plan.tasks) == 3 * 2 * 3 and plan.trials == 6
    assert len({task.key for task in plan.tasks}) == 18
    assert {(task.config.sizing.target_volatility, task.config.sizing.conviction_gain) for task in plan.tasks} == {
        (volatility, gain) for volatility in VOLATILITY.values for gain in GAIN.values
    }
    again = plan_of(SweepConfig(BASE, (VOLATILITY, GAIN), windows=WindowConfig(100, 100)))
    assert [task.key for task in again.tasks] == [task.key for task in plan.tasks]


def test_a_run_keeps_its_key_in_a_larger_sweep() -> None:
    small, large = (plan_of(SweepConfig(BASE, (Axis(VOLATILITY.key, values),))) for values in ((0.1,), (0.05, 0.1)))
    assert {task.key for task in small.tasks} < {task.key for task in large.tasks}


def test_a_seed_may_be_an_axis_and_makes_a_market_of_its_own() -> None:
    plan = plan_of(SweepConfig(BASE, (Axis("seed", (1, 2)),)))
    assert len(plan.markets) == 2


def test_what_is_asked_of_a_simulated_market_is_told_by_its_making_and_not_by_its_length() -> None:
    def question(**changes: Any) -> str:
        (facts,) = plan_of(SweepConfig(with_keys(BASE, changes))).markets.values()
        return facts.question

    assert question() == question(**{"data.synthetic.bars": 500})
    assert len({question(), question(seed=5), question(**{"data.synthetic.drift": 0.2})}) == 3


@pytest.mark.parametrize(
    ("text", "draws", "values"),
    [
        ("regime.context_bars=64:256:3:log", 0, [64, 128, 256]),
        ("regime.context_bars=64:67:7", 0, [64, 65, 66, 67]),
        ("regime.context_bars=64,96", 0, [64, 96]),
        ("seed=1~3", 40, [1, 2, 3]),
    ],
)
def test_of_a_key_that_holds_whole_numbers_each_is_tried_once(text: str, draws: int, values: list[int]) -> None:
    plan = plan_of(SweepConfig(BASE, (parse_axis(text),), draws=draws))
    found = [task.values[text.partition("=")[0]] for task in plan.tasks]
    assert sorted(found) == values and all(type(value) is int for value in found)


def test_a_broken_number_that_is_listed_for_a_whole_one_is_refused() -> None:
    with pytest.raises(OptionError, match="Expected `int`"):
        plan_of(SweepConfig(BASE, (parse_axis("regime.context_bars=64,96.5"),)))


def test_without_anything_to_vary_there_is_one_run() -> None:
    plan = plan_of(SweepConfig(BASE))
    assert len(plan.tasks) == 1 and plan.bars_to_run == 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": (Axis("sizing.target_volatilty", (0.1,)),)}, "near it: .*sizing.target_volatility"),
        ({"axes": (Axis("sizing.target_volatility", ("much",)),)}, "Expected `float`"),
        ({"axes": (Axis("sizing.target_volatility", (-1.0,)),)}, "target_volatility=-1.0: target_volatility must"),
        ({"axes": (Axis("ensemble.vote_limit_ms", (0.0, 0)),)}, "one and the same"),
        ({"axes": (Axis("seed", (1, 2)),), "backtest": BacktestConfig(data=DataConfig(source="sp500"))},
         "--set seed: has no say in a run on recorded bars"),
        ({"axes": (Axis("data.synthetic.bars", (1, 2)),), "backtest": BacktestConfig(data=DataConfig(source="sp500"))},
         "--set data.synthetic.bars: has no say"),
        ({"axes": (Axis("a", tuple(range(1_000))), Axis("b", tuple(range(1_000)))), "backtest": BASE},
         "1,000,000 combinations of values; 100,000 is the most"),
        ({"axes": (Axis("a", span=(0.0, 1.0)),), "draws": 1_000_000_000}, "--draws 1,000,000,000: 100,000 is the most"),
        ({"instruments": ("BTCUSDT.TEST",)}, "--instrument goes with --catalog"),
        ({"instruments": ("A.TEST", "A.TEST"), "backtest": BacktestConfig(data=DataConfig(source="catalog"))},
         "--instrument A.TEST: is there twice"),
        ({"periods": (Period("2023-01-01"),)}, "--period goes with --catalog"),
        ({"periods": (Period("2023-01-01", "2023-06-30"), Period("2023-06-01", "2024-01-01"))}, "overlap"),
        ({"backtest": dataclasses.replace(BASE, model=ModelConfig(online=True))}, "reads forecasts from the store"),
        ({"backtest": dataclasses.replace(BASE, model=ModelConfig(store=False))}, "reads forecasts from the store"),
        ({"backtest": with_keys(BASE, {"regime.deadline_ms": 50.0})}, "reads forecasts from the store"),
        ({"backtest": dataclasses.replace(BASE, own=OwnConfig(forecaster="a:B"))}, "reads forecasts from the store"),
        ({"periods": (Period("2023-01-01", "2022-01-01"),)}, "--period .* lies after the end"),
        ({"draws": 5, "axes": (VOLATILITY,)}, "no axis is drawn"),
        ({"axes": (Axis("own.forecaster", ("a:B",)),)}, "reads forecasts from the store"),
        ({"axes": (Axis("model", ({"online": True},)),)}, "is a table, and model.store in it not for a sweep"),
        ({"backtest": with_keys(BASE, {"model.allow_degraded": True})}, "allow_degraded goes with sage backtest"),
        ({"backtest": dataclasses.replace(BASE, own=OwnConfig(strategy="a:B")), "windows": WindowConfig(100, 100)},
         "kept from trading early"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        plan_of(dataclasses.replace(SweepConfig(BASE), **changes))


def test_windows_longer_than_the_data_are_refused() -> None:
    with pytest.raises(DataError, match="synthetic: 400 bars are too few"):
        plan_of(SweepConfig(BASE, windows=WindowConfig(300, 100)))


def test_periods_may_touch_where_one_ends_and_the_next_begins(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", candles(60))
    ingest(IngestRequest([path], tmp_path / "catalog", "BTCUSDT.TEST"))
    data = DataConfig(source="catalog", catalog=str(tmp_path / "catalog"), instrument="BTCUSDT.TEST")
    periods = (parse_period("2024-01-01..2024-01-01"), parse_period("2024-01-02.."))
    plan = plan_of(SweepConfig(BacktestConfig(data=data), periods=periods))
    assert len(plan.tasks) == 2 and plan.trials == 1
    # The bar that closes at midnight ends the first and begins the second, in which it has no return.
    assert plan.bars_to_run == 60 + 1


def test_windows_of_one_number_are_the_same_days_whatever_the_horizon() -> None:
    horizons = Axis("regime.horizon_bars", (4, 16))
    plan = plan_of(SweepConfig(BASE, (horizons,), windows=WindowConfig(100, 100)))
    windows = {trial: [task.window for task in plan.tasks if task.trial == trial] for trial in (0, 1)}
    assert windows[0] == windows[1]
    assert windows[0][1] is not None and windows[0][0] is not None
    assert windows[0][1].start - windows[0][0].stop == 16


def test_the_place_of_a_catalog_is_no_part_of_a_run(tmp_path: Path) -> None:
    frame = candles(60)
    keys = set()
    for name in ("a", "b"):
        ingest(IngestRequest([write_csv(tmp_path / "bars.csv", frame)], tmp_path / name, "BTCUSDT.TEST"))
        data = DataConfig(source="catalog", catalog=str(tmp_path / name), instrument="BTCUSDT.TEST")
        plan = plan_of(SweepConfig(BacktestConfig(data=data)))
        keys |= {(task.key, plan.sha256[task.key]) for task in plan.tasks}
    assert len(keys) == 1


def test_a_file_says_what_options_say(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        draws = 3
        draw_seed = 4
        instruments = ["A.X", "B.X"]
        periods = ["2023-01-01..2023-06-30", "2023-07-01.."]
        [set]
        sizing.target_volatility = [0.05, 0.1]
        "sizing.conviction_gain" = { from = 1.0, to = 2.0, count = 3 }
        costs.fee_bps = { from = 1.0, to = 10.0, random = true, log = true }
        [windows]
        train_bars = 100
        test_bars = 50
        rolling = true
        """
    )
    found = load_sweep(path, BASE)
    assert [axis.key for axis in found.axes] == ["sizing.target_volatility", "sizing.conviction_gain", "costs.fee_bps"]
    assert found.axes[1].values == (1, 1.5, 2) and found.axes[2].span == (1.0, 10.0) and found.axes[2].logarithmic
    assert (found.draws, found.seed, found.instruments) == (3, 4, ("A.X", "B.X"))
    assert found.periods == (Period("2023-01-01", "2023-06-30"), Period("2023-07-01", None))
    assert found.windows == WindowConfig(100, 50, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sets = {}", "unknown key sets; near it: set"),
        ("[windows]\ntrain_bars = 10", "needs train_bars and test_bars"),
        ("[windows]\ntrain_bars = 1.5\ntest_bars = 10", "must be of type int"),
        ("draws = -1", "draws is -1"),
        ("instruments = 'A'", "a list of texts"),
        ("set = 3", "set is a table"),
        ("what", "--grid"),
        ("periods = ['2023']", "START..END"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        load_sweep(path, BASE)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No such file"):
        load_sweep(tmp_path / "none.toml", BASE)


@pytest.mark.parametrize("text", ["", "2023", "..", "  ..  "])
def test_a_period_has_a_beginning_or_an_end(text: str) -> None:
    with pytest.raises(OptionError, match=r"START\.\.END"):
        parse_period(text)
