"""What Prometheus is told: every figure under its name and unit, and counters that never go down."""

from __future__ import annotations

import dataclasses
import http.client
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from data.errors import OptionError
from regime.alerts import Alert, Severity
from sage.metrics import Exporter, serve
from sage.processes import MachineSample
from sage.vitals import Vitals
from tests.sage.vitals import MIB, busy, latency, process


def exported(*stream: Vitals) -> Exporter:
    exporter = Exporter()
    for vitals in stream:
        exporter.update(vitals)
    return exporter


def asked(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(name, labels)


def text_of(exporter: Exporter) -> str:
    with serve(exporter, 0) as server, urllib.request.urlopen(server.url) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("sage_bars_total", {}, 20_010),
        ("sage_signals_total", {}, 20_000),
        ("sage_rejected_bars_total", {}, 10),
        ("sage_level_signals_total", {"level": "SMART"}, 1_000),
        ("sage_level_signals_total", {"level": "EMERGENCY"}, 0),
        ("sage_reasons_total", {"reason": "TIMEOUT"}, 600),
        ("sage_forecast_failures_total", {"reason": "TIMEOUT"}, 600),
        ("sage_breaker_openings_total", {}, 3),
        ("sage_model_restarts_total", {}, 2),
        ("sage_model_recycles_total", {}, 1),
        ("sage_orders_total", {}, 345),
        ("sage_gc_collections_total", {"generation": "1"}, 9),
        ("sage_elapsed_seconds", {}, 300),
        ("sage_planned_seconds", {}, 3_600),
        ("sage_planned_bars", {}, 240_000),
        ("sage_newest_bar_timestamp_seconds", {}, 1_700_000_000),
        ("sage_level", {"sage_level": "SMART"}, 1),
        ("sage_level", {"sage_level": "FULL"}, 0),
        ("sage_degraded_bars", {}, 12),
        ("sage_breaker_state", {"sage_breaker_state": "half-open"}, 1),
        ("sage_breaker_state", {"sage_breaker_state": "closed"}, 0),
        ("sage_signal_latency_seconds_bucket", {"le": "0.01"}, 0),
        ("sage_signal_latency_seconds_bucket", {"le": "0.025"}, 20_000),
        ("sage_signal_latency_seconds_bucket", {"le": "+Inf"}, 20_000),
        ("sage_signal_latency_seconds_count", {}, 20_000),
        ("sage_signal_latency_seconds_sum", {}, 400),
        ("sage_signal_latency_percentile_seconds", {"window": "run", "percentile": "99.9"}, 0.02),
        ("sage_signal_latency_percentile_seconds", {"window": "minute", "percentile": "99"}, 0.02),
        ("sage_signal_latency_percentile_seconds", {"window": "minute", "percentile": "99.9"}, None),
        ("sage_signal_latency_target_seconds", {}, 0.05),
        ("sage_queue_bars", {}, 1),
        ("sage_coverage_ratio", {}, 0.91),
        ("sage_nominal_coverage_ratio", {}, 0.9),
        ("sage_model_unhealthy", {}, 1),
        ("sage_drift", {"stream": "errors"}, 1),
        ("sage_drift", {"stream": "returns"}, 0),
        ("sage_equity", {}, 101_000),
        ("sage_drawdown_ratio", {}, 0.02),
        ("sage_exposure_ratio", {}, -0.4),
        ("sage_process_resident_memory_bytes", {"role": "model"}, 200 * MIB),
        ("sage_process_resident_memory_bytes", {"role": "other"}, 400 * MIB),
        ("sage_process_proportional_memory_bytes", {"role": "trading"}, 150 * MIB),
        ("sage_process_shared_memory_bytes", {"role": "trading"}, 10 * MIB),
        ("sage_process_open_fds", {"role": "trading"}, 20),
        ("sage_process_threads", {"role": "other"}, 8),
        ("sage_process_cpu_seconds_total", {"role": "other"}, 3),
        ("sage_processes", {"role": "other"}, 2),
        ("sage_memory_used_bytes", {}, 900 * MIB),
        ("sage_memory_limit_bytes", {}, 4_096 * MIB),
        ("sage_gpu_memory_used_bytes", {}, 1_000 * MIB),
        ("sage_gpu_memory_limit_bytes", {}, 80_000 * MIB),
        ("sage_alert_active", {"alert": "model.breaker", "severity": "HIGH"}, 1),
        ("sage_alert_active", {"alert": "machine.memory", "severity": "HIGH"}, 0),
        ("sage_alerts_raised_total", {"alert": "drift.errors", "severity": "MEDIUM"}, 1),
    ],
)
def test_a_figure_is_there_under_its_name(name: str, labels: dict[str, str], value: float | None) -> None:
    found = asked(exported(busy()), name, **labels)
    assert found == (value if value is None else pytest.approx(value, rel=1e-3))


