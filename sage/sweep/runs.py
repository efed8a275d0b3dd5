"""One run of a sweep: the backtest itself, what it leaves on the disk, and its row in the table."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import OptionError
from data.market import Market
from data.places import sha256_of
from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineChoice, EngineSpec
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.serving.process import ModelProcess
from sage.backtest import run_backtest
from sage.config import as_dict
from sage.performance import daily_returns, trading_days, until_ruin
from sage.results import Tables, of_window, summary, tables
from sage.rig import Rig
from sage.run import BacktestRun
from sage.rundir import manifest_of, whole, write_json
from sage.sweep.ledger import DailyReturns
from sage.sweep.places import here, is_remote, local_path, mirror_of, without_secrets
from sage.sweep.plan import Task, asked, market_key, market_of
from sage.sweep.shuffled import Moments, shuffled_moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RUNS = "runs"
ERROR_FILE, MANIFEST = "error.json", "manifest.json"


@dataclass(frozen=True)
class Sources:
    """Digests of the bars, of the checkpoint (empty where no model was asked) and of the user's own code, by option."""

    bars: str
    checkpoint: str
    own: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    ``error`` is empty where it went well. ``figures`` is its summary, ``sources`` what it was made from, ``days``
    (since the epoch) and ``returns`` are those of the bars in which it traded, and ``shuffled`` what its positions
    would have earned at other times. ``overhead_s`` is the time that went by in its process beside the backtest and its
    figures.
    """

    key: str
    error: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    sources: Sources | None = None
    days: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    returns: FloatArray = field(default_factory=lambda: np.empty(0))
    shuffled: Moments | None = None
    overhead_s: float = 0.0


class StoreRig(Rig):
    """Reads forecasts from the store and starts no model: one that is missing fails the run.

    ``engine_name`` is the engine that has made them, where that is known.
    """

    def __init__(self, engine_name: str = "") -> None:
        self._engine_name = engine_name

    def engine(self, spec: EngineSpec) -> EngineChoice:
        """The engine that would run; the one that has run if a checkpoint turned out not to suit that one."""
        choice = super().engine(spec)
        return dataclasses.replace(choice, name=self._engine_name) if self._engine_name else choice

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """A client that cannot start its process."""
        return ModelClient(checkpoint, serving, self.stopwatch, _refuse)


def _refuse(*_: object) -> ModelProcess:
    raise ModelUnavailable("forecasts that this run needs are not in the store, and no run of a sweep starts a model")


def run_task(task: Task, place: str, engines: Mapping[str, str]) -> Outcome:
    """Run one task and write ``place/runs/KEY``; whatever goes wrong is in the outcome, and in ``error.json`` there.

    The place may be anything that fsspec reaches; ``engines`` names the engines whose forecasts are in the store, by
    :func:`sage.sweep.plan.asked`. What is there whole is not run again: another node may have done it before it was
    lost. Raises nothing but KeyboardInterrupt: what else a run raises, be it ever so base, is that run's error.
    """
    began = time.perf_counter()
    try:
        directory = local_path(place) / RUNS / task.key
        there = read_outcome(directory)
        if there is not None and _stands(place, task.key, directory):
            return there
        outcome = _ran(task, directory, engines.get(asked(task.config), ""), began)
        if is_remote(place):
            mirror_of(place).publish(f"{RUNS}/{task.key}", last=MANIFEST)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        told = without_secrets(f"{type(error).__name__}: {error}")
        _write_error(task, place, told, traceback.format_exc())
        return Outcome(task.key, told, overhead_s=time.perf_counter() - began)
    return outcome


def _stands(place: str, key: str, directory: Path) -> bool:
    """Whether the place itself has this result: a mirror keeps also what was removed there, as made from other bars."""
    if not is_remote(place):
        return True
    return mirror_of(place).read(f"{RUNS}/{key}/{MANIFEST}") == (directory / MANIFEST).read_bytes()


def read_outcome(directory: Path) -> Outcome | None:
    """What an earlier run left; None where it left nothing, or nothing whole, or an error.

    The manifest comes last and holds the digests of the others: what was altered or cut off is nothing.
    """
    try:
        figures = json.loads((directory / "summary.json").read_text())
        manifest = json.loads((directory / MANIFEST).read_text())
        if any(sha256_of(directory / name) != digest for name, digest in manifest["files"].items()):
            return None
        table = pd.read_parquet(directory / "days.parquet")
        with (directory / "shuffled.npy").open("rb") as file:
            moments = Moments(np.load(file, allow_pickle=False))
        return Outcome(
            key=directory.name,
            figures=figures,
            sources=sources_of(manifest),
            days=table["day"].to_numpy(),
            returns=table["return"].to_numpy(),
            shuffled=moments,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def sources_of(manifest: Mapping[str, Any]) -> Sources:
    """What a run was made from, as its manifest has it."""
    used = manifest["checkpoint"]
    checkpoint = "" if used is None else used["sha256"] + used["network"]
    own = {option: source["sha256"] for option, source in manifest["own"].items()}
    return Sources(manifest["data"]["sha256"], checkpoint, own)


def _ran(task: Task, directory: Path, engine: str, began: float) -> Outcome:
    market, from_ns = window_of(market_of(market_key(task.config)), task)
    rig = StoreRig(engine)
    try:
        run = run_backtest(here(task.config), rig=rig, market=market, trade_from_ns=from_ns)
    except ModelUnavailable:
        # What another machine has put into the store since this process looked is found now.
        if not is_remote(task.config.model.store_dir or ""):
            raise
        run = run_backtest(here(task.config, anew=True), rig=rig, market=market, trade_from_ns=from_ns)
    if run.stopped is not None:
        raise run.stopped
    results_began = time.perf_counter()
    tabled = tables(run)
    figures = _figures(run, tabled, from_ns)
    backtest_s = run.seconds["total"] + time.perf_counter() - results_began
    figures["seconds"] |= {"total": round(backtest_s, 3)}
    equity = tabled.equity[tabled.equity["ts_ns"] >= from_ns]
    stamps, worth = equity["ts_ns"].to_numpy(), until_ruin(equity["equity"].to_numpy())
    sunday = run.market.kind.opens_on_sunday
    returns = daily_returns(stamps, worth, run.config.cash, opens_on_sunday=sunday)
    days = np.unique(trading_days(stamps, opens_on_sunday=sunday))[: len(returns)]
    moments = shuffled_moments(equity, run.cost_rates.trade_rate, opens_on_sunday=sunday)
    manifest = manifest_of(run) | {"sweep": _told(task)}
    _write(directory, manifest, figures, DailyReturns(days, returns), moments)
    overhead_s = time.perf_counter() - began - backtest_s
    return Outcome(task.key, "", figures, sources_of(manifest), days, returns, moments, overhead_s)


def window_of(market: Market, task: Task) -> tuple[Market, int]:
    """The bars that a run sees, and from when on it trades, in nanoseconds."""
    window = task.window
    if window is None:
        return market, 0
    return market.part(window.first, window.stop), int(market.bars.ts_close_ns[window.start])


def _figures(run: BacktestRun, tabled: Tables, from_ns: int) -> dict[str, Any]:
    """A run's summary; with a window, what depends on the bars is of its window alone."""
    figures = dict(summary(run, tabled))
    if from_ns:
        rows, of_rows = of_window(run, tabled, from_ns)
        figures |= of_rows
        figures["bars"] = len(rows)
        figures["average_exposure"] = float(rows["exposure"].abs().mean()) if len(rows) else 0.0
    return figures


