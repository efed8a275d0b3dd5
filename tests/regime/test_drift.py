"""The stability index and its critical values, ADWIN, and the monitor of them all."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from regime.config import DriftConfig
from regime.drift import (
    BINS,
    DriftMonitor,
    Stream,
    StreamMonitor,
    block_length,
    counts_in,
    critical_value,
    decile_edges,
    place_in,
    psi,
)
from regime.forecast import QUANTILE_LEVELS, FloatArray
from tests.regime.streams import NORMAL

QUICK = DriftConfig(reference_bars=2000, min_reference_bars=1000, recent_bars=125, recut_every_bars=125)

samples = st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=200).map(np.array)
counts = st.lists(st.integers(0, 500), min_size=BINS, max_size=BINS).map(np.array)


def index_of(reference: FloatArray, recent: FloatArray) -> float:
    edges = decile_edges(reference)
    return float(psi(counts_in(edges, reference), counts_in(edges, recent)))


class TestIndex:
    @given(samples)
    def test_equal_samples_have_none(self, sample: FloatArray) -> None:
        assert index_of(sample, sample[::-1]) == pytest.approx(0.0, abs=1e-12)

    @given(counts, counts)
    def test_it_is_symmetric_and_never_negative(self, first: np.ndarray, second: np.ndarray) -> None:
        assert psi(first, second) == pytest.approx(psi(second, first))
        assert psi(first, second) >= 0.0

    @given(samples, samples)
    def test_it_knows_order_and_no_scale(self, reference: FloatArray, recent: FloatArray) -> None:
        # Exact in floating point, so that nothing is equal afterwards that was not before.
        assert index_of(4.0 * reference, 4.0 * recent) == index_of(reference, recent)

    @given(st.lists(st.integers(-900, 900), min_size=12, max_size=200), st.lists(st.integers(-900, 900), min_size=1))
    def test_a_monotone_transform_of_both_changes_nothing(self, reference: list[int], recent: list[int]) -> None:
        first, second = np.array(reference, dtype=float), np.array(recent, dtype=float)
        assert index_of(first**3, second**3) == index_of(first, second)

    def test_it_is_what_the_definition_says(self) -> None:
        first, second = np.array([30, 70]), np.array([500, 500])
        p, q = np.array([30.5, 70.5]) / 101, np.array([500.5, 500.5]) / 1001
        assert psi(first, second) == pytest.approx(sum((p - q) * np.log(p / q)))

    def test_a_value_that_is_very_common_takes_one_bin(self) -> None:
        sample = np.concatenate([np.zeros(80), np.arange(1.0, 21.0)])
        edges = decile_edges(sample)
        assert len(edges) == len(set(edges)) < BINS - 1
        assert counts_in(edges, sample).sum() == 100


def decile_cells(values: FloatArray) -> np.ndarray:
    return np.asarray(np.searchsorted(decile_edges(values), values, side="right"))


def clustered(count: int, seed: int) -> FloatArray:
    """Sizes of returns whose volatility wanders slowly."""
    rng = np.random.default_rng(seed)
    level, levels = 0.0, np.empty(count)
    for bar, shock in enumerate(rng.normal(0.0, 0.1, size=count).tolist()):
        level = 0.98 * level + shock
        levels[bar] = level
    return np.asarray(np.abs(np.exp(levels) * rng.standard_normal(count)))


class TestCriticalValue:
    def test_of_independent_numbers_it_is_that_of_the_chi_squared_distribution_and_a_little_more(self) -> None:
        cells = decile_cells(np.random.default_rng(3).standard_normal(8000))
        theory = (1 / 250 + 1 / 8000) * chi2.ppf(0.99, BINS - 1)
        assert theory * 0.9 < critical_value(cells, BINS, 250, 25, 0.01) < theory * 1.35

    def test_of_numbers_that_remember_it_is_far_more(self) -> None:
        cells = decile_cells(clustered(8000, 4))
        independent, dependent = (critical_value(cells, BINS, 250, block, 0.01) for block in (1, 250))
        assert dependent > 3.0 * independent

    def test_it_falls_with_the_significance_asked_for(self) -> None:
        cells = decile_cells(np.random.default_rng(5).standard_normal(2000))
        assert critical_value(cells, BINS, 250, 25, 0.05) < critical_value(cells, BINS, 250, 25, 0.001)

    def test_blocks_are_as_long_as_memory(self) -> None:
        rng = np.random.default_rng(6)
        free, bound = (
            block_length(decile_cells(rng.standard_normal(4000))),
            block_length(decile_cells(clustered(4000, 7))),
        )
        assert free < 10.0
        assert bound > 4.0 * free

    def test_returns_that_remember_their_size_alone_need_long_blocks_too(self) -> None:
        signs = np.random.default_rng(8).choice([-1.0, 1.0], size=4000)
        assert block_length(decile_cells(signs * clustered(4000, 7))) > 20.0

    def test_a_constant_needs_none_and_finds_nothing(self) -> None:
        cells = np.zeros(500, dtype=np.int64)
        assert block_length(cells) == 1.0
        assert critical_value(cells, 1, 50, 25, 0.01) == math.inf


class TestStream:
    def drifted(self, values: FloatArray) -> list[bool]:
        monitor, found = StreamMonitor(QUICK, 0), []
        for value in values.tolist():
            monitor.add(value)
            found.append(monitor.drifted)
        return found

    def test_an_undisturbed_stream_is_left_alone(self) -> None:
        for seed in range(4):
            assert not any(self.drifted(np.random.default_rng(seed).standard_normal(4000)))

    def test_a_wider_one_is_found_and_is_the_usual_in_the_end(self) -> None:
        values = np.random.default_rng(1).standard_normal(6000)
        values[2000:] *= 2.0
        found = self.drifted(values)
        assert not any(found[:2000])
        assert any(found[2000 : 2000 + 2 * QUICK.recent_bars])
        assert not found[-1]

    def test_nothing_is_said_of_a_reference_with_too_few_blocks(self) -> None:
        monitor = StreamMonitor(QUICK, 0)
        for value in clustered(1300, 9).tolist():
            monitor.add(value)
        assert not math.isnan(monitor.index)
        assert monitor.critical == math.inf
        assert not monitor.drifted

    def test_a_copy_finds_the_same(self) -> None:
        values = np.random.default_rng(2).standard_normal(2000)
        values[1800:] += 1.0
        monitor = StreamMonitor(QUICK, 3)
        for value in values[:1501].tolist():
            monitor.add(value)
        other = copy.deepcopy(monitor)
        for value in values[1501:].tolist():
            monitor.add(value)
            other.add(value)
        assert monitor.drifted
        assert (monitor.index, monitor.critical, monitor.drifted) == (other.index, other.critical, other.drifted)


class TestPlace:
    @given(st.lists(st.floats(-50, 50), min_size=2, max_size=30))
    @settings(max_examples=60)
    def test_places_keep_the_order_of_outcomes_and_lie_within_bounds(self, outcomes: list[float]) -> None:
        places = [place_in(NORMAL, outcome) for outcome in sorted(outcomes)]
        assert all(0.0 < place < 1.0 for place in places)
        assert places == sorted(places)

    def test_a_quantile_lies_at_its_level(self) -> None:
        assert [place_in(NORMAL, value) for value in NORMAL] == pytest.approx(list(QUANTILE_LEVELS))


def watched(returns: FloatArray, quantiles: FloatArray, spoilt_from: int = 10**9, factor: float = 1.0) -> DriftMonitor:
    monitor = DriftMonitor(QUICK)
    for bar, value in enumerate(returns.tolist()):
        monitor.observe(value, value)
        monitor.await_outcome(quantiles * (factor if bar >= spoilt_from else 1.0))
    return monitor


def test_forecasts_that_become_too_wide_show_in_the_errors_and_nowhere_else() -> None:
    returns = 0.01 * np.random.default_rng(11).standard_normal(2200)
    monitor = watched(returns, 0.01 * NORMAL, spoilt_from=1900, factor=2.5)
    assert {stream for stream, each in monitor.streams.items() if each.drifted} == {Stream.ERRORS}


def test_adwin_hears_of_it_too_and_says_so_for_a_while() -> None:
    returns = 0.01 * np.random.default_rng(12).standard_normal(3500)
    monitor = DriftMonitor(QUICK)
    heard = []
    for bar, value in enumerate(returns.tolist()):
        monitor.observe(value, value)
        monitor.await_outcome(0.01 * NORMAL * (3.0 if bar >= 1500 else 1.0))
        heard.append(monitor.errors_changed)
    assert not any(heard[:1500])
    assert any(heard[1500:1900])
    assert not heard[-1]


def test_what_lies_across_a_gap_is_held_against_nobody() -> None:
    monitor = DriftMonitor(QUICK)
    monitor.observe(0.01, 0.01)
    monitor.await_outcome(0.01 * NORMAL)
    monitor.forget_pending()
    monitor.observe(0.5, 0.5)
    assert len(monitor.streams[Stream.ERRORS]) == 0
    assert len(monitor.streams[Stream.DEPENDENCE]) == 0
    assert len(monitor.streams[Stream.RETURNS]) == 1