def test_before_the_first_vitals_unknown_figures_are_left_out_and_counts_are_nought() -> None:
    exporter = Exporter()
    assert asked(exporter, "sage_bars_total") == 0
    assert asked(exporter, "sage_coverage_ratio") is None
    assert asked(exporter, "sage_gpu_memory_used_bytes") is None
    assert asked(exporter, "sage_newest_bar_timestamp_seconds") is None
    assert asked(exporter, "sage_signal_latency_seconds_count") is None


@pytest.mark.parametrize("stream", [[], [busy()], [busy(), Vitals(bars=3), busy()]])
def test_promtool_has_nothing_to_say(stream: list[Vitals]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (apt-get install prometheus): the metrics' names were NOT checked")
    text = text_of(exported(*stream))
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


counts = st.integers(0, 50)


@given(
    st.lists(
        st.builds(
            lambda bars, full, odd, answers, cpu, pid: Vitals(
                bars=bars,
                levels={"FULL": full, "NEW": odd},
                latency=latency(answers % 7, 0.001 * (1 + answers)),
                machine=MachineSample(0.0, (process("trading", pid, float(cpu)),), 1, 2),
            ),
            counts, counts, counts, counts, counts, st.integers(1, 3),
        ),
        min_size=2,
        max_size=12,
    )
)  # fmt: skip
def test_counters_never_go_down_and_histograms_stay_consistent(stream: list[Vitals]) -> None:
    exporter = Exporter()
    before: dict[tuple[str, str], float] = {}
    for vitals in stream:
        exporter.update(vitals)
        now = {}
        for family in exporter.registry.collect():
            if family.type in {"counter", "histogram"}:
                now |= {(sample.name, str(sample.labels)): sample.value for sample in family.samples}
            buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
            assert buckets == sorted(buckets)
        assert all(now[key] >= value for key, value in before.items())
        before = now


def test_a_new_worker_goes_on_where_the_old_one_ended() -> None:
    old, new = busy(), dataclasses.replace(busy(), bars=5, signals=4, levels={"FULL": 4}, latency=latency(4))
    exporter = exported(old, new)
    assert asked(exporter, "sage_bars_total") == 20_015
    assert asked(exporter, "sage_level_signals_total", level="FULL") == 19_004
    assert asked(exporter, "sage_level_signals_total", level="SMART") == 1_000
    assert asked(exporter, "sage_signal_latency_seconds_count") == 20_004


def test_processor_time_of_a_process_that_ended_is_not_lost_nor_counted_twice() -> None:
    def at(*processes: tuple[str, int, float]) -> Vitals:
        return Vitals(machine=MachineSample(0.0, tuple(process(*one) for one in processes), 1, 2))

    exporter = exported(
        at(("model", 1, 5.0)), at(("model", 2, 1.0)), at(("model", 1, 7.0), ("model", 2, 1.5)), at(("model", 1, 0.5))
    )
    assert asked(exporter, "sage_process_cpu_seconds_total", role="model") == pytest.approx(7.0 + 1.5 + 0.5)


def test_an_alert_that_comes_again_is_counted_again() -> None:
    on = Vitals(alerts=(Alert(1, "latency.p99", Severity.MEDIUM, True, ""),))
    exporter = exported(on, on, Vitals(), on)
    assert asked(exporter, "sage_alerts_raised_total", alert="latency.p99", severity="MEDIUM") == 2


def test_whatever_comes_there_are_only_so_many_series() -> None:
    def odd(at: int) -> Vitals:
        return Vitals(
            level=f"L{at}", breaker=f"b{at}", levels={f"L{at}": 1}, reasons={f"r{at}": 1}, drifted=(f"s{at}",),
            forecast_failures={f"r{at}": 1}, alerts=(Alert(1, f"a{at}", Severity.HIGH, True, ""),),
            machine=MachineSample(0.0, (process(f"role{at}", at),), 1, 2),
        )  # fmt: skip

    def series(exporter: Exporter) -> int:
        return sum(len(family.samples) for family in exporter.registry.collect())

    assert series(exported(*map(odd, range(1_000)))) == series(exported(odd(0))) < 250
    assert len(exported(*map(odd, range(1_000)))._cpu_s) <= 256


def test_two_exporters_do_not_know_each_other() -> None:
    first, second = exported(busy()), Exporter()
    assert asked(first, "sage_bars_total") == 20_010
    assert asked(second, "sage_bars_total") == 0


def test_what_is_served_can_be_read_by_the_parser_of_the_library() -> None:
    families = list(text_string_to_metric_families(text_of(exported(busy()))))
    assert {family.name for family in families} >= {"sage_bars", "sage_signal_latency_seconds", "sage_breaker_state"}
    assert all(family.documentation for family in families)


def test_port_nought_finds_one_and_says_which_and_gives_it_back() -> None:
    with serve(exported(busy()), 0) as server:
        assert server.url.startswith("http://127.0.0.1:")
        port = server.server_address[1]
        with urllib.request.urlopen(server.url) as answer:
            assert b"sage_bars_total 20010" in answer.read()
        assert server.scrapes == 1
    with serve(Exporter(), port):
        pass


@pytest.mark.parametrize("port", [-1, 65_536, 10**9])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match=f"--metrics-port {port}: must lie"), serve(Exporter(), port):
        pass


