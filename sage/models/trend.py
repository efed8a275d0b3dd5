"""A formulaic alpha of the trend family: what has risen goes on rising.

Four formulas, each scale-free and in [-1, 1], averaged:

- time-series momentum over 32, 64 and 128 bars (Moskowitz, Ooi and Pedersen, 2012), in standard deviations;
- the gap between a fast and a slow moving average, answered less the further it has gone (Baz et al., 2015);
- where the close lies in the range of the last 128 bars (Donchian's channel);
- bodies against ranges, (close - open) / (high - low), on average: number 101 of Kakushadze's 101 Formulaic Alphas
  (2016).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sage.models.alpha import AlphaView

FloatArray = NDArray[np.float64]

BARS = 128
_MOMENTUM_BARS = (32, 64, 128)
_BODY_BARS = 32


def _decaying(span_bars: float) -> FloatArray:
    """Weights of an exponential average over the window, sum 1, the newest bar last."""
    weights = (1.0 - 2.0 / (span_bars + 1.0)) ** np.arange(BARS)[::-1]
    normalised: FloatArray = weights / weights.sum()
    return normalised


_CROSSING = _decaying(16) - _decaying(64)
# How far the gap between the averages spreads for a random walk of unit steps: log closes are cumulated returns.
_CROSSING_SPREAD = float(np.sqrt((np.cumsum(_CROSSING[::-1])[::-1][1:] ** 2).sum()))
_ANSWER_PEAK = math.sqrt(2.0) * math.exp(-0.5)


class TrendAlpha:
    """Goes with the trend."""

    name = "trend"
    min_bars = BARS + 1
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        """The mean of the four formulas; 0 where prices stand still."""
        returns = view.returns[-BARS:]
        spread = float(np.sqrt(np.mean(returns**2)))
        if not spread > 0.0:
            return 0.0
        momentum = sum(math.tanh(float(returns[-bars:].sum()) / (spread * math.sqrt(bars))) for bars in _MOMENTUM_BARS)
        parts = (momentum / len(_MOMENTUM_BARS), self._crossing(view, spread), self._channel(view), self._bodies(view))
        return sum(parts) / len(parts)

    def _crossing(self, view: AlphaView, spread: float) -> float:
        closes = view.closes[-BARS:]
        gap = float(_CROSSING @ np.log(closes / closes[-1])) / (spread * _CROSSING_SPREAD)
        return gap * math.exp(-(gap**2) / 4.0) / _ANSWER_PEAK

    def _channel(self, view: AlphaView) -> float:
        high, low = float(view.highs[-BARS:].max()), float(view.lows[-BARS:].min())
        return 2.0 * (float(view.closes[-1]) - low) / (high - low) - 1.0 if high > low else 0.0

    def _bodies(self, view: AlphaView) -> float:
        last = slice(-_BODY_BARS, None)
        ranges = view.highs[last] - view.lows[last]
        bodies = np.divide(view.closes[last] - view.opens[last], ranges, out=np.zeros(_BODY_BARS), where=ranges > 0.0)
        return math.tanh(float(bodies.mean()) * math.sqrt(_BODY_BARS))
