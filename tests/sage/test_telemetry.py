"""Alerts to a file and a webhook, metrics on a port: all that the options ask for, in one."""

from __future__ import annotations

import dataclasses
import json
import threading
import urllib.request
from pathlib import Path

import pytest

from data.errors import OptionError
from sage.sinks import LOGGER, Delivery
from sage.telemetry import TelemetrySummary, telemetry
from sage.vitals import Vitals
from sage.watch import WatchConfig
from tests.sage.receivers import receiver
from tests.sage.vitals import busy

CONFIG = WatchConfig()


def test_without_options_alerts_are_kept_and_nothing_is_started() -> None:
    before = threading.active_count()
    with telemetry(CONFIG) as consumer:
        consumer(busy())
        assert threading.active_count() == before
        assert consumer.url is None
        names = [alert.name for alert in consumer.newest]
        assert names == ["model.health", "drift.errors", "model.breaker", "model.restarted"]
        consumer(dataclasses.replace(busy(), elapsed_s=301.0))
        assert consumer.newest == ()
        assert [alert.name for alert in consumer.active] == names
    assert consumer.summary.deliveries == (Delivery("log", 4),)
    assert str(consumer.summary).splitlines() == [
        "alerts raised: drift.errors 1, model.breaker 1, model.health 1, model.restarted 1; "
        "still on: model.health, drift.errors, model.breaker, model.restarted",
        "log: 4 sent",
    ]


def test_with_all_of_them_each_is_told_of_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alerts.jsonl"
    with receiver("200") as server:
        monkeypatch.setenv("HOOK", server.url)
        with telemetry(CONFIG, alerts=path, webhook_url_env="HOOK", metrics_port=0) as consumer:
            consumer(busy())
            consumer(dataclasses.replace(Vitals(ts_ns=5, bars=20_020), model_restarts=2))
            assert consumer.url is not None
            with urllib.request.urlopen(consumer.url) as answer:
                text = answer.read().decode()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["name"], line["state"]) for line in written] == [
        ("model.health", "raised"), ("drift.errors", "raised"), ("model.breaker", "raised"),
        ("model.restarted", "raised"), ("model.health", "cleared"), ("drift.errors", "cleared"),
    ]  # fmt: skip
    assert [(body["name"], body["state"]) for body in server.bodies] == [
        (line["name"], line["state"]) for line in written
    ]
    assert 'sage_alert_active{alert="model.breaker",severity="HIGH"} 1.0' in text
    assert 'sage_alert_active{alert="model.health",severity="HIGH"} 0.0' in text
    assert 'sage_alerts_raised_total{alert="model.health",severity="HIGH"} 1.0' in text
    assert 'sage_alert_active{alert="drift.errors",severity="MEDIUM"} 0.0' in text
    assert consumer.summary.scrapes == 1
    assert consumer.summary.problems == ()
    assert [delivery.sent for delivery in consumer.summary.deliveries] == [6, 6, 6]


def test_a_run_goes_on_where_nothing_can_be_told_and_says_so_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "taken"
    with receiver("404") as server:
        monkeypatch.setenv("HOOK", server.url)
        with telemetry(CONFIG, alerts=place / "a.jsonl", webhook_url_env="HOOK") as consumer:
            place.write_text("")
            for _ in range(3):
                consumer(busy())
    problems = consumer.summary.problems
    assert [("a.jsonl: 0 sent, 4 failed (" in one, "HTTP 404" in one) for one in problems] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_what_came_until_the_run_failed_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with pytest.raises(RuntimeError), telemetry(CONFIG, alerts=path, metrics_port=0) as consumer:
        consumer(busy())
        raise RuntimeError
    assert len(path.read_text().splitlines()) == 4
    assert consumer.summary.deliveries[1].sent == 4


def test_options_that_make_no_sense_are_refused_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    before = threading.active_count()
    for options in ({"webhook_url_env": "HOOK"}, {"metrics_port": 70_000}, {"alerts": Path("/")}):
        with pytest.raises(OptionError), telemetry(CONFIG, **options):  # type: ignore[arg-type]
            pass
    assert threading.active_count() == before


def test_a_log_without_readers_is_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", False)  # to the handlers of the test run
    with telemetry(CONFIG) as consumer:
        consumer(busy())
    assert consumer.summary.deliveries == () and consumer.summary.raised


def test_the_summary_can_be_written_as_json() -> None:
    found = TelemetrySummary({"latency.p99": 2}, (), 1, (Delivery("log", 3),), None)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["raised"] == {"latency.p99": 2}
    assert "1 held back" in str(found)
