"""What an ingest takes beside pyarrow alone: ``python -m stress.ingest_bench [ROWS]``.

A CSV of minute klines is read by pyarrow, all at once, and the columns of a bar are written back as Parquet; beside
it, in turns, the same file is ingested: recognised, checked row by row, and written as NautilusTrader's fixed-point
numbers. Each in a process of its own, whose peak of memory is told; and once more with four times the rows, for what
grows with the file.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

from data.ingest import IngestRequest, ingest
from data.synthetic import Simulation, SyntheticConfig

ROWS = 2_000_000
ROUNDS = 9
_PART = 100_000
_BAR_COLUMNS = [f"f{number}" for number in range(6)]

Measured = tuple[float, float]
"""Seconds, and the peak of resident memory in megabytes."""


def write_klines(path: Path, rows: int) -> None:
    """Simulated minute bars in Binance's form: twelve columns, no header."""
    # Minutes move less than the hours that are usual: two million of those would leave no price that can be held.
    simulation = Simulation(SyntheticConfig(bar_seconds=60, volatility_low=0.0004, volatility_high=0.001))
    with path.open("w") as file:
        while rows:
            bars = simulation.go_on(min(rows, _PART)).bars
            rows -= len(bars)
            opened = bars.ts_close_ns // 10**6 - 60_000
            for time_ms, o, h, low, c, v in zip(opened.tolist(), *bars.columns()[1:], strict=True):
                file.write(f"{time_ms},{o:.2f},{h:.2f},{low:.2f},{c:.2f},{v:.5f},{time_ms + 59_999},1.0,5,0.5,0.5,0\n")


def by_pyarrow(source: Path, out: Path) -> Measured:
    """Read and write back."""
    return _measured(lambda: _copy(source, out))


def by_sage(source: Path, out: Path) -> Measured:
    """Ingest."""
    return _measured(lambda: ingest(IngestRequest([source], out, "BTCUSDT.BENCH")))


def main(rows: int = ROWS) -> None:
    """Print it."""
    with tempfile.TemporaryDirectory(prefix="sage-ingest-bench-") as name:
        place = Path(name)
        sources = {count: place / f"klines-{count}.csv" for count in (rows, 4 * rows)}
        for count, source in sources.items():
            write_klines(source, count)
        theirs: list[Measured] = []
        ours: list[Measured] = []
        for turn in range(ROUNDS):
            theirs.append(_alone(by_pyarrow, sources[rows], place / f"{turn}.parquet"))
            ours.append(_alone(by_sage, sources[rows], place / f"catalog-{turn}"))
            sys.stderr.write(f"turn {turn + 1}: pyarrow {theirs[-1][0]:.2f} s, ingest {ours[-1][0]:.2f} s\n")
        more = _alone(by_sage, sources[4 * rows], place / "catalog-more")
    alone, beside = (statistics.median(seconds for seconds, _ in side) for side in (theirs, ours))
    print(f"{rows:,} rows: pyarrow {alone:.2f} s, ingest {beside:.2f} s ({rows / beside:,.0f} rows/s)")
    print(f"rate beside pyarrow's {alone / beside:.2f} (target: 0.5 or more)")
    peak, for_more = max(peak for _, peak in ours), f"{more[1]:.0f} MB for {4 * rows:,}"
    print(f"peak memory {peak:.0f} MB for {rows:,} rows (pyarrow: {theirs[0][1]:.0f} MB), {for_more}")


def _copy(source: Path, out: Path) -> None:
    options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(source, read_options=options).select(_BAR_COLUMNS), out)


def _measured(work: Callable[[], object]) -> Measured:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _alone(work: Callable[[Path, Path], Measured], source: Path, out: Path) -> Measured:
    """In a process of its own, which has everything imported before it looks at the clock."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(work, source, out).result()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
