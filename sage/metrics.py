"""The vitals of a run for Prometheus: names and units by its conventions, served over HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
)

from data.errors import OptionError
from regime.serving.breaker import BreakerState
from regime.signal import Level, Reason
from sage.percentiles import EDGES_S
from sage.processes import ProcessSample
from sage.vitals import LatencyFigures, Vitals
from sage.watch import DRIFT_STREAMS, WatchConfig, rules

_LEVELS = tuple(level.name for level in Level)
_REASONS = tuple(str(reason) for reason in Reason)
_ROLES = ("trading", "model", "control", "watching")
_OTHER = "other"
"""Takes in whatever a label is not known to be, so that no input makes ever more series."""

_SEVERITIES = {rule.name: str(rule.severity) for rule in rules(WatchConfig())}
_PATIENCE_S = 10.0
_PROCESSES_KEPT = 256

Counts = Mapping[str, float]


@dataclass(frozen=True)
class _Count:
    """A counter: its help, its label and what the vitals say, by the label's value."""

    name: str
    help: str
    label: str | None
    known: tuple[str, ...]
    read: Callable[[Vitals], Counts]


@dataclass(frozen=True)
class _Gauge:
    name: str
    help: str
    read: Callable[[Vitals], float | None]


def _one(read: Callable[[Vitals], float]) -> Callable[[Vitals], Counts]:
    return lambda vitals: {"": read(vitals)}


_COUNTS = (
    _Count("sage_bars", "Bars handed to the detector.", None, ("",), _one(lambda v: v.bars)),
    _Count("sage_signals", "Signals published.", None, ("",), _one(lambda v: v.signals)),
    _Count("sage_rejected_bars", "Bars that got no signal.", None, ("",), _one(lambda v: v.rejections)),
    _Count("sage_level_signals", "Signals by the level that answered.", "level", _LEVELS, lambda v: v.levels),
    _Count("sage_reasons", "Why a level did not answer.", "reason", _REASONS, lambda v: v.reasons),
    _Count("sage_forecast_failures", "Forecasts that were asked for and did not come.", "reason", _REASONS,
           lambda v: v.forecast_failures),
    _Count("sage_breaker_openings", "Times that the breaker opened.", None, ("",), _one(lambda v: v.breaker_openings)),
    _Count("sage_model_restarts", "Model processes that ended and were replaced.", None, ("",),
           _one(lambda v: v.model_restarts)),
    _Count("sage_model_recycles", "Model processes that were replaced as planned.", None, ("",),
           _one(lambda v: v.model_recycled)),
    _Count("sage_orders", "Orders sent.", None, ("",), _one(lambda v: v.orders)),
    _Count("sage_gc_collections", "Garbage collections of the trading process.", "generation", ("0", "1", "2"),
           lambda v: {str(generation): count for generation, count in enumerate(v.gc_collections)}),
)  # fmt: skip

_GAUGES = (
    _Gauge("sage_elapsed_seconds", "Time since the first bar.", lambda v: v.elapsed_s),
    _Gauge("sage_planned_bars", "Bars that the run will have.", lambda v: v.bars_total),
    _Gauge("sage_planned_seconds", "Time that the run will take.", lambda v: v.seconds_total),
    _Gauge("sage_newest_bar_timestamp_seconds", "Close of the newest bar since the epoch.",
           lambda v: v.ts_ns / 1e9 if v.ts_ns else None),
    _Gauge("sage_degraded_bars", "Signals in a row below FULL for a fault.", lambda v: v.degraded_bars),
    _Gauge("sage_queue_bars", "Bars that are due and unanswered.", lambda v: v.queue_bars),
    _Gauge("sage_signal_latency_target_seconds", "What 99 of 100 signals should take at most.",
           lambda v: v.target_ms / 1e3),
    _Gauge("sage_coverage_ratio", "Share of outcomes within the next bar's interval, lately.", lambda v: v.coverage),
    _Gauge("sage_nominal_coverage_ratio", "What it should be.", lambda v: v.nominal_coverage),
    _Gauge("sage_model_unhealthy", "1 if forecasts are surely worse than a baseline.", lambda v: v.unhealthy),
    _Gauge("sage_equity", "Equity in the quote currency.", lambda v: v.equity),
    _Gauge("sage_drawdown_ratio", "Share of the equity lost since its peak.", lambda v: v.drawdown),
    _Gauge("sage_exposure_ratio", "Position relative to the equity.", lambda v: v.exposure),
    _Gauge("sage_memory_used_bytes", "Memory that counts against the limit.",
           lambda v: v.machine.used_bytes if v.machine else None),
    _Gauge("sage_memory_limit_bytes", "What the container allows, or the machine has.",
           lambda v: v.machine.limit_bytes if v.machine else None),
    _Gauge("sage_gpu_memory_used_bytes", "Memory in use on the fullest GPU.",
           lambda v: v.machine.gpu_bytes if v.machine else None),
    _Gauge("sage_gpu_memory_limit_bytes", "Memory of that GPU.",
           lambda v: v.machine.gpu_limit_bytes if v.machine else None),
)  # fmt: skip

