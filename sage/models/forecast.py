"""The forecast alpha: how large the expected return is against its own uncertainty."""

from __future__ import annotations

import math

from regime.signal import Signal


def forecast_conviction(signal: Signal, gain: float) -> float:
    """Expected return over half its interval, times ``gain``, clipped to [-1, 1]; 0 where the interval is unbounded."""
    half_width = (signal.interval_high - signal.interval_low) / 2
    if not (math.isfinite(half_width) and half_width > 0):
        return 0.0
    return min(max(gain * signal.expected_return / half_width, -1.0), 1.0)
