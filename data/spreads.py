"""Bid-ask spreads by the hour, measured where both sides of a market are known, kept beside its bars."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import Bars, FloatArray, IntArray
from data.holes import NONE, Holes

HOUR_NS = 3_600_000_000_000
_HOURS = 24


def hour_of(ts_close_ns: IntArray) -> IntArray:
    """The hour in which bars lie, counted from the epoch, by their closes: one at 11:00 lies in the hour from 10:00."""
    return np.asarray((ts_close_ns - 1) // HOUR_NS)


@dataclass(frozen=True)
class HourlySpreads:
    """Mean half-spread in basis points of the mid price at the closes of each hour's bars, hours in time order.

    ``hour`` counts hours from the epoch, UTC; ``bars`` is how many closes the mean is of. All have shape (hours,).
    """

    hour: IntArray
    half_spread_bps: FloatArray
    bars: IntArray

    @classmethod
    def measure(cls, bid: Bars, ask: Bars) -> HourlySpreads:
        """From the two sides' bars, which must have the same times; an ask below the bid is no spread."""
        middle = (bid.close + ask.close) / 2.0
        half = 1e4 * np.maximum(ask.close - bid.close, 0.0) / 2.0 / middle
        hour, row = np.unique(hour_of(bid.ts_close_ns), return_inverse=True)
        count = np.bincount(row)
        return cls(hour, np.bincount(row, weights=half) / count, count.astype(np.int64))

    @classmethod
    def together(cls, parts: Sequence[HourlySpreads]) -> HourlySpreads:
        """Measurements of successive bars as one; an hour may lie in two of them."""
        bars = np.concatenate([part.bars for part in parts])
        total = np.concatenate([part.half_spread_bps for part in parts]) * bars
        hour, row = np.unique(np.concatenate([part.hour for part in parts]), return_inverse=True)
        count = np.bincount(row, weights=bars)
        return cls(hour, np.bincount(row, weights=total) / count, count.astype(np.int64))

    @classmethod
    def parse(cls, text: str) -> HourlySpreads:
        """From what :meth:`as_csv` wrote. Raises ValueError or KeyError for anything else."""
        frame = pd.read_csv(io.StringIO(text), float_precision="round_trip")
        hour = frame["hour_from_epoch"].to_numpy(dtype=np.int64)
        half, bars = frame["half_spread_bps"].to_numpy(dtype=np.float64), frame["bars"].to_numpy(dtype=np.int64)
        if not (np.isfinite(half).all() and (half >= 0).all() and (bars > 0).all() and (np.diff(hour) > 0).all()):
            raise ValueError("half-spreads must be numbers of zero or more, in the order of their hours")
        return cls(hour, half, bars)

    def as_csv(self) -> str:
        """As text, one hour a line."""
        frame = {"hour_from_epoch": self.hour, "half_spread_bps": self.half_spread_bps, "bars": self.bars}
        return pd.DataFrame(frame).to_csv(index=False, lineterminator="\n")

    def updated(self, newer: HourlySpreads, holes: Holes = NONE) -> HourlySpreads:
        """With another measurement in the place of this one's from its first hour to its last, but for holes in it."""
        kept = (self.hour < newer.hour[0]) | (self.hour > newer.hour[-1]) | self._in(holes)
        kept &= ~np.isin(self.hour, newer.hour)
        order = np.argsort(np.concatenate([self.hour[kept], newer.hour]), kind="stable")

        def both(of_self: NDArray[np.generic], of_newer: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.concatenate([of_self[kept], of_newer])[order]

        return HourlySpreads(
            np.asarray(both(self.hour, newer.hour), dtype=np.int64),
            np.asarray(both(self.half_spread_bps, newer.half_spread_bps), dtype=np.float64),
            np.asarray(both(self.bars, newer.bars), dtype=np.int64),
        )

    def without(self, first_ns: int, last_ns: int, holes: Holes = NONE) -> HourlySpreads:
        """Without the hours of the bars that close from one time to another, but for those in holes of them."""
        first, last = hour_of(np.array([first_ns, last_ns]))
        kept = (self.hour < first) | (self.hour > last) | self._in(holes)
        return HourlySpreads(self.hour[kept], self.half_spread_bps[kept], self.bars[kept])

    def _in(self, holes: Holes) -> NDArray[np.bool_]:
        """The hours all of whose bars lie in holes."""
        return holes.contain(self.hour * HOUR_NS + 1) & holes.contain((self.hour + 1) * HOUR_NS)

    def by_hour_of_day(self) -> FloatArray:
        """Mean half-spread of each hour of the day over all bars, basis points, shape (24,); NaN where there is none.

        For people; what a run charges is :meth:`half_spread_before`.
        """
        total, bars = np.zeros(_HOURS), np.zeros(_HOURS)
        np.add.at(total, self.hour % _HOURS, self.half_spread_bps * self.bars)
        np.add.at(bars, self.hour % _HOURS, self.bars)
        mean: FloatArray = np.divide(total, bars, out=np.full(_HOURS, math.nan), where=bars > 0)
        return mean

    def half_spread_before(self, ts_ns: int) -> float | None:
        """What is known of the half-spread at a time, in basis points, or None.

        That is the mean of this hour of the day over all earlier days; where it was never seen, of all earlier hours.
        Hours that are not over count for nothing, so that no cost depends on what comes later.
        """
        now = int(hour_of(np.array([ts_ns]))[0])
        hours, total, bars = self._sums[now % _HOURS]
        seen = int(np.searchsorted(hours, now))
        if seen == 0:
            hours, total, bars = self._sums[_HOURS]
            seen = int(np.searchsorted(hours, now))
        return float(total[seen - 1] / bars[seen - 1]) if seen else None

    @cached_property
    def _sums(self) -> list[tuple[IntArray, FloatArray, IntArray]]:
        """Running sums by hour of the day, and of all hours in the last place."""
        chosen = [np.flatnonzero(self.hour % _HOURS == hour) for hour in range(_HOURS)]
        return [
            (self.hour[rows], np.cumsum(self.half_spread_bps[rows] * self.bars[rows]), np.cumsum(self.bars[rows]))
            for rows in (*chosen, np.arange(len(self.hour)))
        ]
