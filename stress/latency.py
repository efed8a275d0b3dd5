"""How long one bar takes, from bar in to signal out, through the model process, at a constant rate.

The rate is open-loop: bars fall due by the clock, whether or not the last one has been answered, and a latency counts
from the moment its bar was due. A stall is then felt by every bar that it kept waiting (wrk2 and HdrHistogram measure
so). No forecast store is read, and the detector is one of the run's own.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from regime.config import RegimeConfig
from regime.detector import Detector, DetectorState
from regime.errors import ForecastFailed
from regime.forecast import Context
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import EngineKind
from regime.model.random_weights import write_random_checkpoint
from regime.model.weights import ARCHITECTURES
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Level, Signal
from regime.window import BarInput
from sage.percentiles import Latencies
from sage.progress import Progress, Silent
from stress.latency_records import EngineLatency, LatencyConfig, LatencyReport, check
from stress.load import busy_cores
from stress.scratch import scratch_directory
from stress.stream import endless_bars

SLICE_S = 5.0
"""Engines that are compared take turns of this length."""

SETTLING_BARS = 5
"""Bars at the beginning of each turn that are answered and not counted."""

OVERTIME_S = 1.0
"""So long after its turn an engine that cannot keep up is stopped; what it left unanswered counts as it stands."""

FALLBACK_BARS = 2_000
SINGLE_REPEATS, BATCH_REPEATS = 15, 5
QUIET_S = 0.2
_PROBES = 8
_BAR_SECONDS = 3600


def measure(config: LatencyConfig, progress: Progress | None = None) -> LatencyReport:
    """Measure the latency of one or more engines, in turns.

    Raises
    ------
    OptionError
        If the options make no sense.
    ModelUnavailable
        If an engine cannot run the model.
    """
    check(config)
    show = progress or Silent()
    with ExitStack() as stack:
        checkpoint = _checkpoint(config, stack)
        results = [EngineLatency(kind) for kind in config.engines]
        show.stage("starting the model", len(results))
        clients = [_started(checkpoint, config, kind, stack) for kind in config.engines]
        for result, client in zip(results, clients, strict=True):
            result.name, result.note = client.engine, "; ".join(client.notes(config.context_bars))
        show.advance(len(results))
        state, bars = _warmed_up(checkpoint, config, clients, show, stack)
        report = LatencyReport(config, checkpoint, results, {})
        stack.enter_context(busy_cores(config.background))
        _take_turns(config, results, clients, state, bars, show)
        report.fallback = _fallback_levels(config, state, bars, show)
        if len(clients) > 1:
            _model_calls(config, 1, SINGLE_REPEATS, results, clients, show)
        if config.batch_rows:
            _model_calls(config, config.batch_rows, BATCH_REPEATS, results, clients, show)
        if len(clients) > 1:
            report.largest_difference_sd = _largest_difference(config, clients)
        return report


def _checkpoint(config: LatencyConfig, stack: ExitStack) -> Checkpoint:
    if config.architecture is None:
        return find_checkpoint(config.model)
    directory = Path(stack.enter_context(scratch_directory()))
    found = find_checkpoint(
        str(write_random_checkpoint(ARCHITECTURES[config.architecture], config.seed, directory / config.architecture))
    )
    return dataclasses.replace(found, name=f"{config.architecture}, random weights of seed {config.seed}")


def _started(checkpoint: Checkpoint, config: LatencyConfig, kind: EngineKind, stack: ExitStack) -> ModelClient:
    serving = ServingConfig(engine=dataclasses.replace(config.engine, kind=kind))
    client = stack.enter_context(ModelClient(checkpoint, serving))
    client.start()
    return client


def _regime(config: LatencyConfig, level: Level | None = None) -> RegimeConfig:
    return RegimeConfig(
        context_bars=config.context_bars,
        horizon_bars=config.horizon_bars,
        deadline_ms=config.deadline_ms,
        pinned_level=level,
    )


def _detector(
    config: LatencyConfig, client: ModelClient | None, state: DetectorState | None, level: Level | None = None
) -> Detector:
    detector = Detector(_regime(config, level), "BENCH.SIM", _BAR_SECONDS, client)
    if state is not None:
        detector.restore(state)
    return detector


def _warmed_up(
    checkpoint: Checkpoint, config: LatencyConfig, clients: list[ModelClient], show: Progress, stack: ExitStack
) -> tuple[DetectorState, list[BarInput]]:
    """A detector's state with a full window and enough scores for level FULL, and the bars that follow it."""
    stream = endless_bars(config.seed, _BAR_SECONDS)
    regime = _regime(config)
    # The window fills without the model; scores need forecasts, and a horizon to mature.
    filling = _detector(dataclasses.replace(config, deadline_ms=0.0), None, None, Level.SMART)
    for _ in range(config.context_bars + 1):
        filling.step(next(stream))
    scoring_bars = regime.calibration.min_scores + config.horizon_bars + 1
    show.stage("warming up", scoring_bars)
    # The stock engine would take minutes: calibration is the detector's, whoever forecast for it.
    client = clients[0] if config.engines[0] != "stock" else _started(checkpoint, config, "auto", stack)
    scoring = _detector(dataclasses.replace(config, deadline_ms=0.0), client, filling.snapshot())
    for _ in range(scoring_bars):
        scoring.step(next(stream))
        show.advance(1)
    needed = round(config.seconds * config.rate_hz) + FALLBACK_BARS
    needed += SETTLING_BARS * (int(config.seconds / SLICE_S) + 2)
    return scoring.snapshot(), [next(stream) for _ in range(needed)]