def _write(
    directory: Path, manifest: dict[str, Any], figures: dict[str, Any], found: DailyReturns, moments: Moments
) -> None:
    _clear(directory)
    try:
        with whole(directory) as partial:
            write_json(partial / "summary.json", figures)
            table = pd.DataFrame({"day": found.days, "return": found.returns})
            table.to_parquet(partial / "days.parquet", index=False)
            with (partial / "shuffled.npy").open("wb") as file:
                np.save(file, moments.sums)
            manifest["files"] = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
            write_json(partial / MANIFEST, manifest)
    except OSError:
        # Somebody else may have been quicker with the same run, whose result is as good.
        if read_outcome(directory) is None:
            raise


def _write_error(task: Task, place: str, told: str, trace: str) -> None:
    # The outcome tells of it all the same; that nothing can be written shows with the table.
    with contextlib.suppress(OSError, OptionError):
        directory = local_path(place) / RUNS / task.key
        if read_outcome(directory) is not None:
            return
        _clear(directory)
        document = {"error": told, "trace": trace, "sweep": _told(task), "config": as_dict(task.config)}
        with whole(directory) as partial:
            (partial / ERROR_FILE).write_text(without_secrets(json.dumps(document, indent=2, default=str)) + "\n")
        if is_remote(place):
            mirror_of(place).publish(f"{RUNS}/{task.key}")


def _clear(directory: Path) -> None:
    """Make way for what takes the place of an error, or of what was damaged."""
    shutil.rmtree(directory, ignore_errors=True)


def _told(task: Task) -> dict[str, Any]:
    window = None if task.window is None else dataclasses.asdict(task.window)
    return {"key": task.key, "values": task.values, "period": str(task.period), "window": window}
