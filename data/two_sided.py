"""Bid and ask bars of one market: the mid prices between them, and the spread that they show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import Bars, BarSize, iso
from data.errors import DataError
from data.quality import QualityReport, find_gaps
from data.spreads import HourlySpreads

ONE_SIDE = "one side only"


@dataclass(frozen=True)
class Side:
    """One side's bars as they were checked; ``path`` is the first of its files."""

    path: Path
    bars: Bars
    report: QualityReport
    rejected: pd.DataFrame


def middle(bid: Side, ask: Side, size: BarSize) -> tuple[Bars, HourlySpreads, QualityReport, pd.DataFrame]:
    """Join two sides.

    Open, high, low and close are the means of the two sides', volume is the bid's. High and low are so somewhat too
    wide: the two sides need not have been there at one moment.

    Returns
    -------
    The bars, the spreads at their closes, one report and the rejected rows of both sides; bars that only one side has
    are rejected. One that closes with the ask below the bid is kept, as if there were no spread: the sides were not
    recorded at quite the same moment.

    Raises
    ------
    DataError
        If no bar has two sides, or most close with the ask below the bid.
    """
    both, of_bid, of_ask = np.intersect1d(bid.bars.ts_close_ns, ask.bars.ts_close_ns, return_indices=True)
    lone = [_rejected(side, ~np.isin(side.bars.ts_close_ns, both)) for side in (bid, ask)]
    rejected = pd.concat([bid.rejected, ask.rejected, *lone], ignore_index=True)
    low, high = bid.bars[of_bid], ask.bars[of_ask]
    if len(low) == 0:
        raise DataError(f"{bid.path} and {ask.path}: no bar has both sides; do they belong together?")
    crossed = int((high.close < low.close).sum())
    if crossed > len(low) / 2:
        raise DataError(
            f"{bid.path} and {ask.path}: {crossed:,} of {len(low):,} bars close with the ask below the bid; were the "
            "two sides taken for each other? SOURCE is the bid, --ask the ask"
        )
    notes = ["bid and ask: bars are of mid prices, volume is the bid's"]
    if crossed:
        notes.append(f"bid and ask: {crossed:,} bars close with the ask below the bid; counted as no spread")
    bars = Bars(
        low.ts_close_ns,
        (low.open + high.open) / 2.0,
        (low.high + high.high) / 2.0,
        (low.low + high.low) / 2.0,
        (low.close + high.close) / 2.0,
        low.volume,
    )
    report = QualityReport(
        rows_read=bid.report.rows_read + ask.report.rows_read,
        rows_accepted=2 * len(bars),
        rejected={str(name): int(count) for name, count in rejected["reason"].value_counts(sort=False).items()},
        gaps=find_gaps(bars.ts_close_ns, size),
        notes=[*bid.report.notes, *ask.report.notes, *notes],
    )
    return bars, HourlySpreads.measure(low, high), report, rejected


def _rejected(side: Side, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """Bars in the form of rejected rows; their place in the file is not known any more, so it is 0."""
    bars = side.bars[rows]
    fields = [f"closes {iso(int(ts))} at {close:.10g}" for ts, close in zip(bars.ts_close_ns, bars.close, strict=True)]
    return pd.DataFrame({"file": str(side.path), "row": 0, "reason": ONE_SIDE, "fields": fields})