def test_a_port_that_is_taken_is_refused() -> None:
    with serve(Exporter(), 0) as server:
        port = server.server_address[1]
        with (
            pytest.raises(OptionError, match=rf"--metrics-port {port}: cannot listen.*in use.*another port"),
            serve(Exporter(), port),
        ):
            pass


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OptionError, match=r"cannot listen on 192\.0\.2\.1"), serve(Exporter(), 0, "192.0.2.1"):
        pass


def test_a_client_that_says_nothing_or_hangs_up_is_in_nobodys_way(capfd: pytest.CaptureFixture[str]) -> None:
    with serve(exported(busy()), 0) as server:
        mute = socket.create_connection(server.server_address[:2])
        rude = socket.create_connection(server.server_address[:2])
        rude.sendall(b"GET /metrics HT")
        rude.close()
        with urllib.request.urlopen(server.url) as answer:
            assert answer.status == 200
        connection = http.client.HTTPConnection(*server.server_address[:2])
        connection.request("DELETE", "/metrics")
        assert connection.getresponse().status == 405
        connection.close()
    mute.close()
    assert capfd.readouterr() == ("", "")


def test_scrapes_and_updates_at_the_same_time_are_each_of_one_moment() -> None:
    exporter = Exporter()
    stop = threading.Event()

    def update() -> None:
        bars = 0
        while not stop.is_set():
            bars += 1
            exporter.update(Vitals(bars=bars, signals=bars, levels={"FULL": bars}))

    thread = threading.Thread(target=update)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for _ in range(200):
            found = {sample.name: sample.value for family in exporter.collect() for sample in family.samples[:1]}
            assert found["sage_bars_total"] == found["sage_signals_total"] == found["sage_level_signals_total"]
    finally:
        sys.setswitchinterval(interval_s)
        stop.set()
        thread.join()