_BY_ROLE: tuple[tuple[str, str, Callable[[ProcessSample], float | None]], ...] = (
    ("sage_process_resident_memory_bytes", "Resident memory, shared pages counted in each process.",
     lambda p: p.rss_bytes),
    ("sage_process_proportional_memory_bytes", "Memory with shared pages divided among those that share them.",
     lambda p: p.pss_bytes),
    ("sage_process_shared_memory_bytes", "Shared memory within the resident one.", lambda p: p.shared_bytes),
    ("sage_process_open_fds", "Open file descriptors.", lambda p: p.open_files),
    ("sage_process_threads", "Threads.", lambda p: p.threads),
    ("sage_processes", "Processes.", lambda _: 1),
)  # fmt: skip


class Exporter:
    """Holds the newest vitals for whoever asks. Counters go on when what they count begins at nought in a new worker.

    One thread updates, any number may ask.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._lock = threading.Lock()
        self._vitals = Vitals()
        self._totals: dict[str, _Total] = defaultdict(_Total)
        self._cpu_s: dict[int, tuple[str, float]] = {}
        self._cpu_by_role: dict[str, float] = defaultdict(float)
        self._raised: Counter[str] = Counter()
        self.update(self._vitals)
        self.registry.register(self)

    def update(self, vitals: Vitals) -> None:
        """Take the newest vitals in; ``vitals.alerts`` are those that are on."""
        with self._lock:
            for count in _COUNTS:
                self._totals[count.name].take(_folded(count.read(vitals), count.known))
            if vitals.latency.buckets:
                self._totals["latency"].take(_histogram(vitals.latency))
            before = {alert.name for alert in self._vitals.alerts}
            self._raised.update(alert.name for alert in vitals.alerts if alert.name not in before)
            if vitals.machine is not None:
                self._count_processor_time(vitals.machine.processes)
            self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        with self._lock:
            return iter([*self._counters(), *self._gauges(), *self._latency(), *self._processes(), *self._alerts()])

    def _count_processor_time(self, processes: Iterable[ProcessSample]) -> None:
        for process in processes:
            role = _known_role(process.role)
            last_role, last_s = self._cpu_s.pop(process.pid, (role, 0.0))
            same = last_role == role and process.cpu_s >= last_s
            self._cpu_by_role[role] += process.cpu_s - (last_s if same else 0.0)
            self._cpu_s[process.pid] = role, process.cpu_s
        # Those that ended are forgotten, but not at once: a sample may miss a process that is there.
        while len(self._cpu_s) > _PROCESSES_KEPT:
            del self._cpu_s[next(iter(self._cpu_s))]

    def _counters(self) -> Iterator[Metric]:
        for count in _COUNTS:
            family = CounterMetricFamily(count.name, count.help, labels=[count.label] if count.label else [])
            for value, total in self._totals[count.name].items():
                family.add_metric([value] if count.label else [], total)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        vitals = self._vitals
        for gauge in _GAUGES:
            found = gauge.read(vitals)
            if found is not None:
                yield GaugeMetricFamily(gauge.name, gauge.help, value=found)
        drift = GaugeMetricFamily("sage_drift", "1 if this has become another thing.", labels=["stream"])
        for stream in DRIFT_STREAMS:
            drift.add_metric([stream], not {stream, f"drift.{stream}"}.isdisjoint(vitals.drifted))
        yield drift
        levels = {level: level == vitals.level for level in _LEVELS}
        yield StateSetMetricFamily("sage_level", "The level of the newest signal.", levels)
        states = {str(state): state == vitals.breaker for state in BreakerState}
        yield StateSetMetricFamily("sage_breaker_state", "The circuit breaker's state.", states)

    def _latency(self) -> Iterator[Metric]:
        quantiles = GaugeMetricFamily(
            "sage_signal_latency_percentile_seconds",
            "Exact percentiles (100 is the maximum) of the run and of the last full minute.",
            labels=["window", "percentile"],
        )
        for window, found in (("run", self._vitals.latency), ("minute", self._vitals.latency_minute)):
            named = {"50": found.p50, "90": found.p90, "99": found.p99, "99.9": found.p999, "100": found.max}
            for percentile, value_ms in named.items():
                if value_ms is not None:
                    quantiles.add_metric([window, percentile], value_ms / 1e3)
        yield quantiles
        if "latency" in self._totals:
            totals = dict(self._totals["latency"].items())
            buckets = [(le, totals[le]) for le in [*map(str, EDGES_S), "+Inf"]]
            about = "From bar in (or due) to signal out."
            yield HistogramMetricFamily("sage_signal_latency_seconds", about, buckets, totals["sum"])

    def _processes(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily("sage_process_cpu_seconds", "Processor time.", labels=["role"])
        for role, seconds in self._cpu_by_role.items():
            cpu.add_metric([role], seconds)
        yield cpu
        processes = self._vitals.machine.processes if self._vitals.machine else ()
        for name, about, read in _BY_ROLE:
            sums: dict[str, float] = defaultdict(float)
            for process in processes:
                value = read(process)
                if value is not None:  # unknown is not nothing
                    sums[_known_role(process.role)] += value
            family = GaugeMetricFamily(name, f"{about} Summed over the processes of a role.", labels=["role"])
            for role, value in sums.items():
                family.add_metric([role], value)
            yield family

    def _alerts(self) -> Iterator[Metric]:
        on = {alert.name for alert in self._vitals.alerts}
        active = GaugeMetricFamily("sage_alert_active", "1 if the alert is on.", labels=["alert", "severity"])
        raised = CounterMetricFamily("sage_alerts_raised", "Alerts raised.", labels=["alert", "severity"])
        for name, severity in _SEVERITIES.items():
            active.add_metric([name, severity], name in on)
            raised.add_metric([name, severity], self._raised[name])
        return iter((active, raised))


class _Total:
    """Counts that belong together, each the sum over all workers.

    When one of them falls, all have begun at nought again: those of a histogram must stay consistent.
    """

    def __init__(self) -> None:
        self._base: dict[str, float] = defaultdict(float)
        self._last: Counts = {}

    def take(self, counts: Counts) -> None:
        if any(counts.get(key, 0.0) < value for key, value in self._last.items()):
            for key, value in self._last.items():
                self._base[key] += value
        self._last = counts

    def items(self) -> Iterator[tuple[str, float]]:
        for key in dict.fromkeys([*self._base, *self._last]):
            yield key, self._base.get(key, 0.0) + self._last.get(key, 0.0)


def _folded(counts: Counts, known: tuple[str, ...]) -> Counts:
    """Nought for what was not counted yet, and all that is unknown in one."""
    found = {name: counts.get(name, 0.0) for name in known}
    rest = sum(value for name, value in counts.items() if name not in found)
    return found | {_OTHER: rest} if rest else found


def _histogram(latency: LatencyFigures) -> Counts:
    return dict(zip(map(str, EDGES_S), latency.buckets, strict=True)) | {"+Inf": latency.answers, "sum": latency.sum_s}


def _known_role(role: str) -> str:
    return role if role in _ROLES else _OTHER


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Answers scrapes, each in a thread; ``scrapes`` counts them."""

    daemon_threads = True
    scrapes = 0

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/metrics" if ":" in str(host) else f"http://{host!s}:{port}/metrics"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away; the base class would print it."""


