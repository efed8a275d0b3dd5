"""Replays: the hash of a run from its directory, the first difference, and directories that are not what they were."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from regime.signal import BarRejected, Level, Reason
from sage import rundir
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.replay import Replay, read_recording, replay
from sage.results import determinism_hash_of
from tests.conftest import short_config
from tests.sage.test_plugins import run_flips


def without_model(bars: int = 400) -> BacktestConfig:
    config = short_config(bars)
    return dataclasses.replace(config, regime=dataclasses.replace(config.regime, pinned_level=Level.SMART))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, not to be changed."""
    directory = tmp_path_factory.mktemp("replay") / "run"
    rundir.write(run_backtest(without_model()), directory)
    return directory


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "run"))


def replayed(directory: Path) -> Replay:
    return replay(read_recording(directory))


def edit_json(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_replay_gives_the_hash_of_the_run(kept: Path) -> None:
    found = replayed(kept)
    assert found.same and found.difference is None and not found.notes
    assert found.hash == json.loads((kept / "summary.json").read_text())["determinism_hash"]
    assert {timing.source for timing in found.run.timings} == {"recording"}


def test_rejected_bars_and_time_outs_are_given_again(tmp_path: Path) -> None:
    config = dataclasses.replace(short_config(500), regime=dataclasses.replace(short_config().regime, deadline_ms=3.2))
    run = run_backtest(config)
    assert run.forecast_failures.get(Reason.TIMEOUT)
    answers = [*run.signals]
    for row in (100, 101, 300):
        signal = answers[row]
        answers[row] = BarRejected(signal.instrument_id, "duplicate", signal.ts_event, signal.ts_init)  # type: ignore[call-overload]
    again = run_backtest(config, recorded=answers)
    assert len(again.rejections) == 3
    rundir.write(again, tmp_path / "run")
    recording = read_recording(tmp_path / "run")
    assert recording.answers == answers
    assert replay(recording).hash == determinism_hash_of(again)


def test_a_users_strategy_is_replayed_and_its_changes_are_told(tmp_path: Path) -> None:
    rundir.write(run_flips(), tmp_path / "run")
    assert replayed(tmp_path / "run").same
    edit_json(tmp_path / "run" / "manifest.json", lambda found: found["own"]["--strategy"].update(sha256="0" * 64))
    found = replayed(tmp_path / "run")
    assert found.same and "has changed since the run: the sha256" in found.notes[0]


def test_a_run_that_a_users_strategy_ended_is_replayed_to_its_end(tmp_path: Path) -> None:
    rundir.write(run_flips(raise_in="on_bar", raise_at=77), tmp_path / "run")
    found = replayed(tmp_path / "run")
    assert found.same and found.run.stopped is not None and len(found.run.timings) == 77
    # Mended since: what ended the run is the difference, and the first one.
    edit_json(tmp_path / "run" / "manifest.json", lambda found: found["config"]["own"]["params"].clear())
    found = replayed(tmp_path / "run")
    assert not found.same and found.difference is not None and found.difference.table == "partial"


@pytest.mark.parametrize(
    ("change", "table", "column"),
    [
        (lambda found: found["config"]["costs"].update(fee_bps=6.0), "fills", "commission"),
        (lambda found: found["config"]["costs"].update(latency_ms=0.0), "fills", "ts_ns"),
        (lambda found: found["config"].update(cash=50_000.0), "orders", "quantity"),
    ],
    ids=["fee", "latency", "cash"],
)
def test_the_first_difference_is_named(copy: Path, change: Callable[[dict], None], table: str, column: str) -> None:  # type: ignore[type-arg]
    edit_json(copy / "manifest.json", change)
    found = replayed(copy)
    assert not found.same and found.difference is not None
    difference = found.difference
    assert (difference.table, difference.row, difference.column) == (table, 0, column)
    recorded = pd.read_parquet(copy / f"{table}.parquet")
    assert difference.first == recorded[column].iloc[0] != difference.second
    assert difference.ts_ns <= recorded["ts_ns"].iloc[0]


def test_changed_bars_are_refused_with_what_differs(copy: Path) -> None:
    edit_json(copy / "manifest.json", lambda found: found["config"]["data"]["synthetic"].update(bars=390))
    with pytest.raises(DataError, match=r"there were 400 until .*, and are 390 until .*is not there any more"):
        replayed(copy)


def test_the_first_close_that_differs_is_named(copy: Path) -> None:
    edit_json(copy / "manifest.json", lambda found: found["config"].update(seed=8))
    closes = pd.read_parquet(copy / "equity.parquet")["close"]
    with pytest.raises(DataError, match=f"the close at 2024-01-01T01:00:00Z was {closes.iloc[0]:.12g}, and is"):
        replayed(copy)


def test_a_volume_that_differs_is_noticed_too(copy: Path) -> None:
    edit_json(copy / "manifest.json", lambda found: found["data"].update(sha256="0" * 64))
    with pytest.raises(DataError, match="an open, high, low or volume is not"):
        replayed(copy)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4 : len(raw) // 4 + 64] = b"\xff" * 64
    path.write_bytes(raw)


def change_a_value(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame.iloc[5, frame.columns.get_loc("confidence")] = 0.123  # type: ignore[index]
    frame.to_parquet(path, index=False)


def other_columns(path: Path) -> None:
    pd.read_parquet(path).drop(columns="uncertainty").to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("manifest.json", Path.unlink, "is missing"),
        ("manifest.json", truncate, "is damaged"),
        ("manifest.json", lambda path: path.write_text("[1]"), "no JSON object"),
        ("manifest.json", lambda path: edit_json(path, lambda found: found.pop("own")), "not as it was written"),
        ("manifest.json", lambda path: edit_json(path, lambda found: found.update(schema_version=1)),
         "a run of format 1, this version of SAGE replays format 2"),
        ("manifest.json", lambda path: edit_json(path, lambda found: found.pop("schema_version")), "format None"),
        ("manifest.json", lambda path: edit_json(path, lambda found: found["config"].update(cash="much")), "cash"),
        ("summary.json", Path.unlink, "is missing"),
        ("manifest.json", lambda path: edit_json(path, lambda found: found.pop("files")), "not as it was written"),
        ("summary.json", truncate, "is damaged"),
        ("summary.json", lambda path: edit_json(path, lambda found: found.update(sharpe=9.9)), "altered or damaged"),
        ("signals.parquet", Path.unlink, "is missing"),
        ("signals.parquet", spoil, "altered or damaged"),
        ("signals.parquet", change_a_value, "altered or damaged"),
        ("rejections.parquet", Path.unlink, "is missing"),
        ("timing.parquet", Path.unlink, "is missing"),
        ("weights.parquet", truncate, "altered or damaged"),
        ("report.html", lambda path: path.write_text("<p>all is well"), "altered or damaged"),
    ],
)  # fmt: skip
def test_a_damaged_run_directory_is_refused_by_file(
    copy: Path, file: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy / file)
    with pytest.raises(DataError, match=message) as found:
        replayed(copy)
    assert str(copy / file) in str(found.value) or "manifest.json" in str(found.value)
    assert "sage backtest" in str(found.value)


