"""The forecast alpha: how large the expected return is against its own uncertainty."""

from __future__ import annotations

import math

from regime.signal import Signal
from sage.models.alpha import AlphaView


class ForecastAlpha:
    """Votes with the model's forecast, and not at all where the model did not answer.

    Parameters
    ----------
    gain
        See :func:`forecast_conviction`.
    """

    name = "forecast"
    min_bars = 1
    needs_model = True

    def __init__(self, gain: float) -> None:
        self._gain = gain

    def vote(self, view: AlphaView) -> float:
        """The forecast's conviction."""
        return forecast_conviction(view.signal, self._gain)


def forecast_conviction(signal: Signal, gain: float) -> float:
    """Expected return over half its interval, times ``gain``, clipped to [-1, 1]; 0 where the interval is unbounded."""
    half_width = (signal.interval_high - signal.interval_low) / 2
    if not (math.isfinite(half_width) and half_width > 0):
        return 0.0
    return min(max(gain * signal.expected_return / half_width, -1.0), 1.0)
