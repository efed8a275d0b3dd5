"""A formulaic alpha of the reversal family: what has run ahead comes back.

Four formulas, each scale-free and in [-1, 1], averaged; the numbers are those of Kakushadze's 101 Formulaic Alphas
(2016), which rank across a market of shares, and are taken here along the time of one instrument:

- short-term reversal over 4 bars (Lehmann, 1990; Jegadeesh, 1990), in standard deviations;
- number 12: against the change of the close where volume rises, with it where volume falls;
- number 53: against the change of where closes lie in their bars;
- number 4: against the rank of the low among the last ones.
"""

from __future__ import annotations

import math

import numpy as np

from sage.models.alpha import AlphaView

SPREAD_BARS = 64
_REVERSAL_BARS, _VOLUME_BARS, _PLACE_BARS, _RANK_BARS = 4, 8, 12, 16


class ReversalAlpha:
    """Goes against the last few bars."""

    name = "reversal"
    min_bars = SPREAD_BARS + 1
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        """The mean of the four formulas; 0 where prices stand still."""
        returns = view.returns[-SPREAD_BARS:]
        spread = float(np.sqrt(np.mean(returns**2)))
        if not spread > 0.0:
            return 0.0
        reversal = -math.tanh(float(returns[-_REVERSAL_BARS:].sum()) / (spread * math.sqrt(_REVERSAL_BARS)))
        # Where volume is unknown, all 0, it never changes and nothing is said.
        swing = np.sign(np.diff(view.volumes[-_VOLUME_BARS - 1 :])) @ returns[-_VOLUME_BARS:]
        volume = -math.tanh(float(swing) / (spread * math.sqrt(_VOLUME_BARS)))
        return (reversal + volume + _place(view) + _rank(view)) / 4.0


def _place(view: AlphaView) -> float:
    """Against how much higher in their bars the last 3 closes lie than those of the 9 bars before."""
    last = slice(-_PLACE_BARS, None)
    ranges = view.highs[last] - view.lows[last]
    above = 2.0 * view.closes[last] - view.highs[last] - view.lows[last]
    place = np.divide(above, ranges, out=np.zeros(_PLACE_BARS), where=ranges > 0.0)
    return -float(place[-3:].mean() - place[:-3].mean()) / 2.0


def _rank(view: AlphaView) -> float:
    lows = view.lows[-_RANK_BARS:]
    below, above = int((lows < lows[-1]).sum()), int((lows > lows[-1]).sum())
    return (above - below) / (_RANK_BARS - 1.0)
