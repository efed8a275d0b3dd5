"""A sweep with real workers, a real model and real engines: every result is there, once, and that of a backtest."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from data.errors import OptionError
from data.ingest import IngestRequest, ingest
from data.synthetic import SyntheticConfig
from regime.errors import ModelUnavailable
from regime.signal import Level
from sage.backtest import run_backtest
from sage.config import BacktestConfig, DataConfig, ModelConfig, OwnConfig, with_keys
from sage.progress import Silent
from sage.results import determinism_hash_of
from sage.sweep import report, runs
from sage.sweep.axes import Axis
from sage.sweep.ledger import Ledger
from sage.sweep.plan import Plan, SweepConfig, market_of, plan_of
from sage.sweep.results import write_results
from sage.sweep.runs import ERROR_FILE, RUNS, run_task
from sage.sweep.sweep import SWEEP_FILE, Swept, _ideas, planned_before, sweep
from sage.sweep.table import TABLE, TRIALS
from sage.sweep.windows import WindowConfig
from sage.sweep.workers import Died, LocalWorkers
from tests.data.files import candles, write_csv

BARS = 420
BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=BARS, bar_seconds=14_400)))
PINNED = with_keys(BASE, {"regime.pinned_level": int(Level.SMART)})
"""Without a model: quick."""

AXES = (Axis("sizing.target_volatility", (0.1, 0.4)), Axis("sizing.conviction_gain", (1.0, 3.0)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def with_model(store: Path) -> BacktestConfig:
    return dataclasses.replace(BASE, model=ModelConfig(store_dir=str(store)))


OTHERS: set[int] = set()
"""Processes that other tests need: a model that all of them share."""


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS.clear()
    OTHERS.update(one.pid for one in psutil.Process().children())


def children() -> list[psutil.Process]:
    """Workers, and model processes of a test's own; Python's helper is none."""
    found = [one for one in psutil.Process().children() if one.pid not in OTHERS]
    return [one for one in found if "resource_tracker" not in str(one.cmdline())]


def swept(plan: Plan, place: Path, workers: int = 2) -> Swept:
    return sweep(plan, place, LocalWorkers(workers), Ledger(place.parent / "trials.jsonl"), Silent())


@pytest.fixture(scope="module")
def found(with_model: BacktestConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Swept, Path]:
    place = tmp_path_factory.mktemp("sweep") / "out"
    plan = plan_of(SweepConfig(with_model, AXES, windows=WindowConfig(200, 80)))
    return swept(plan, place), place


def test_every_run_is_that_of_a_backtest_and_forecasts_are_made_once(
    found: tuple[Swept, Path], with_model: BacktestConfig
) -> None:
    result, place = found
    assert not result.failed and len(result.rows) == len(result.plan.tasks) == 8
    assert result.forecasts.made == result.forecasts.needed > 0 and not result.forecasts.problem
    table = pd.read_parquet(place / TABLE)
    assert table["key"].tolist() == [task.key for task in result.plan.tasks]
    task = result.plan.tasks[-1]
    window = task.window
    assert window is not None
    assert table["bars"].tolist()[-1] == window.stop - window.start
    from sage.backtest import load_market

    market = load_market(with_model).part(window.first, window.stop)
    start_ns = int(market.bars.ts_close_ns[window.start - window.first])
    own = run_backtest(task.config, market=market, trade_from_ns=start_ns)
    assert own.forecasts_computed == 0
    assert table["determinism_hash"].iloc[-1] == determinism_hash_of(own)
    manifest = json.loads((place / RUNS / task.key / "manifest.json").read_text())
    summary = json.loads((place / RUNS / task.key / "summary.json").read_text())
    assert manifest["sweep"]["values"] == task.values and summary["determinism_hash"] == determinism_hash_of(own)


def test_what_is_done_is_not_run_again_and_what_is_new_is(
    found: tuple[Swept, Path], with_model: BacktestConfig
) -> None:
    result, place = found
    stamps = {path.name: path.stat().st_mtime_ns for path in (place / RUNS).iterdir()}
    more = (dataclasses.replace(AXES[0], values=(0.1, 0.4, 0.7)), AXES[1])
    again = swept(plan_of(SweepConfig(with_model, more, windows=WindowConfig(200, 80))), place)
    assert again.reused == 8 and len(again.rows) == 12 and not again.failed
    assert again.forecasts.made == 0
    assert all((place / RUNS / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    # Those of before count as trials, too, and once.
    assert again.judged.trials_ever == 6 and result.judged.trials_ever == 4


def test_the_report_says_what_the_winner_is_worth(found: tuple[Swept, Path]) -> None:
    result, _ = found
    document = json.loads(json.dumps(report.as_document(result)))
    assert document["trials"] == 4 and len(document["runs"]) == 8
    assert document["winner"]["values"].keys() == {axis.key for axis in AXES}
    told = " ".join(one["text"] for one in document["findings"])
    for words in ("best of 4 trials", "by luck", "probability of overfitting", "windows by all windows before", "p = "):
        assert words in told, words
    page = report.page(result, (AXES[0].key, AXES[1].key))
    assert "The best 4 trials" in page and "sizing.conviction_gain" in page and "<h2>Failed</h2>" not in page


def test_a_run_that_misses_forecasts_fails_and_starts_no_model(with_model: BacktestConfig, tmp_path: Path) -> None:
    empty = dataclasses.replace(with_model, model=ModelConfig(store_dir=str(tmp_path / "empty")))
    (task,) = plan_of(SweepConfig(empty)).tasks
    outcome = run_task(task, str(tmp_path), {})
    assert "not in the store" in outcome.error and "ModelUnavailable" in outcome.error
    error = json.loads((tmp_path / RUNS / task.key / ERROR_FILE).read_text())
    assert error["error"] == outcome.error and "Traceback" in error["trace"]
    assert not children()


def test_a_run_that_fails_is_recorded_and_stops_no_other(tmp_path: Path) -> None:
    own = OwnConfig(strategy="tests.sage.own:Flips")
    base = dataclasses.replace(PINNED, own=own)
    axis = Axis("own.params", ({}, {"raise_in": "on_bar", "raise_at": 50}))
    result = swept(plan_of(SweepConfig(base, (axis,))), tmp_path / "out")
    assert [row["status"] for row in result.rows] == ["ok", "failed"]
    assert "my own mistake in on_bar" in result.failed[0]["error"]
    assert result.judged.failed_trials == 1 and result.judged.trials_ever == 2
    assert "<h2>Failed</h2>" in report.page(result)
    again = swept(plan_of(SweepConfig(base, (axis,))), tmp_path / "out")
    assert again.reused == 1 and len(again.failed) == 1 and again.judged.trials_ever == 2


def test_without_a_model_missing_forecasts_end_it_before_the_first_run(tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, model=ModelConfig(name="no-such-model", store_dir=str(tmp_path / "store")))
    with pytest.raises(ModelUnavailable, match="no-such-model"):
        swept(plan_of(SweepConfig(base, AXES)), tmp_path / "out")
    assert not (tmp_path / "out" / RUNS).exists() or not any((tmp_path / "out" / RUNS).iterdir())


def ingested(catalog: Path, base: float, count: int = 200) -> BacktestConfig:
    """A backtest without a model on bars of a catalog."""
    path = write_csv(catalog.parent / "bars.csv", candles(count, base=base))
    ingest(IngestRequest([path], catalog, "BTCUSDT.TEST"))
    data = DataConfig(source="catalog", catalog=str(catalog), instrument="BTCUSDT.TEST")
    return dataclasses.replace(PINNED, data=data)


def test_runs_on_bars_that_have_changed_since_are_made_again(tmp_path: Path) -> None:
    place, axis = tmp_path / "out", AXES[0]
    plan = plan_of(SweepConfig(ingested(tmp_path / "catalog", 100.0), (axis,)))
    first = swept(plan, place, 1)
    market_of.cache_clear()
    other = plan_of(SweepConfig(ingested(tmp_path / "catalog", 300.0), (axis,)))
    assert [task.key for task in other.tasks] == [task.key for task in plan.tasks]
    again = swept(other, place, 1)
    assert again.stale == 2 and again.reused == 0 and not again.failed
    assert [row["determinism_hash"] for row in again.rows] != [row["determinism_hash"] for row in first.rows]
    assert any("made from other bars" in finding.told for finding in report.findings(again))
    assert swept(other, place, 1).reused == 2


def test_a_sweep_of_windows_goes_on_when_more_bars_have_come(tmp_path: Path) -> None:
    place, windows = tmp_path / "out", WindowConfig(50, 40)
    plan = plan_of(SweepConfig(ingested(tmp_path / "catalog", 100.0), (AXES[0],), windows=windows))
    swept(plan, place, 1)
    market_of.cache_clear()
    more = plan_of(SweepConfig(ingested(tmp_path / "catalog", 100.0, 210), (AXES[0],), windows=windows))
    assert [task.key for task in more.tasks] == [task.key for task in plan.tasks]
    again = swept(more, place, 1)
    # The last window alone is longer now.
    assert again.stale == 2 and again.reused == len(plan.tasks) - 2 and not again.failed


def test_what_is_out_of_date_stays_until_it_is_run_again(tmp_path: Path) -> None:
    place, axis = tmp_path / "out", AXES[0]
    plan = plan_of(SweepConfig(ingested(tmp_path / "catalog", 100.0), (axis,)))
    swept(plan, place, 1)
    market_of.cache_clear()
    other = plan_of(SweepConfig(ingested(tmp_path / "catalog", 300.0), (axis,)))

    class Stops(Silent):
        def stage(self, name: str, total: int) -> None:
            if name == "running":
                raise KeyboardInterrupt

    stopped = sweep(other, place, LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Stops())
    assert stopped.interrupted and stopped.stale == 2
    assert all((place / RUNS / task.key / "summary.json").exists() for task in plan.tasks)


def test_other_bars_of_an_instrument_and_other_lengths_learnt_from_are_other_ideas(tmp_path: Path) -> None:
    hours, days = (
        dataclasses.replace(PINNED, data=DataConfig(synthetic=SyntheticConfig(bars=BARS, bar_seconds=seconds)))
        for seconds in (3_600, 14_400)
    )
    ideas = [
        set(_ideas(plan_of(SweepConfig(base, windows=windows))).values())
        for base, windows in (
            (hours, None), (days, None), (days, WindowConfig(100, 80)), (days, WindowConfig(100, 80, rolling=True)),
            (days, WindowConfig(150, 80, rolling=True)), (days, WindowConfig(100, 60, rolling=True)),
        )
    ]  # fmt: skip
    assert all(len(one) == 1 for one in ideas)
    # Windows alone are other days; what is learnt from is not.
    assert ideas[1] == ideas[2] and ideas[3] == ideas[5]
    assert len({frozenset(one) for one in ideas}) == 4


def test_code_that_was_changed_is_run_again_and_tried_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plan = plan_of(SweepConfig(dataclasses.replace(PINNED, own=OwnConfig(strategy="own_flips:Mine"))))
    module = tmp_path / "own_flips.py"
    module.write_text("from tests.sage.own import Flips\n\n\nclass Mine(Flips):\n    pass\n")
    first = swept(plan, tmp_path / "out", 1)
    assert not first.failed, first.failed
    module.write_text(module.read_text() + "    more = 1\n")
    again = swept(plan, tmp_path / "out", 1)
    assert again.stale == 1 and not again.failed
    assert (first.judged.trials_ever, again.judged.trials_ever) == (1, 2)
    assert swept(plan, tmp_path / "out", 1).judged.trials_ever == 2


class Panic(BaseException):
    """As a compiled extension ends with that has lost its footing."""


def test_whatever_a_run_raises_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(*_: Any, **__: Any) -> None:
        raise Panic("not mine")

    monkeypatch.setattr(runs, "run_backtest", panics)
    (task,) = plan_of(SweepConfig(PINNED)).tasks
    assert run_task(task, str(tmp_path), {}).error == "Panic: not mine"


def test_a_sweep_whose_addresses_had_passwords_is_not_gone_on_with_by_half(tmp_path: Path) -> None:
    model = ModelConfig(store_dir="ftp://quant:secret@127.0.0.1:1/store")
    swept(plan_of(SweepConfig(dataclasses.replace(PINNED, model=model))), tmp_path / "out", 1)
    assert "quant" not in (tmp_path / "out" / SWEEP_FILE).read_text()
    with pytest.raises(OptionError, match="at an address with a password"):
        planned_before(str(tmp_path / "out"))


def test_values_without_a_say_are_told_of(tmp_path: Path) -> None:
    axes = (Axis("costs.funding_bps_8h", (1.0, 2.0)), AXES[0])
    result = swept(plan_of(SweepConfig(PINNED, axes)), tmp_path / "out")
    told = [finding.told for finding in report.findings(result)]
    assert any("2 trials did in every run what an earlier one did" in one and "(2, 3)" in one for one in told), told


def test_a_result_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    plan = plan_of(SweepConfig(PINNED, (AXES[0],)))
    swept(plan, tmp_path / "out", 1)
    damaged = tmp_path / "out" / RUNS / plan.tasks[0].key / "shuffled.npy"
    damaged.write_bytes(b"")
    again = swept(plan, tmp_path / "out", 1)
    assert again.reused == 1 and not again.failed and damaged.stat().st_size > 0


def test_a_run_that_is_there_is_left_alone_by_whoever_comes_later(tmp_path: Path) -> None:
    (task,) = plan_of(SweepConfig(PINNED)).tasks
    first = run_task(task, str(tmp_path), {})
    manifest = tmp_path / RUNS / task.key / "manifest.json"
    stamp = manifest.stat().st_mtime_ns
    again = run_task(task, str(tmp_path), {})
    assert manifest.stat().st_mtime_ns == stamp
    assert again.figures["determinism_hash"] == first.figures["determinism_hash"]


def test_one_sweep_at_a_time_is_at_work_in_a_place(tmp_path: Path) -> None:
    plan = plan_of(SweepConfig(PINNED))

    class Meddles(Silent):
        def stage(self, name: str, total: int) -> None:
            if name == "running":
                with pytest.raises(OptionError, match="another sweep is at work there"):
                    swept(plan, tmp_path / "out", 1)

    found = sweep(plan, tmp_path / "out", LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Meddles())
    assert not found.failed


def test_runs_of_before_are_never_left_out_in_silence(tmp_path: Path) -> None:
    config = SweepConfig(PINNED, (AXES[0],))
    swept(plan_of(config), tmp_path / "out", 1)
    with pytest.raises(OptionError, match="2 runs there are not of this sweep"):
        swept(plan_of(SweepConfig(PINNED)), tmp_path / "out", 1)
    assert len(pd.read_parquet(tmp_path / "out" / TABLE)) == 2
    assert planned_before(str(tmp_path / "out")) == config


def test_values_of_all_kinds_go_through_table_and_report(tmp_path: Path) -> None:
    axes = (
        Axis("ensemble.alphas", (["trend"], ["trend", "reversal"])),
        Axis("costs.spread_bps", (None, 3)),
        Axis("ensemble.weights.floor", (0.1, 0)),
    )
    result = swept(plan_of(SweepConfig(PINNED, axes)), tmp_path / "out")
    assert not result.failed, result.failed
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert set(table[f"set.{axes[0].key}"]) == {'["trend"]', '["trend", "reversal"]'}
    write_results(result, str(tmp_path / "out"), (axes[0].key, axes[1].key))
    trials = pd.read_parquet(tmp_path / "out" / TRIALS)
    assert len(trials) == 8 and set(trials["runs"]) == {1} and trials["deflated_sharpe"].notna().any()
    assert "Luck" in (tmp_path / "out" / report.HTML_FILE).read_text()


def test_an_interruption_keeps_what_is_finished_and_the_rest_can_follow(tmp_path: Path) -> None:
    plan = plan_of(SweepConfig(PINNED, (Axis("seed", tuple(range(6))),)))

    class Stops(Silent):
        def __init__(self) -> None:
            self.runs = 0

        def advance(self, steps: int, note: str = "") -> None:
            self.runs += steps
            if self.runs == 2:
                raise KeyboardInterrupt

    place = tmp_path / "out"
    first = sweep(plan, place, LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Stops())
    assert first.interrupted and 2 <= len(first.rows) < 6
    assert len(pd.read_parquet(place / TABLE)) == len(first.rows)
    assert not [path for path in (place / RUNS).iterdir() if path.name.startswith(".")]
    assert not children()
    # Those that were never handed out are no trials.
    begun = [line for line in (tmp_path / "trials.jsonl").read_text().splitlines() if "sweep" in json.loads(line)]
    assert 2 <= len(begun) < 6
    second = swept(plan, place)
    assert second.reused >= 2 and len(second.rows) == 6 and not second.failed
    assert (place / SWEEP_FILE).exists()


def dies_on_odd(item: int) -> int:
    """For a worker: the kernel takes it."""
    if item % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def raises_on_three(item: int) -> int:
    if item == 3:
        raise ValueError("three")
    return item


def test_a_worker_that_is_killed_costs_its_own_work_and_no_other() -> None:
    with LocalWorkers(2) as workers:
        results = dict(workers.each(dies_on_odd, [0, 1, 2, 3, 4]))
    assert [results[number] for number in (0, 2, 4)] == [0, 2, 4]
    assert all(isinstance(results[number], Died) and "SIGKILL" in results[number].told for number in (1, 3))
    assert not children()


def test_what_work_raises_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ValueError, match="three"), LocalWorkers(1) as workers:
        list(workers.each(raises_on_three, range(6)))
    assert not children()


def process_of(_: int) -> int:
    return os.getpid()


def test_workers_are_replaced_after_so_many_runs() -> None:
    with LocalWorkers(1, runs_a_worker=3) as workers:
        found = [pid for _, pid in workers.each(process_of, list(range(9)))]
    assert len(set(found)) == 3


def test_workers_stay_for_the_next_stage_and_leave_at_the_end() -> None:
    with LocalWorkers(1) as workers:
        found = [pid for _ in range(2) for _, pid in workers.each(process_of, [0])]
        assert len(set(found)) == 1 and children()
    assert not children()


def test_items_are_handed_out_as_they_are_worked_on() -> None:
    asked: list[int] = []

    class Counting(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for item in super().__iter__():
                asked.append(item)
                yield item

    each = LocalWorkers(1).each(process_of, Counting(range(100)))
    next(each)
    assert len(asked) <= 4
    each.close()  # type: ignore[attr-defined]
    assert not children()
