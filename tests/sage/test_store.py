"""A backtest and the forecast store: computed once, the same to the bit afterwards, and never a reason to fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regime.signal import BarRejected, Signal
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.results import determinism_hash, tables
from sage.run import BacktestFailed, BacktestRun
from tests.conftest import short_config

BARS = 300
WINDOWS = BARS - 31


def config(place: Path | None, bars: int = BARS, *, store: bool = True) -> BacktestConfig:
    plain = short_config(bars)
    model = dataclasses.replace(plain.model, store=store, store_dir=None if place is None else str(place))
    return dataclasses.replace(plain, model=model)


def hash_of(run: BacktestRun) -> str:
    return determinism_hash(tables(run))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[BacktestRun, Path]:
    place = tmp_path_factory.mktemp("store")
    return run_backtest(config(place)), place


def test_a_first_run_computes_every_forecast(first: tuple[BacktestRun, Path]) -> None:
    run, _ = first
    assert (run.forecasts_computed, run.forecasts_reused) == (WINDOWS, 0)
    assert not run.notes


def test_a_second_run_computes_none_starts_no_model_and_has_the_same_hash(first: tuple[BacktestRun, Path]) -> None:
    run, place = first
    again = run_backtest(config(place))
    assert (again.forecasts_computed, again.forecasts_reused) == (0, WINDOWS)
    assert again.seconds["start_model"] == 0.0
    assert again.model_peak_rss_bytes == 0
    assert again.engine_name == run.engine_name
    assert hash_of(again) == hash_of(run)


def test_a_longer_run_computes_what_is_new(first: tuple[BacktestRun, Path]) -> None:
    run, place = first
    longer = run_backtest(config(place, BARS + 40))
    assert (longer.forecasts_computed, longer.forecasts_reused) == (40, WINDOWS)
    assert [signal.ts_event for signal in longer.signals[:BARS]] == [signal.ts_event for signal in run.signals]
    assert longer.signals[:BARS] == run.signals


def test_without_a_store_nothing_is_kept_and_the_hash_is_the_same(
    first: tuple[BacktestRun, Path], tmp_path: Path
) -> None:
    run, _ = first
    plain = run_backtest(config(tmp_path / "store", store=False))
    assert not (tmp_path / "store").exists()
    assert (plain.forecasts_computed, plain.forecasts_reused) == (WINDOWS, 0)
    assert hash_of(plain) == hash_of(run)


def test_a_damaged_store_is_noted_set_aside_and_made_good(first: tuple[BacktestRun, Path], tmp_path: Path) -> None:
    run, _ = first
    run_backtest(config(tmp_path))
    for part in tmp_path.rglob("part-*.parquet"):
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 0x40
        part.write_bytes(content)
    damaged = run_backtest(config(tmp_path))
    assert hash_of(damaged) == hash_of(run)
    assert any("damaged" in note for note in damaged.notes)
    assert list(tmp_path.rglob("*.damaged"))
    healed = run_backtest(config(tmp_path))
    assert (healed.forecasts_computed, healed.notes) == (0, [])
    assert hash_of(healed) == hash_of(run)


def test_a_store_that_cannot_be_written_is_noted_and_the_run_goes_on(
    first: tuple[BacktestRun, Path], tmp_path: Path
) -> None:
    run, _ = first
    (tmp_path / "file").write_text("in the way")
    noted = run_backtest(config(tmp_path / "file"))
    assert any("could not be kept" in note for note in noted.notes)
    assert hash_of(noted) == hash_of(run)


def answers(run: BacktestRun) -> list[Signal | BarRejected]:
    return [*run.signals, *run.rejections]


def test_recorded_signals_make_the_same_trades(first: tuple[BacktestRun, Path]) -> None:
    run, place = first
    recorded = run_backtest(config(place), recorded=answers(run))
    assert recorded.signals == run.signals
    assert recorded.ledger.fills == run.ledger.fills
    assert hash_of(recorded) == hash_of(run)


def test_a_recording_of_other_bars_is_refused(first: tuple[BacktestRun, Path]) -> None:
    run, place = first
    with pytest.raises((ValueError, BacktestFailed)):
        run_backtest(config(place), recorded=answers(run)[1:])
