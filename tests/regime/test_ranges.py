"""Recent ranges: their mean, and the widening while they rise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.ranges import RISE_FROM, RISE_TO, Ranges


def fed(sizes: list[float], season_factor: float = 1.0) -> Ranges:
    ranges = Ranges()
    for size in sizes:
        ranges.update(100.0 * math.exp(size), 100.0, 100.0, season_factor)
    return ranges


def test_a_steady_market_has_its_range_and_no_rise() -> None:
    ranges = fed([0.02] * 50)
    assert ranges.recent == pytest.approx(0.02)
    assert ranges.rise == 1.0


def test_a_jump_from_the_close_before_belongs_to_the_range() -> None:
    ranges = Ranges()
    ranges.update(102.0, 101.0, 99.0, 1.0)
    assert ranges.recent == pytest.approx(math.log(102.0 / 99.0))


def test_an_hour_that_is_wild_every_day_counts_as_calm() -> None:
    assert fed([0.06] * 30, season_factor=3.0).recent == pytest.approx(0.02)


def test_ranges_that_double_widen_for_a_while() -> None:
    calm, wild = [0.01] * 500, [0.02] * 300
    rises = [fed(calm + wild[:bars]).rise for bars in range(0, 300, 10)]
    assert rises[0] == 1.0
    assert max(rises) == pytest.approx(math.exp(RISE_TO - RISE_FROM))
    assert min(rises[1:3]) > 1.2
    assert rises[-1] == 1.0
    assert fed([0.02] * 500 + [0.01] * 10).rise == 1.0


@given(st.lists(st.floats(0.0, 2.0), max_size=60))
def test_the_rise_is_bounded_whatever_bars_are_like(sizes: list[float]) -> None:
    ranges = fed(sizes)
    assert 1.0 <= ranges.rise <= math.exp(RISE_TO - RISE_FROM) + 1e-12
    assert np.isfinite(ranges.recent)