def _take_turns(
    config: LatencyConfig,
    results: list[EngineLatency],
    clients: list[ModelClient],
    state: DetectorState,
    bars: list[BarInput],
    show: Progress,
) -> None:
    """Let each engine answer at the given rate for the given time; more than one take turns."""
    turns = max(1, round(config.seconds / SLICE_S)) if len(results) > 1 else 1
    detectors = [_detector(config, client, state) for client in clients]
    streams = [iter(bars) for _ in results]
    show.stage("measuring", round(config.seconds * len(results)))
    began = time.perf_counter()
    for _ in range(turns):
        for result, client, detector, stream in zip(results, clients, detectors, streams, strict=True):
            turn = _Turn(config, result, detector, stream, began)
            before, started = _cpu_seconds(client.pid), time.perf_counter()
            turn.run(config.seconds / turns, show)
            after = _cpu_seconds(client.pid)
            result.turns_s += time.perf_counter() - started
            result.model_cpu_s += after[0] - before[0]
            result.trading_cpu_s += after[1] - before[1]
            result.model_rss_bytes = max(result.model_rss_bytes, _rss_bytes(client.pid))
            result.trading_rss_bytes = max(result.trading_rss_bytes, _rss_bytes(os.getpid()))


@dataclass
class _Turn:
    config: LatencyConfig
    result: EngineLatency
    detector: Detector
    bars: Iterator[BarInput]
    began: float

    def run(self, seconds: float, show: Progress) -> None:
        """Send bars when they are due, and count from when they were."""
        period = 1.0 / self.config.rate_hz
        count = max(1, round(seconds * self.config.rate_hz))
        for _ in range(SETTLING_BARS):
            self.detector.step(next(self.bars))
        start = time.perf_counter() + period
        end = start + count * period
        shown = time.perf_counter()
        for bar in range(count):
            due = start + bar * period
            now = time.perf_counter()
            if now > end + OVERTIME_S:
                self._give_up([now - (start + late * period) for late in range(bar, count)])
                break
            if due > now:
                time.sleep(due - now)
            self._answer(due)
            now = time.perf_counter()
            if now - shown >= 1.0:
                p50 = self.result.latency.at(50.0)
                show.advance(round(now - shown), f"{self.result.kind}: p50 {p50:.1f} ms" if p50 is not None else "")
                shown = now
        finished = time.perf_counter()
        self.result.measured_s += finished - start
        show.advance(round(finished - shown))

    def _answer(self, due: float) -> None:
        result = self.result
        failed_before = self.detector.failures.total()
        answer = self.detector.step(next(self.bars))
        latency = time.perf_counter() - due
        self._count(latency)
        result.samples.append((due - self.began, 1e3 * latency))
        result.levels[answer.level if isinstance(answer, Signal) else Level.EMERGENCY] += 1
        timing = self.detector.last_timing
        if timing.source == "model" and self.detector.failures.total() == failed_before:
            result.model_call.record(timing.model_ms / 1e3)

    def _give_up(self, waited_s: list[float]) -> None:
        for waited in waited_s:
            self._count(waited)
        self.result.unanswered += len(waited_s)

    def _count(self, latency_s: float) -> None:
        config, result = self.config, self.result
        result.latency.record(latency_s)
        result.over_slo += 1e3 * latency_s > config.slo_ms
        result.missed_deadlines += config.deadline_ms > 0 and 1e3 * latency_s > config.deadline_ms


def _fallback_levels(
    config: LatencyConfig, state: DetectorState, bars: list[BarInput], show: Progress
) -> dict[Level, Latencies]:
    """How long the levels take that ask no model, one bar after the other."""
    levels = [level for level in Level if level > Level.BASIC]
    show.stage("fallback levels", len(levels))
    found = {}
    for level in levels:
        detector = _detector(config, None, state, level)
        latencies = found[level] = Latencies()
        for bar in bars[:FALLBACK_BARS]:
            started = time.perf_counter()
            detector.step(bar)
            latencies.record(time.perf_counter() - started)
        show.advance(1)
    return found


def _model_calls(
    config: LatencyConfig,
    rows: int,
    repeats: int,
    results: list[EngineLatency],
    clients: list[ModelClient],
    show: Progress,
) -> None:
    """Time model calls alone, one after the other and the engines in turns; the first one of each is not counted."""
    batch = _windows(config, rows)
    show.stage(f"model calls of {rows} window{'s' if rows > 1 else ''}", repeats * len(results))
    for repeat in range(repeats + 1):
        for result, client in zip(results, clients, strict=True):
            # Torch's threads spin on for a while after a call; the next engine must not pay for that.
            time.sleep(QUIET_S)
            started = time.perf_counter()
            client.forecast(batch, config.horizon_bars, ServingConfig().start_timeout_s)
            if repeat:
                result.calls.setdefault(rows, []).append(time.perf_counter() - started)
                show.advance(1)


def _largest_difference(config: LatencyConfig, clients: list[ModelClient]) -> float | None:
    """Between the two engines' quantiles of the same windows, in standard deviations of the window."""
    probes = _windows(config, _PROBES)
    try:
        ours, other = (client.forecast(probes, config.horizon_bars, 60.0) for client in clients[:2])
    except ForecastFailed:
        return None
    spread = probes.std(axis=1)[:, None, None]
    return float(np.max(np.abs(ours - other) / spread))


def _windows(config: LatencyConfig, rows: int) -> Context:
    rng = np.random.default_rng(config.seed)
    return (0.01 * rng.standard_t(5, size=(rows, config.context_bars))).astype(np.float32)


def _cpu_seconds(pid: int | None) -> tuple[float, float]:
    """CPU time used so far by the model process and by this one."""
    own = time.process_time()
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0, own
    return times.user + times.system, own


def _rss_bytes(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
