"""The memory cache against the simplest thing that could be right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from regime.serving.memory import CacheConfig, ForecastCache

ITEM = 4  # bytes of a float32


def quantiles(size: int, mark: int = 0) -> NDArray[np.float32]:
    return np.full(size, mark, dtype=np.float32)


class Model:
    """Entries in a list, the most recently used last; everything by searching it."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.entries: list[tuple[bytes, int, NDArray[np.float32]]] = []

    def get(self, window: bytes, now: int) -> NDArray[np.float32] | None:
        for entry in self.entries:
            if entry[0] == window:
                self.entries.remove(entry)
                if self.config.ttl_bars is not None and not 0 <= now - entry[1] <= self.config.ttl_bars:
                    return None
                self.entries.append(entry)
                return entry[2]
        return None

    def put(self, window: bytes, values: NDArray[np.float32], now: int) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != window]
        if values.nbytes <= self.config.max_bytes:
            self.entries.append((window, now, values))
        while len(self.entries) > self.config.max_entries or self.nbytes > self.config.max_bytes:
            self.entries.pop(0)

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for _, _, values in self.entries)


configs = st.builds(
    CacheConfig,
    max_entries=st.integers(0, 5),
    max_bytes=st.integers(0, 12 * ITEM),
    ttl_bars=st.none() | st.integers(0, 6),
)
operations = st.lists(
    st.tuples(
        st.sampled_from(["get", "put"]),
        st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]),
        st.integers(0, 5),  # floats in the entry
        st.integers(-1, 4),  # bars that pass
    ),
    max_size=60,
)


@given(configs, operations)
def test_it_answers_as_the_model_does_and_never_exceeds_its_bounds(
    config: CacheConfig, steps: list[tuple[str, bytes, int, int]]
) -> None:
    cache, model, now = ForecastCache(config), Model(config), 0
    for mark, (operation, window, size, bars) in enumerate(steps):
        now += bars
        if operation == "put":
            values = quantiles(size, mark)
            cache.put(window, values, now)
            model.put(window, values, now)
        else:
            assert cache.get(window, now) is model.get(window, now)
        assert len(cache) == len(model.entries) <= config.max_entries
        assert cache.nbytes == model.nbytes <= config.max_bytes


def test_the_least_recently_used_leaves_first() -> None:
    cache = ForecastCache(CacheConfig(max_entries=2))
    cache.put(b"old", quantiles(1), 0)
    cache.put(b"used", quantiles(1), 0)
    cache.get(b"old", 0)
    cache.put(b"new", quantiles(1), 0)
    assert cache.get(b"used", 0) is None
    assert cache.get(b"old", 0) is not None


def test_an_entry_answers_for_its_time_and_no_bar_longer() -> None:
    cache = ForecastCache(CacheConfig(ttl_bars=3))
    cache.put(b"w", quantiles(1), 10)
    assert cache.get(b"w", 13) is not None
    assert cache.get(b"w", 14) is None
    assert len(cache) == 0


def test_reading_an_entry_does_not_prolong_its_time() -> None:
    cache = ForecastCache(CacheConfig(ttl_bars=3))
    cache.put(b"w", quantiles(1), 10)
    cache.get(b"w", 13)
    assert cache.get(b"w", 14) is None


def test_an_entry_from_a_later_bar_is_not_trusted() -> None:
    cache = ForecastCache(CacheConfig(ttl_bars=3))
    cache.put(b"w", quantiles(1), 10)
    assert cache.get(b"w", 9) is None


def test_without_a_time_to_live_an_entry_stays() -> None:
    cache = ForecastCache(CacheConfig())
    cache.put(b"w", quantiles(1), 0)
    assert cache.get(b"w", 10**9) is not None


def test_an_entry_too_large_is_not_kept_and_takes_the_older_one_with_it() -> None:
    cache = ForecastCache(CacheConfig(max_bytes=2 * ITEM))
    cache.put(b"w", quantiles(2), 0)
    cache.put(b"other", quantiles(0), 0)
    cache.put(b"w", quantiles(3), 0)
    assert cache.get(b"w", 0) is None
    assert cache.get(b"other", 0) is not None


@pytest.mark.parametrize("name", ["max_entries", "max_bytes", "ttl_bars"])
def test_negative_bounds_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        CacheConfig(**{name: -1})
