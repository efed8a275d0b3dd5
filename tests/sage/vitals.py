"""Vitals in which everything has a value."""

from __future__ import annotations

from regime.alerts import Alert, Severity
from sage.percentiles import Latencies
from sage.processes import MachineSample, ProcessSample
from sage.vitals import LatencyFigures, Vitals

MIB = 1 << 20


def latency(answers: int, seconds: float = 0.02) -> LatencyFigures:
    found = Latencies()
    for _ in range(answers):
        found.record(seconds)
    return LatencyFigures.of(found)


def process(role: str, pid: int, cpu_s: float = 1.5) -> ProcessSample:
    return ProcessSample(role, pid, 200 * MIB, 150 * MIB, 10 * MIB, 20, 4, cpu_s)


def busy() -> Vitals:
    """A run in the middle of it, with a GPU, a breaker half open and two alerts."""
    figures = latency(20_000)
    return Vitals(
        ts_ns=1_700_000_000 * 10**9,
        elapsed_s=300.0,
        seconds_total=3_600.0,
        bars=20_010,
        bars_total=240_000,
        bars_per_s=66.7,
        signals=20_000,
        rejections=10,
        levels={"FULL": 19_000, "SMART": 1_000},
        reasons={"TIMEOUT": 600, "BREAKER_OPEN": 400},
        level="SMART",
        degraded_bars=12,
        breaker="half-open",
        breaker_openings=3,
        model_restarts=2,
        model_recycled=1,
        forecast_failures={"TIMEOUT": 600},
        latency=figures,
        latency_minute=latency(4_000),
        queue_bars=1,
        coverage=0.91,
        unhealthy=True,
        drifted=("errors",),
        equity=101_000.0,
        drawdown=0.02,
        exposure=-0.4,
        orders=345,
        gc_collections=(100, 9, 1),
        alerts=(
            Alert(1, "model.breaker", Severity.HIGH, True, "the breaker is half-open"),
            Alert(2, "drift.errors", Severity.MEDIUM, True, "the index is 0.4"),
        ),
        machine=MachineSample(
            300.0,
            (process("trading", 11), process("model", 12), process("other", 13), process("other", 14)),
            900 * MIB, 4_096 * MIB, 1_000 * MIB, 80_000 * MIB,
        ),
    )  # fmt: skip
