"""The figures by which one sees how a run is doing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.percentiles import EDGES_S, PERCENTILES, Latencies
from sage.vitals import NO_LATENCY, LatencyFigures


def recorded(seconds: list[float]) -> LatencyFigures:
    latencies = Latencies()
    for value in seconds:
        latencies.record(value)
    return LatencyFigures.of(latencies)


@given(st.lists(st.floats(1e-6, 100.0) | st.sampled_from(EDGES_S), max_size=60))
def test_a_bucket_counts_every_answer_that_took_no_longer_than_its_edge(seconds: list[float]) -> None:
    found = recorded(seconds)
    assert found.buckets == tuple(sum(value <= edge for value in seconds) for edge in EDGES_S)
    assert found.sum_s == pytest.approx(sum(seconds))
    assert found.answers == len(seconds)


def test_a_percentile_is_there_when_there_are_enough_answers_for_it() -> None:
    found = recorded([0.001 * (1 + index % 100) for index in range(1_000)])
    assert found.p50 == pytest.approx(50, rel=0.03)
    assert found.p99 == pytest.approx(99, rel=0.03)
    assert found.p999 is None
    assert found.max == pytest.approx(100, rel=0.01)


@given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=40), st.sampled_from([1, 10, 300]))
def test_all_percentiles_in_one_pass_are_those_asked_for_one_by_one(seconds: list[float], times: int) -> None:
    latencies = Latencies()
    for value in seconds * times:
        latencies.record(value)
    found = latencies.summary()
    assert {name: found[name] for name in PERCENTILES} == {
        name: latencies.at(percentile) for name, percentile in PERCENTILES.items()
    }


def test_before_the_first_answer_there_is_nothing() -> None:
    found = recorded([])
    assert (found.p50, found.max, found.sum_s) == (NO_LATENCY.p50, NO_LATENCY.max, 0.0)
    assert set(found.buckets) == {0}
