"""The figures by which one sees how a run is doing, while it goes on: for a live view, for metrics and for alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regime.alerts import Alert
from sage.percentiles import Latencies
from sage.processes import MachineSample


@dataclass(frozen=True)
class LatencyFigures:
    """From bar in (or, at a given rate, from when it was due) to signal out, in milliseconds.

    A percentile is None where there are too few answers for it, see :mod:`sage.percentiles`; so is the maximum before
    the first answer. ``sum_s`` is that of all of them in seconds, ``buckets`` how many took at most so long, for each
    of :data:`sage.percentiles.EDGES_S`; empty where nobody counted.
    """

    answers: int
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    max: float | None
    sum_s: float = 0.0
    buckets: tuple[int, ...] = ()

    @classmethod
    def of(cls, latencies: Latencies) -> LatencyFigures:
        """Those of a histogram."""
        found = latencies.summary()
        return cls(
            answers=len(latencies),
            p50=found["p50"],
            p90=found["p90"],
            p99=found["p99"],
            p999=found["p99.9"],
            max=found["max"],
            sum_s=latencies.sum_s,
            buckets=latencies.buckets(),
        )


NO_LATENCY = LatencyFigures(0, None, None, None, None, None)


@dataclass(frozen=True)
class Vitals:
    """How a run is doing, as of its newest bar.

    ``elapsed_s`` is the stopwatch's time since the first bar; ``bars_total`` and ``seconds_total`` say how long the
    run will be, None where the other one decides. ``ts_ns`` is the newest bar's close. ``bars`` counts those handed
    to the detector, ``levels`` signals by the name of their level, ``reasons`` codes by name. ``degraded_bars`` is how
    many signals in a row, up to the newest, were below FULL for a fault: 0 at FULL, and where all reasons are those
    of an ordinary start or of an explicit wish. ``latency`` is of the whole run, ``latency_minute`` of the last full
    minute; ``minutes`` have been full since the first bar. ``queue_bars`` are due and unanswered. ``coverage`` is the
    share of the last matured outcomes within the next bar's interval, None before there are enough. ``drifted`` names
    the streams that have, as in the detector's alerts. ``equity`` is in the quote currency, ``drawdown`` the share lost
    since its peak. ``alerts`` are those that are on, ``machine`` is the newest sample of processes and memory, None
    where nobody takes any. ``stalled`` says that nothing is heard of whoever trades, ``deaths`` counts how often that
    process died, both where it is another one.
    """

    ts_ns: int = 0
    elapsed_s: float = 0.0
    seconds_total: float | None = None
    bars: int = 0
    bars_total: int | None = None
    bars_per_s: float = 0.0
    signals: int = 0
    rejections: int = 0
    levels: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    level: str = ""
    degraded_bars: int = 0
    breaker: str = "closed"
    breaker_openings: int = 0
    model_restarts: int = 0
    model_recycled: int = 0
    forecast_failures: Mapping[str, int] = field(default_factory=dict)
    latency: LatencyFigures = NO_LATENCY
    latency_minute: LatencyFigures = NO_LATENCY
    minutes: int = 0
    target_ms: float = 50.0
    queue_bars: int = 0
    coverage: float | None = None
    nominal_coverage: float = 0.9
    unhealthy: bool = False
    drifted: tuple[str, ...] = ()
    equity: float = 0.0
    drawdown: float = 0.0
    exposure: float = 0.0
    orders: int = 0
    gc_collections: tuple[int, int, int] = (0, 0, 0)
    alerts: tuple[Alert, ...] = ()
    machine: MachineSample | None = None
    stalled: bool = False
    deaths: int = 0
