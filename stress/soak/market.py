"""Bars without end, in segments of equal length: simulated ones, or a catalog's again and again with shifted time.

Time goes on from segment to segment, so that a detector sees one long history. A lap ends where the catalog does, or
where a simulated price may have wandered too far for its ticks; the next one begins behind a gap, as after an outage.
"""

from __future__ import annotations

import dataclasses
import math

from data.bars import Bars
from data.catalog import to_nautilus
from data.errors import DataError
from data.market import Market, synthetic_market
from data.synthetic import SyntheticConfig, simulate

LAP_BARS = 50_000
"""Of a simulated lap: its price seldom leaves a hundredth or a hundred times where it began."""

_WEEK_NS = 7 * 86_400 * 1_000_000_000


class EndlessMarket:
    """Segments by number, from 0; any of them can be asked for, in any process.

    Parameters
    ----------
    segment_bars
        Bars of a segment.
    gap_s
        At least so much time lies between two laps.
    seed
        Of the simulated market.
    history
        A market to go over again and again, in the place of the simulated one.

    Raises
    ------
    DataError
        If the history has fewer bars than a segment.
    """

    def __init__(self, segment_bars: int, gap_s: float, seed: int, history: Market | None = None) -> None:
        self.segment_bars = segment_bars
        self._seed = seed
        if history is not None and len(history.bars) < segment_bars:
            raise DataError(
                f"{history.description}: {len(history.bars):,} bars are fewer than a segment of {segment_bars:,}; "
                "take a longer history"
            )
        self._history = history
        plain = history or synthetic_market(SyntheticConfig(bars=1, seed=seed))
        self._plain = dataclasses.replace(plain, nautilus_bars=[], labels=None)
        self._lap = 0, self._simulated(0) if history is None else history.bars
        self.segments_in_lap = len(self._lap[1]) // segment_bars
        stamps = self._lap[1].ts_close_ns
        # In whole weeks, so that hours and days of the week stay what they were.
        weeks = math.ceil((int(stamps[-1] - stamps[0]) + self._plain.size.nanos + gap_s * 1e9) / _WEEK_NS)
        self._lap_ns = weeks * _WEEK_NS

    def segment(self, number: int) -> Market:
        """The market of one segment."""
        lap, place = divmod(number, self.segments_in_lap)
        if self._history is None and self._lap[0] != lap:
            self._lap = lap, self._simulated(lap)
        first = place * self.segment_bars
        stamps, *values = self._lap[1][first : first + self.segment_bars].columns()
        bars = Bars(stamps + lap * self._lap_ns, *values)
        market = self._plain
        nautilus_bars = to_nautilus(bars, market.instrument, market.size)
        return dataclasses.replace(market, bars=bars, nautilus_bars=nautilus_bars)

    def _simulated(self, lap: int) -> Bars:
        # More bars of a simulation only add to the end of fewer, so that its length is of no account.
        return simulate(SyntheticConfig(bars=max(LAP_BARS, self.segment_bars), seed=self._seed + lap)).bars
