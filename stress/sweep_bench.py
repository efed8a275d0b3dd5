"""What a sweep costs beside its backtests: ``python -m stress.sweep_bench [RUNS [BARS]]``.

One sweep of so many runs by all cores on a warm store, between two by one worker alone that make a quarter of them
each, so that both meet the same neighbours. Printed are seconds a run, the share of linear scaling, milliseconds of a
worker's time a run beside the backtest and its figures (starting workers, handing out, writing, judging, waiting for
the last run), and memory of parent and workers. Linear is what the backtests alone take by one worker: what a sweep
costs beside them counts against it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

from data.synthetic import SyntheticConfig
from sage.config import BacktestConfig, DataConfig, ModelConfig
from sage.processes import Machine, MachineSample, Sampler
from sage.progress import Silent
from sage.sweep.axes import Axis, spaced
from sage.sweep.ledger import Ledger
from sage.sweep.plan import SweepConfig, plan_of
from sage.sweep.sweep import Swept, sweep
from sage.sweep.workers import LocalWorkers

RUNS, BARS = 200, 20_000
_MB = 1e6


class Memory(Machine):
    """Keeps the largest resident memory of any worker, and the parent's of every sample, in megabytes."""

    def __init__(self) -> None:
        super().__init__(dict, gpu=False)
        self.worker_mb = 0.0
        self.parent_mb: list[float] = []

    def sample(self) -> MachineSample:
        """How things are now."""
        found = super().sample()
        for process in found.processes:
            if process.pid == os.getpid():
                self.parent_mb.append(process.rss_bytes / _MB)
            else:
                self.worker_mb = max(self.worker_mb, process.rss_bytes / _MB)
        return found


def measure(runs: int, workers: int, bars: int, place: Path, first: int) -> tuple[Swept, float]:
    """Sweep so many runs that were never made before; gives back the seconds of all of it."""
    base = BacktestConfig(
        data=DataConfig(synthetic=dataclasses.replace(SyntheticConfig(), bars=bars)),
        model=ModelConfig(store_dir=str(place / "store")),
    )
    # Other values each time: nothing is found done.
    values = spaced((0.05 + 1e-4 * first, 0.25 + 1e-4 * first), max(2, runs), logarithmic=False)
    plan = plan_of(SweepConfig(base, (Axis("sizing.target_volatility", values),)))
    began = time.perf_counter()
    found = sweep(plan, place / f"sweep-{first}", LocalWorkers(workers), Ledger(place / "trials.jsonl"), Silent())
    return found, time.perf_counter() - began


def main(runs: int = RUNS, bars: int = BARS) -> None:
    """Print it."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="sage-sweep-bench-") as name:
        place = Path(name)
        measure(2, 1, bars, place, first=0)  # fills the store
        memory = Memory()
        seconds: list[float] = []
        backtest_s: list[float] = []
        beside: list[float] = []
        meanwhile: list[float] = []
        with Sampler(memory, every_s=1.0):
            for turn, (workers, count) in enumerate([(1, runs // 4), (cores, runs), (1, runs // 4)], 1):
                before = len(memory.parent_mb)
                swept, wall_s = measure(max(2, count), workers, bars, place, first=turn)
                meanwhile = memory.parent_mb[before:] if turn == 2 else meanwhile
                made = len(swept.rows)
                seconds.append(wall_s / made)
                backtest_s.append(sum(row["seconds"] for row in swept.rows) / made)
                beside.append(wall_s * workers / made - backtest_s[-1])
                told = f"{seconds[-1]:.2f} s a run, {backtest_s[-1]:.2f} s a backtest, {1e3 * beside[-1]:.0f} ms beside"
                sys.stderr.write(f"{made} runs by {workers}: {told}\n")
    alone, together = (seconds[0] + seconds[2]) / 2, seconds[1]
    print(f"{runs} runs of {bars:,} bars: {alone:.2f} s a run with one worker, {together:.2f} s with {cores}")
    linear = (backtest_s[0] + backtest_s[2]) / 2 / cores
    print(f"scaling {linear / together:.2f} of linear (target: 0.85 or more)")
    print(f"beside the backtest {1e3 * beside[1]:.0f} ms a run (target: under 150)")
    early, late = meanwhile[len(meanwhile) // 4], meanwhile[int(0.95 * len(meanwhile))]
    print(
        f"parent {early:.0f} MB a quarter into the sweep, {late:.0f} MB before it is judged, "
        f"{max(memory.parent_mb):.0f} MB at most; workers {memory.worker_mb:.0f} MB at most"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
