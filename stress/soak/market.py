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
from data.synthetic import Simulation, SyntheticConfig

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
        self._next: tuple[int, Simulation] | None = None
        bars = max(LAP_BARS, segment_bars) if history is None else len(history.bars)
        self.segments_in_lap = bars // segment_bars
        lasts_ns = bars * plain.size.nanos
        if history is not None:
            lasts_ns = int(history.bars.ts_close_ns[-1] - history.bars.ts_close_ns[0]) + plain.size.nanos
        # In whole weeks, so that hours and days of the week stay what they were.
        self._lap_ns = math.ceil((lasts_ns + gap_s * 1e9) / _WEEK_NS) * _WEEK_NS

    def segment(self, number: int) -> Market:
        """The market of one segment."""
        lap, place = divmod(number, self.segments_in_lap)
        first = place * self.segment_bars
        if self._history is None:
            found = self._simulated(lap, place)
        else:
            found = self._history.bars[first : first + self.segment_bars]
        stamps, *values = found.columns()
        bars = Bars(stamps + lap * self._lap_ns, *values)
        market = self._plain
        nautilus_bars = to_nautilus(bars, market.instrument, market.size)
        return dataclasses.replace(market, bars=bars, nautilus_bars=nautilus_bars)

    def _simulated(self, lap: int, place: int) -> Bars:
        """A segment of a lap; the one after the last that was asked for costs no more than itself.

        Never a lap as a whole: arrays of its size come and go in steps of many megabytes, which memory would show.
        """
        wanted = lap * self.segments_in_lap + place
        if self._next is None or self._next[0] != wanted:
            simulation = Simulation(SyntheticConfig(seed=self._seed + lap))
            for _ in range(place):
                simulation.go_on(self.segment_bars)
        else:
            simulation = self._next[1]
        bars = simulation.go_on(self.segment_bars).bars
        self._next = (wanted + 1, simulation) if place + 1 < self.segments_in_lap else None
        return bars
