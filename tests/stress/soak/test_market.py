"""Bars without end."""

from __future__ import annotations

import numpy as np
import pytest

from data.errors import DataError
from data.market import synthetic_market
from data.synthetic import SyntheticConfig
from stress.soak.market import LAP_BARS, EndlessMarket

HOUR_NS = 3_600_000_000_000
WEEK_NS = 7 * 24 * HOUR_NS


def test_segments_follow_each_other_without_a_gap_within_a_lap() -> None:
    market = EndlessMarket(500, gap_s=0.0, seed=3)
    bars = [market.segment(number).bars for number in range(3)]
    stamps = np.concatenate([one.ts_close_ns for one in bars])
    assert len(stamps) == 1500 and (np.diff(stamps) == HOUR_NS).all()
    assert bars[1].open[0] == bars[0].close[-1]


def test_a_lap_ends_with_a_gap_and_hours_and_weekdays_stay_what_they_were() -> None:
    gap_s = 26 * 3600.0
    market = EndlessMarket(5_000, gap_s, seed=3)
    laps = LAP_BARS // 5_000
    last, first, begin = (market.segment(number) for number in (laps - 1, laps, 0))
    assert first.bars.ts_close_ns[0] - last.bars.ts_close_ns[-1] > gap_s * 1e9
    assert (first.bars.ts_close_ns[0] - begin.bars.ts_close_ns[0]) % WEEK_NS == 0
    assert not np.array_equal(first.bars.close, begin.bars.close)  # a new lap is a new market


def test_any_segment_is_the_same_whoever_asks_and_when() -> None:
    one, other = EndlessMarket(400, 0.0, 5), EndlessMarket(400, 0.0, 5)
    for number in (130, 2):
        assert one.segment(number).bars.sha256() == other.segment(number).bars.sha256()
    assert [bar.ts_init for bar in one.segment(2).nautilus_bars] == one.segment(2).bars.ts_close_ns.tolist()


def test_a_history_comes_again_and_again_in_segments_of_equal_length() -> None:
    history = synthetic_market(SyntheticConfig(bars=1_050, seed=9))
    market = EndlessMarket(300, 3600.0, 1, history)
    assert market.segments_in_lap == 3
    again = market.segment(3)
    assert np.array_equal(again.bars.close, history.bars.close[:300])
    assert again.bars.ts_close_ns[0] > market.segment(2).bars.ts_close_ns[-1] + HOUR_NS


def test_a_history_shorter_than_a_segment_is_refused() -> None:
    with pytest.raises(DataError, match="100 bars are fewer than a segment of 300"):
        EndlessMarket(300, 0.0, 1, synthetic_market(SyntheticConfig(bars=100)))
