"""The latency benchmark measures what it says: every bar, from when it was due, and no percentile out of thin air."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from itertools import islice

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import OptionError
from regime.model.engines import EngineSpec
from regime.signal import Level
from regime.window import rejection_of
from sage.percentiles import PERCENTILES, Latencies, answers_needed
from stress.latency import measure
from stress.latency_records import LatencyConfig, LatencyReport, check
from stress.latency_report import as_document, as_html
from stress.load import busy_cores
from stress.stream import _LAP_BARS, endless_bars

SHORT = LatencyConfig(rate_hz=50.0, seconds=1.0)


@pytest.fixture(scope="module")
def short_report() -> LatencyReport:
    return measure(SHORT)


def test_every_bar_that_was_due_is_counted_at_its_level(short_report: LatencyReport) -> None:
    engine = short_report.judged
    assert len(engine.latency) == len(engine.model_call) == len(engine.samples) == 50
    assert engine.unanswered == 0
    assert engine.levels == {Level.FULL: 50}
    assert 0.0 < engine.achieved_rate_hz < 60.0


def test_a_model_call_is_a_part_of_the_whole_way(short_report: LatencyReport) -> None:
    engine = short_report.judged
    call, whole = engine.model_call.at(50.0), engine.latency.at(50.0)
    assert call is not None and whole is not None
    assert call < whole


def test_the_levels_without_a_model_are_measured_beside_it(short_report: LatencyReport) -> None:
    assert list(short_report.fallback) == [Level.SMART, Level.SIMPLE, Level.HISTORICAL, Level.EMERGENCY]
    assert all(latencies.at(99.0) is not None for latencies in short_report.fallback.values())


def test_a_run_too_short_for_its_p99_is_undecided_and_says_so(short_report: LatencyReport) -> None:
    assert short_report.verdict == "undecided"
    document = as_document(short_report)
    (engine,) = document["engines"]  # type: ignore[misc]
    assert engine["latency_ms"]["p99"] is None
    assert engine["latency_ms"]["p50"] is not None
    assert document["ratio"] is None


def test_the_picture_needs_no_network(short_report: LatencyReport) -> None:
    html = as_html(short_report)
    ours = html[: html.index("<script>")] + html[html.rindex("</script>", 0, html.index("<body>")) :]
    assert "http" not in ours
    assert short_report.judged.name in html


@pytest.mark.parametrize(("slo_ms", "verdict"), [(1e-3, "missed"), (1e6, "met")])
def test_p99_decides(slo_ms: float, verdict: str) -> None:
    report = measure(dataclasses.replace(SHORT, rate_hz=1000.0, seconds=1.1, slo_ms=slo_ms))
    assert report.verdict == verdict
    assert (report.judged.over_slo > 0) == (verdict == "missed")


def test_a_target_that_fallback_levels_keep_in_the_models_place_is_missed(short_report: LatencyReport) -> None:
    engine = dataclasses.replace(short_report.judged, latency=Latencies(), levels=Counter({Level.FULL: 980}))
    for _ in range(1_000):
        engine.latency.record(0.001)
    report = dataclasses.replace(short_report, engines=[engine])
    assert engine.model_share == 1.0 and report.verdict == "met"
    engine.levels.update({Level.BASIC: 10, Level.SMART: 10})
    assert report.verdict == "met"
    engine.levels.update({Level.SMART: 10})
    assert report.verdict == "missed" and not as_document(report)["model_in_time"]


def test_a_short_run_without_the_model_needs_no_p99_to_miss(short_report: LatencyReport) -> None:
    engine = dataclasses.replace(short_report.judged, levels=Counter({Level.FULL: 2, Level.SMART: 48}))
    assert dataclasses.replace(short_report, engines=[engine]).verdict == "missed"


def test_bars_that_a_stall_kept_waiting_are_late_too() -> None:
    stall_s, rate_hz = 0.6, 50.0

    def stall() -> None:
        """Stop the model for a while, as soon as it has used some time for measured bars."""
        me = psutil.Process()
        while True:
            models = [child for child in me.children() if "regime.serving.server" in " ".join(child.cmdline())]
            measuring = any("measuring" in name for name in stages)
            if models and measuring:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        newest = max(models, key=lambda child: child.create_time()).pid
        os.kill(newest, signal.SIGSTOP)
        time.sleep(stall_s)
        os.kill(newest, signal.SIGCONT)

    stages: list[str] = []

    class Listening:
        def stage(self, name: str, total: int) -> None:
            stages.append(name)

        def advance(self, steps: int, note: str = "") -> None:
            pass

    thread = threading.Thread(target=stall)
    thread.start()
    report = measure(dataclasses.replace(SHORT, rate_hz=rate_hz, seconds=2.0), Listening())
    thread.join()
    late = [latency for _, latency in report.judged.samples if latency > 100.0]
    # One bar was being answered; all that fell due behind it waited for it.
    assert len(late) >= 0.5 * stall_s * rate_hz
    assert late == sorted(late, reverse=True)


def test_a_rate_that_cannot_be_kept_shows_as_unanswered_bars() -> None:
    report = measure(LatencyConfig(rate_hz=10_000.0, seconds=1.0))
    engine = report.judged
    assert engine.unanswered > 0
    assert len(engine.latency) == 10_000
    assert engine.achieved_rate_hz < 10_000.0


@pytest.mark.torch
def test_two_engines_take_turns_and_are_compared() -> None:
    report = measure(dataclasses.replace(SHORT, engines=("auto", "torch"), batch_rows=4))
    assert [engine.name.partition("-")[0] for engine in report.engines][1] == "torch"
    assert report.ratio is not None and report.ratio > 0.0
    assert report.batch_ratio is not None and report.batch_ratio > 0.0
    assert report.largest_difference_sd is not None and report.largest_difference_sd < 1e-4


def test_an_architecture_runs_with_random_weights() -> None:
    report = measure(dataclasses.replace(SHORT, architecture="compact", seconds=0.2, engine=EngineSpec(threads=1)))
    assert report.checkpoint.name == "compact, random weights of seed 7"
    assert report.judged.levels == {Level.FULL: 10}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rate_hz": 0.0}, "--rate"),
        ({"rate_hz": float("nan")}, "finite"),
        ({"seconds": -1.0}, "--seconds"),
        ({"rate_hz": 0.1, "seconds": 1.0}, "one bar at least"),
        ({"slo_ms": 0.0}, "--slo-ms"),
        ({"deadline_ms": 2.0}, "reserve"),
        ({"context_bars": 8}, "--context"),
        ({"horizon_bars": 0}, "--horizon"),
        ({"background": -1}, "--background"),
        ({"batch_rows": 999}, "--batch"),
        ({"architecture": "gpt"}, "one of compact, tirex-35m"),
        ({"architecture": "compact", "model": "x"}, "exclude each other"),
    ],
)
def test_what_cannot_be_measured_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        check(dataclasses.replace(SHORT, **changed))  # type: ignore[arg-type]


@given(st.lists(st.floats(1e-5, 100.0), min_size=20, max_size=400))
def test_percentiles_are_exact_to_three_digits(seconds: list[float]) -> None:
    latencies = Latencies()
    for value in seconds:
        latencies.record(value)
    for percentile in PERCENTILES.values():
        found = latencies.at(percentile)
        assert (found is None) == (len(seconds) < answers_needed(percentile))
        if found is not None:
            exact = 1e3 * float(np.percentile(seconds, percentile, method="inverted_cdf"))
            assert found == pytest.approx(exact, rel=2e-3, abs=2e-3)


def test_a_percentile_needs_ten_answers_beyond_it() -> None:
    assert [answers_needed(percentile) for percentile in (50.0, 90.0, 99.0, 99.9)] == [20, 100, 1_000, 10_000]


def test_bars_without_end_go_on_in_time_and_price() -> None:
    stream = list(islice(endless_bars(seed=3), 2 * _LAP_BARS + 10))
    assert set(np.diff([bar.ts_ns for bar in stream])) == {3_600_000_000_000}
    assert all(rejection_of(bar, None) is None for bar in stream)
    steps = np.abs(np.diff(np.log([bar.close for bar in stream])))
    seams = steps[[_LAP_BARS - 1, 2 * _LAP_BARS - 1]]
    assert seams.max() < 10 * np.median(steps)
    assert [bar.close for bar in stream[:5]] != [bar.close for bar in stream[_LAP_BARS : _LAP_BARS + 5]]


def test_busy_cores_are_busy_and_end_with_their_context() -> None:
    def busy() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "getppid" in " ".join(child.cmdline())]

    with busy_cores(2):
        # For a moment after a process began the system knows no command line of it.
        until = time.monotonic() + 30.0
        while len(busy()) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(busy()) == 2
    assert not busy()