class _MetricsServer6(MetricsServer):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each scrape; the base class would print it."""


@contextlib.contextmanager
def serve(exporter: Exporter, port: int, host: str = "127.0.0.1") -> Iterator[MetricsServer]:
    """Serve an exporter's metrics while the context lasts.

    Parameters
    ----------
    exporter
        Whose.
    port
        1 to 65535, or 0 for any that is free; ``url`` of what is given says which.
    host
        The address on which to listen; nobody but this machine can ask the default one.

    Raises
    ------
    OptionError
        If the port is out of range or taken, or the address is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise OptionError(f"--metrics-port {port}: must lie between 1 and 65535, or be 0 for any that is free")
    answer = make_wsgi_app(exporter.registry)

    def counted(environ, start_response):  # type: ignore[no-untyped-def]
        server.scrapes += 1
        return answer(environ, start_response)

    kind = _MetricsServer6 if ":" in host else MetricsServer
    try:
        server = make_server(host, port, counted, kind, _QuietHandler)
    except OSError as error:
        why = f"cannot listen on {host}: {error.strerror}"
        raise OptionError(f"--metrics-port {port}: {why}; take another port, or 0 for any that is free") from error
    thread = threading.Thread(
        target=server.serve_forever, name="sage-metrics", kwargs={"poll_interval": 0.1}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
