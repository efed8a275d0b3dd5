"""One run of a sweep: the backtest itself, what it leaves on the disk, and its row in the table."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.market import Market
from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.serving.process import ModelProcess
from sage.backtest import run_backtest
from sage.config import as_dict
from sage.earnings import earnings
from sage.performance import daily_returns, until_ruin
from sage.results import Tables, summary, tables
from sage.rig import Rig
from sage.run import BacktestRun
from sage.rundir import manifest_of, sha256_of, whole, write_json
from sage.sweep.places import here, is_remote, local_path, mirror_of
from sage.sweep.plan import Task, market_key, market_of
from sage.sweep.shuffled import Moments, shuffled_moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RUNS = "runs"
ERROR_FILE, MANIFEST = "error.json", "manifest.json"
_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    ``error`` is empty where it went well. ``figures`` is its summary, ``days`` (since the epoch) and ``returns`` are
    those of the bars in which it traded, and ``shuffled`` what its positions would have earned at other times.
    ``overhead_s`` is the time that went by beside the backtest itself.
    """

    key: str
    error: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    data_sha256: str = ""
    days: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    returns: FloatArray = field(default_factory=lambda: np.empty(0))
    shuffled: Moments | None = None
    overhead_s: float = 0.0


class StoreRig(Rig):
    """Reads forecasts from the store and starts no model: one that is missing fails the run."""

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """A client that cannot start its process."""
        return ModelClient(checkpoint, serving, self.stopwatch, _refuse)


def _refuse(*_: object) -> ModelProcess:
    raise ModelUnavailable("forecasts that this run needs are not in the store, and no run of a sweep starts a model")


def run_task(task: Task, place: str) -> Outcome:
    """Run one task and write ``place/runs/KEY``; whatever goes wrong is in the outcome, and in ``error.json`` there.

    The place may be anything that fsspec reaches. Never raises but for what ends the process.
    """
    began = time.perf_counter()
    directory = local_path(place) / RUNS / task.key
    try:
        outcome = _ran(task, directory, began)
        if is_remote(place):
            mirror_of(place).publish(f"{RUNS}/{task.key}", last=MANIFEST)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        _write_error(directory, task, told, traceback.format_exc())
        return Outcome(task.key, told, overhead_s=time.perf_counter() - began)
    return outcome


def read_outcome(directory: Path) -> Outcome | None:
    """What an earlier run left; None where it left nothing, or nothing whole, or an error."""
    try:
        figures = json.loads((directory / "summary.json").read_text())
        manifest = json.loads((directory / MANIFEST).read_text())
        table = pd.read_parquet(directory / "days.parquet")
        with (directory / "shuffled.npy").open("rb") as file:
            moments = Moments(np.load(file, allow_pickle=False))
        return Outcome(
            key=directory.name,
            figures=figures,
            data_sha256=manifest["data"]["sha256"],
            days=table["day"].to_numpy(),
            returns=table["return"].to_numpy(),
            shuffled=moments,
        )
    except (OSError, ValueError, KeyError):
        return None


def _ran(task: Task, directory: Path, began: float) -> Outcome:
    market, from_ns = window_of(market_of(market_key(task.config)), task)
    try:
        run = run_backtest(here(task.config), rig=StoreRig(), market=market, trade_from_ns=from_ns)
    except ModelUnavailable:
        # What another machine has put into the store since this process looked is found now.
        if not is_remote(task.config.model.store_dir or ""):
            raise
        config = here(task.config, anew=True)
        run = run_backtest(config, rig=StoreRig(), market=market, trade_from_ns=from_ns)
    if run.stopped is not None:
        raise run.stopped
    tabled = tables(run)
    figures = _figures(run, tabled, from_ns)
    equity = tabled.equity[tabled.equity["ts_ns"] >= from_ns]
    stamps, worth = equity["ts_ns"].to_numpy(), until_ruin(equity["equity"].to_numpy())
    returns = daily_returns(stamps, worth, run.config.cash)
    days = np.unique((stamps - 1) // _DAY_NS)[: len(returns)]
    moments = shuffled_moments(equity, run.cost_rates.trade_rate)
    _write(run, task, directory, figures, days, returns, moments)
    overhead_s = time.perf_counter() - began - run.seconds["total"]
    return Outcome(task.key, "", figures, market.bars.sha256(), days, returns, moments, overhead_s)


def window_of(market: Market, task: Task) -> tuple[Market, int]:
    """The bars that a run sees, and from when on it trades, in nanoseconds."""
    window = task.window
    if window is None:
        return market, 0
    return market.part(window.first, window.stop), int(market.bars.ts_close_ns[window.start])


def _figures(run: BacktestRun, tabled: Tables, from_ns: int) -> dict[str, Any]:
    figures = dict(summary(run, tabled))
    if from_ns:
        rows = tabled.equity[tabled.equity["ts_ns"] >= from_ns].reset_index(drop=True)
        figures |= earnings(run, rows)
    return figures


def _write(
    run: BacktestRun, task: Task, directory: Path, figures: dict[str, Any], days: IntArray, returns: FloatArray,
    moments: Moments,
) -> None:  # fmt: skip
    _clear(directory)
    with whole(directory) as partial:
        write_json(partial / "summary.json", figures)
        pd.DataFrame({"day": days, "return": returns}).to_parquet(partial / "days.parquet", index=False)
        with (partial / "shuffled.npy").open("wb") as file:
            np.save(file, moments.sums)
        manifest = manifest_of(run) | {"sweep": _told(task)}
        manifest["files"] = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        write_json(partial / MANIFEST, manifest)


def _write_error(directory: Path, task: Task, told: str, trace: str) -> None:
    try:
        _clear(directory)
        with whole(directory) as partial:
            document = {"error": told, "trace": trace, "sweep": _told(task), "config": as_dict(task.config)}
            write_json(partial / ERROR_FILE, document)
    except OSError:
        # The outcome tells of it all the same; that nothing can be written shows with the table.
        return


def _clear(directory: Path) -> None:
    """Make way for what takes the place of an error, or of what was damaged."""
    if directory.exists():
        for path in directory.iterdir():
            path.unlink()


def _told(task: Task) -> dict[str, Any]:
    window = None if task.window is None else dataclasses.asdict(task.window)
    return {"key": task.key, "values": task.values, "period": str(task.period), "window": window}
