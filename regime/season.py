"""The season of volatility within the day, learned as bars come: what a model of returns alone is not told.

A return is divided by its slot's factor before the model sees it, and the forecast for a bar is multiplied by the
factor of the slot in which it will fall. Factors rest on earlier bars only.

Sources: slot means of absolute returns, Andersen and Bollerslev (1997), Intraday periodicity and volatility
persistence; shrinkage towards no season at all, Efron and Morris (1973), Stein's estimation rule.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SLOT_SECONDS = 1800
DAY_SECONDS = 86_400

MEMORY_DAYS = 60.0
"""Days after which a slot's observation counts for 1/e of a new one."""

_LEVEL_BARS = 1000.0
_CLIP = 6.0
_MIN_DAYS = 3.0
"""A slot that was seen on fewer days has no factor of its own."""


def slot_of(ts_ns: int, last_ts_ns: int | None, bar_seconds: int) -> int:
    """A bar's place in the day: slots of half an hour (or a bar, if longer) UTC, by its open, from 1 on.

    Slot 0 is for the first bar after the market was closed, whose return spans the closure.
    """
    if last_ts_ns is not None and ts_ns - last_ts_ns > bar_seconds * 1_000_000_000:
        return 0
    opened_s = ts_ns // 1_000_000_000 - bar_seconds
    return 1 + opened_s % DAY_SECONDS // max(bar_seconds, SLOT_SECONDS)


class Season:
    """Volatility factors by slot of the day, around 1. Bars of half a day or more have none.

    A slot's bars of one day make one observation: their mean absolute return over the market's slow level, so that
    minutes that swarm together are not taken for independent evidence.
    """

    def __init__(self, bar_seconds: int) -> None:
        self.intraday = 2 * bar_seconds < DAY_SECONDS
        self._bar_seconds = bar_seconds
        slots = 2 + DAY_SECONDS // max(bar_seconds, SLOT_SECONDS)
        self._decay = math.exp(-1.0 / MEMORY_DAYS)
        self._weights, self._sums, self._squares = np.zeros(slots), np.zeros(slots), np.zeros(slots)
        self._factors = [1.0] * slots
        self._next_slot = [0] * slots
        self._run_lengths = [1.0] * slots
        self._slot = -1
        self._bars_in_slot = 0
        self._sum_in_slot = 0.0
        self._level = 0.0
        self._level_bars = 0.0
        self._observations = 0

    def observe(self, slot: int, log_return: float) -> float:
        """Take in the return of a bar in this slot; returns the factor that was known before it."""
        if not self.intraday:
            return 1.0
        if slot != self._slot:
            self._leave_slot(slot)
        factor = self._factors[slot]
        size = abs(log_return)
        self._level_bars = min(self._level_bars + 1.0, _LEVEL_BARS)
        self._level += (size - self._level) / self._level_bars
        if self._level > 0:
            self._sum_in_slot += min(size / self._level, _CLIP)
            self._bars_in_slot += 1
        return factor

    def outlook(self, bars: int) -> FloatArray:
        """The factors of the next bars, shape (bars,): slots follow each other as they did the last time."""
        if not self.intraday or self._slot < 0:
            return np.ones(bars)
        slot, left = self._slot, self._run_lengths[self._slot] - self._bars_in_slot
        found = []
        for _ in range(bars):
            if left <= 0:
                slot = self._next_slot[slot]
                left = self._run_lengths[slot]
            left -= 1
            found.append(self._factors[slot])
        return np.array(found)

    def _leave_slot(self, entered: int) -> None:
        """Close the present slot's day and enter another."""
        left, bars = self._slot, self._bars_in_slot
        if left >= 0 and bars:
            mean = self._sum_in_slot / bars
            decay = self._decay
            self._weights[left] = decay * self._weights[left] + 1.0
            self._sums[left] = decay * self._sums[left] + mean
            self._squares[left] = decay * self._squares[left] + mean * mean
            self._next_slot[left] = entered
            self._run_lengths[left] = bars
            self._observations += 1
            if self._observations % len(self._factors) == 0:
                self._factors = self._shrunk().tolist()
        self._slot, self._bars_in_slot, self._sum_in_slot = entered, 0, 0.0

    def _shrunk(self) -> FloatArray:
        """Slot means over their common mean, each drawn towards it by how little it is known."""
        factors = np.ones(len(self._weights))
        seen = self._weights >= _MIN_DAYS
        if seen.sum() < 2:
            return factors
        weights = self._weights[seen]
        means = self._sums[seen] / weights
        common = float(np.average(means, weights=weights))
        if not common > 0:
            return factors
        # One noise for all slots: a single slot's own is hardly known.
        noise = float(np.average(np.maximum(self._squares[seen] / weights - means**2, 0.0), weights=weights)) / weights
        between = max(0.0, float(np.average((means - common) ** 2 - noise, weights=weights)))
        kept = between / (between + noise) if between > 0 else np.zeros(len(noise))
        factors[seen] = 1.0 + kept * (means - common) / common
        return np.maximum(factors, 1.0 / _CLIP)