def sign_again(directory: Path) -> None:
    """Let the manifest say what the files are now."""
    now = {path.name: rundir.sha256_of(path) for path in directory.iterdir() if path.name != "manifest.json"}
    edit_json(directory / "manifest.json", lambda found: found.update(files=now))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("signals.parquet", truncate, "is damaged"),
        ("signals.parquet", change_a_value, "its tables give the hash"),
        ("signals.parquet", other_columns, "has no column uncertainty"),
        ("fills.parquet", truncate, "is damaged"),
        ("fills.parquet", lambda path: path.write_bytes(b""), "is damaged"),
    ],
)
def test_tables_that_are_none_are_refused_though_the_manifest_knows_them(
    copy: Path, file: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy / file)
    sign_again(copy)
    with pytest.raises(DataError, match=message) as found:
        replayed(copy)
    assert "sage backtest" in str(found.value)


def test_signals_of_another_run_are_refused(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rundir.write(run_backtest(dataclasses.replace(without_model(), seed=9)), other)
    # All of its tables, hash included: only the stamps could tell, were it not for the closes.
    for name in ("signals", "orders", "fills", "positions"):
        shutil.copy(other / f"{name}.parquet", copy)
    shutil.copy(other / "summary.json", copy)
    sign_again(copy)
    found = replayed(copy)
    assert not found.same
    shifted = pd.read_parquet(copy / "signals.parquet").assign(ts_event=lambda frame: frame["ts_event"] + 1)
    shifted.to_parquet(copy / "signals.parquet", index=False)
    sign_again(copy)
    with pytest.raises(DataError, match="altered"):
        replayed(copy)


def test_unbounded_and_missing_numbers_survive_the_table(kept: Path) -> None:
    recording = read_recording(kept)
    emergencies = [signal for signal in recording.answers if getattr(signal, "level", None) is Level.EMERGENCY]
    assert emergencies and all(np.isinf(signal.interval_high) for signal in emergencies)  # type: ignore[union-attr]
