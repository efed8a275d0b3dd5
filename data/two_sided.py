"""Bid and ask bars of one market: the mid prices between them, and the spread that they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.bars import Bars, BarSize, IntArray, joined
from data.calendars import ALWAYS_OPEN, Calendar
from data.errors import DataError
from data.gaps import gaps_of
from data.quality import QualityReport, rejected_bars
from data.spool import BarParts
from data.spreads import HourlySpreads

ONE_SIDE = "one side only"


@dataclass(frozen=True)
class Side:
    """One side's bars as they were checked; ``path`` is the first of its files."""

    path: Path
    bars: BarParts
    report: QualityReport


@dataclass(frozen=True)
class _Met:
    """What two sides have for the same stretch of time: bars of the same closes, and those that one side lacks."""

    bid: Bars
    ask: Bars
    bid_alone: Bars
    ask_alone: Bars

    def mid(self) -> Bars:
        """The means of the prices; the volume is the bid's."""
        bid, ask = self.bid, self.ask
        return Bars(
            bid.ts_close_ns,
            (bid.open + ask.open) / 2.0,
            (bid.high + ask.high) / 2.0,
            (bid.low + ask.low) / 2.0,
            (bid.close + ask.close) / 2.0,
            bid.volume,
        )


def middle(
    bid: Side,
    ask: Side,
    size: BarSize,
    reject: Callable[[pd.DataFrame], None],
    calendar: Calendar = ALWAYS_OPEN,
) -> tuple[BarParts, HourlySpreads, QualityReport]:
    """Join two sides; bars that only one of them has go to ``reject``.

    Open, high, low and close are the means of the two sides', volume is the bid's. High and low are so somewhat too
    wide: the two sides need not have been there at one moment.

    Returns
    -------
    The bars, the spreads at their closes, and one report of both sides. A bar that closes with the ask below the bid is
    kept, as if there were no spread: the sides were not recorded at quite the same moment.

    Raises
    ------
    DataError
        If no bar has two sides, or most close with the ask below the bid.
    """
    crossed = 0
    stamps: list[IntArray] = []
    spreads: list[HourlySpreads] = []
    alone = 0
    for met in _meetings(bid.bars, ask.bars):
        alone += len(met.bid_alone) + len(met.ask_alone)
        reject(rejected_bars(met.bid_alone, str(bid.path), ONE_SIDE))
        reject(rejected_bars(met.ask_alone, str(ask.path), ONE_SIDE))
        if len(met.bid):
            crossed += int((met.ask.close < met.bid.close).sum())
            stamps.append(met.bid.ts_close_ns[[0, -1]])
            spreads.append(HourlySpreads.measure(met.bid, met.ask))
    count = sum(int(one.bars.sum()) for one in spreads)
    if count == 0:
        raise DataError(f"{bid.path} and {ask.path}: no bar has both sides; do they belong together?")
    if crossed > count / 2:
        raise DataError(
            f"{bid.path} and {ask.path}: {crossed:,} of {count:,} bars close with the ask below the bid; were the "
            "two sides taken for each other? SOURCE is the bid, --ask the ask"
        )
    notes = ["bid and ask: bars are of mid prices, volume is the bid's"]
    if crossed:
        notes.append(f"bid and ask: {crossed:,} bars close with the ask below the bid; counted as no spread")

    def mids() -> Iterator[Bars]:
        return (met.mid() for met in _meetings(bid.bars, ask.bars) if len(met.bid))

    bars = BarParts(count, int(stamps[0][0]), int(stamps[-1][-1]), mids)
    rejected = Counter(bid.report.rejected) + Counter(ask.report.rejected) + Counter({ONE_SIDE: alone})
    report = QualityReport(
        rows_read=bid.report.rows_read + ask.report.rows_read,
        rows_accepted=2 * count,
        rejected=dict(rejected),
        gaps=gaps_of(bars, size, calendar),
        notes=[*bid.report.notes, *ask.report.notes, *notes],
    )
    return bars, HourlySpreads.together(spreads), report


def _meetings(bid: BarParts, ask: BarParts) -> Iterator[_Met]:
    """Both sides along time, some bars at a time: up to where the shorter of two parts ends."""
    bids, asks = iter(bid), iter(ask)
    low, high = next(bids, None), next(asks, None)
    while low is not None and high is not None:
        until = min(int(low.ts_close_ns[-1]), int(high.ts_close_ns[-1]))
        bid_now, ask_now = (
            side[slice(0, int(np.searchsorted(side.ts_close_ns, until, "right")))] for side in (low, high)
        )
        yield _met(bid_now, ask_now)
        low = low[slice(len(bid_now), None)] if len(bid_now) < len(low) else next(bids, None)
        high = high[slice(len(ask_now), None)] if len(ask_now) < len(high) else next(asks, None)
    nothing = joined([])
    while low is not None:
        yield _met(low, nothing)
        low = next(bids, None)
    while high is not None:
        yield _met(nothing, high)
        high = next(asks, None)


def _met(bid: Bars, ask: Bars) -> _Met:
    both, of_bid, of_ask = np.intersect1d(bid.ts_close_ns, ask.ts_close_ns, assume_unique=True, return_indices=True)
    alone = (side[~np.isin(side.ts_close_ns, both)] for side in (bid, ask))
    return _Met(bid[of_bid], ask[of_ask], *alone)
