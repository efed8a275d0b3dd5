"""With a real Prometheus server: it scrapes, and answers what the dashboard asks."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.metrics import Exporter, serve
from tests.sage.vitals import busy

EXAMPLES = Path(__file__).parents[2] / "examples"
DASHBOARD: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
STAND_INS = {"$__rate_interval": "10s", "$__range": "1m", "$job": "sage"}

Ask = Callable[[str], list[dict[str, Any]]]


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on PATH (apt-get install prometheus): NOTHING was scraped or checked by it")
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A Prometheus server that has scraped a busy run, to be asked by its HTTP API."""
    program, place = needed("prometheus"), tmp_path_factory.mktemp("prometheus")
    exporter = Exporter()
    exporter.update(busy())
    with serve(exporter, 0) as server:
        target = f"127.0.0.1:{server.server_address[1]}"
        config = (EXAMPLES / "prometheus.yml").read_text().replace("127.0.0.1:9464", target).replace("5s", "200ms")
        (place / "prometheus.yml").write_text(config)
        port = free_port()
        process = subprocess.Popen(
            [
                program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
            ],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def query(expression: str) -> list[dict[str, Any]]:
            for name, value in (STAND_INS | {"$instance": target}).items():
                expression = expression.replace(name, value)
            url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)
            assert found["status"] == "success"
            return list(found["data"]["result"])

        try:
            until = time.monotonic() + 60
            while not scraped_often(query):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until, "Prometheus scraped nothing"
                time.sleep(0.1)
            yield query
        finally:
            process.terminate()
            process.communicate(timeout=30)


def scraped_often(query: Ask) -> bool:
    try:
        found = query("count_over_time(sage_bars_total[1m])")
    except OSError:
        return False
    return bool(found) and int(found[0]["value"][1]) >= 5


def value_of(found: list[dict[str, Any]]) -> float:
    assert len(found) == 1
    return float(found[0]["value"][1])


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("sage_bars_total", 20_010),
        ('sage_level_signals_total{level="SMART"}', 1_000),
        ('sage_breaker_state{sage_breaker_state="half-open"}', 1),
        ('sage_process_resident_memory_bytes{role="model"}', 200 * (1 << 20)),
        ("histogram_quantile(0.99, sage_signal_latency_seconds_bucket)", 0.025),
        ("sage_signal_latency_seconds_sum / sage_signal_latency_seconds_count", 0.02),
        ("sage_memory_used_bytes / sage_memory_limit_bytes", 900 / 4_096),
        ("time() - sage_newest_bar_timestamp_seconds > bool 0", 1),
        ('sage_alert_active{severity="HIGH"} == 1', 1),
        ('up{job="sage"}', 1),
    ],
)
def test_a_server_that_scraped_a_run_knows_its_figures(ask: Ask, query: str, value: float) -> None:
    assert value_of(ask(query)) == pytest.approx(value, rel=0.02)


def test_a_server_has_taken_in_every_series(ask: Ask) -> None:
    exporter = Exporter()
    exporter.update(busy())
    exported = sum(len(family.samples) for family in exporter.registry.collect())
    assert value_of(ask('count({__name__=~"sage_.+"})')) == exported


@pytest.mark.parametrize("query", QUERIES)
def test_a_server_has_an_answer_to_each_query_of_the_dashboard(ask: Ask, query: str) -> None:
    assert ask(query.removesuffix(" > 0")), query


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_of_the_dashboard_is_about_metrics_that_are_exported(query: str) -> None:
    exporter = Exporter()
    exporter.update(busy())
    exported = {sample.name for family in exporter.registry.collect() for sample in family.samples}
    named = set(re.findall(r"\bsage_\w+(?=\{)", query))
    assert named and named <= exported


def test_the_dashboard_shows_what_a_person_looks_for() -> None:
    titles = " ".join(panel["title"].lower() for panel in DASHBOARD["panels"])
    wanted = (
        "bars per second", "level mix", "latency", "memory by role", "breaker", "restarts", "coverage", "drift",
        "equity", "alerts",
    )  # fmt: skip
    assert [word for word in wanted if word not in titles] == []
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_the_scrape_configuration_is_sound() -> None:
    command = [needed("promtool"), "check", "config", str(EXAMPLES / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
