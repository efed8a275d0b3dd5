"""Record the resident memory of a real process that repeats the same work: ``python -m tests.stress.soak.recorder``.

``recorder KIND MINUTES FILE`` repeats segments of equal work in this very process, and writes down its resident
memory at equal points of each. The traces beside this file were made so; one minute here stands for one hour in the
tests. Kinds are ``arrays`` (numpy arrays of many sizes come and go) and ``churn`` (texts and dictionaries do),
``native`` and ``objects`` (the same with a leak of ``LEAK_MB_PER_MINUTE``), and ``backtests`` (the trading chain on
1,000 simulated bars again and again, with recorded signals, on a machine that was busy for the first four minutes).
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from sage.backtest import load_market, run_backtest
from tests.conftest import short_config

LEAK_MB_PER_MINUTE = 20.0
PAGE = 4096
STEPS = 8
"""Samples in each segment."""
STEP_S = 0.12
"""Time between two samples at least."""

Work = Callable[[Callable[[], None]], None]


def main(kind: str, minutes: float, file: Path) -> None:
    """Record one trace."""
    process = psutil.Process()
    began = time.perf_counter()
    at_s: list[float] = []
    rss: list[int] = []
    phases: list[int] = []
    segment: list[int] = []

    def sample() -> None:
        pause = STEP_S - (time.perf_counter() - began - (at_s[-1] if at_s else 0.0))
        if kind != "backtests":
            time.sleep(max(0.0, pause))
        at_s.append(time.perf_counter() - began)
        rss.append(process.memory_info().rss)
        phases.append(len(segment))
        segment.append(0)

    work = _WORK[kind]()
    while time.perf_counter() - began < 60.0 * minutes:
        segment.clear()
        work(sample)
    np.savez_compressed(
        file,
        milliseconds=np.diff(np.array(at_s) * 1e3, prepend=0.0).round().astype(np.uint16),
        pages=np.diff(np.array(rss) // PAGE, prepend=0).astype(np.int32),
        phase=np.array(phases, dtype=np.uint8),
    )


def _arrays() -> Work:
    rng = np.random.default_rng(1)
    kept: list[np.ndarray] = [np.zeros(1)] * 60

    def work(sample: Callable[[], None]) -> None:
        held = []
        for _ in range(STEPS):
            for _ in range(20):
                kept[int(rng.integers(60))] = np.ones(int(rng.lognormal(10.0, 1.3)))
            held.append(np.ones(200_000))
            sample()

    return work


def _churn() -> Work:
    rng = np.random.default_rng(2)

    def work(sample: Callable[[], None]) -> None:
        rows: list[dict[str, object]] = []
        for _ in range(STEPS):
            rows += [{"a": str(value), "b": [value] * 3} for value in rng.random(int(rng.integers(500, 1500)))]
            json.loads(json.dumps(rows))
            sample()

    return work


def _objects() -> Work:
    lost: list[object] = []
    inner = _churn()
    credit = [time.perf_counter()]

    def work(sample: Callable[[], None]) -> None:
        def leaking() -> None:
            sample()
            now = time.perf_counter()
            size = (now - credit[0]) / 60.0 * LEAK_MB_PER_MINUTE * 2**20
            lost.extend({"bar": number, "text": str(number)} for number in range(int(size / 280)))
            credit[0] = now

        inner(leaking)

    return work


def _native() -> Work:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    inner = _arrays()
    credit = [time.perf_counter()]

    def work(sample: Callable[[], None]) -> None:
        def leaking() -> None:
            sample()
            now = time.perf_counter()
            size = int((now - credit[0]) / 60.0 * LEAK_MB_PER_MINUTE * 2**20)
            ctypes.memset(libc.malloc(size), 1, size)
            credit[0] = now

        inner(leaking)

    return work


class _Shows:
    """Takes a sample each hundred bars of the engine."""

    def __init__(self, sample: Callable[[], None]) -> None:
        self._sample = sample
        self._bars = 0
        self._engine = False

    def stage(self, name: str, total: int) -> None:
        self._engine = total >= 500
        self._bars = 0

    def advance(self, steps: int, note: str = "") -> None:
        before, self._bars = self._bars, self._bars + steps
        if self._engine and self._bars // 125 > before // 125:
            self._sample()


def _backtests() -> Work:
    config = short_config(1000)
    first = run_backtest(config)
    answers = sorted([*first.signals, *first.rejections], key=lambda answer: answer.ts_event)
    market = load_market(config)

    def work(sample: Callable[[], None]) -> None:
        run_backtest(config, progress=_Shows(sample), recorded=answers, market=market)
        gc.collect()

    return work


_WORK: dict[str, Callable[[], Work]] = {
    "arrays": _arrays,
    "churn": _churn,
    "objects": _objects,
    "native": _native,
    "backtests": _backtests,
}

if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
