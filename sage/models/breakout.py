"""Volatility breakout: a close that leaves the channel by a bar larger than usual is followed for a while.

After Donchian's channel and the range expansion of Williams and Crabel: the close must lie beyond the high or low of
the 32 bars before, and its bar's true range (Wilder, 1978) exceed their average by half.
"""

from __future__ import annotations

import math

import numpy as np

from sage.models.alpha import AlphaView

CHANNEL_BARS = 32
EXPANSION = 1.5
_MEMORY_BARS = 64
_AVERAGE = np.full(CHANNEL_BARS, 1.0 / CHANNEL_BARS)


class BreakoutAlpha:
    """Follows the last breakout, less with every bar, for about the horizon."""

    name = "breakout"
    min_bars = CHANNEL_BARS + _MEMORY_BARS + 1
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        """The direction of the newest breakout, fading with its age; 0 where there was none lately."""
        recent = slice(-self.min_bars, None)
        highs, lows, closes = view.highs[recent], view.lows[recent], view.closes[recent]
        before = closes[:-1]
        ranges = np.maximum(highs[1:], before) - np.minimum(lows[1:], before)
        usual = np.convolve(ranges[:-1], _AVERAGE, mode="valid")
        # Bars that are large enough, the newest first; few are.
        for age_bars in np.flatnonzero((ranges[CHANNEL_BARS:] > EXPANSION * usual)[::-1]).tolist():
            at = len(closes) - 1 - age_bars
            channel = slice(at - CHANNEL_BARS, at)
            way = int(closes[at] > highs[channel].max()) - int(closes[at] < lows[channel].min())
            if way:
                return way * math.exp(-age_bars / view.horizon_bars)
        return 0.0
