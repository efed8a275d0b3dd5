"""What a model must show when it is started, before anyone relies on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from regime.errors import ForecastFailed
from regime.forecast import Forecast, Forecaster
from regime.signal import Reason

CHECK_BARS = 512
CHECK_HORIZON_BARS = 16

_VOLATILITY = 0.01


def check(model: Forecaster, stopwatch: Callable[[], float], timeout_s: float) -> float:
    """Forecast a simulated window, twice: its quantiles must be finite, in order and of the window's scale.

    Parameters
    ----------
    model
        To be checked.
    stopwatch
        Seconds that pass.
    timeout_s
        For each forecast.

    Returns
    -------
    Milliseconds that the second forecast took; the first one is slower by nature.

    Raises
    ------
    ForecastFailed
        With the model's reason, or MODEL_UNAVAILABLE where it answers nonsense.
    """
    rng = np.random.default_rng(1)
    window = (_VOLATILITY * rng.standard_normal((1, CHECK_BARS))).astype(np.float32)
    took_ms = 0.0
    for _ in range(2):
        began = stopwatch()
        answer = model.forecast(window, CHECK_HORIZON_BARS, timeout_s)
        took_ms = 1e3 * (stopwatch() - began)
    scale = Forecast.of(answer[0], CHECK_HORIZON_BARS).scale(_VOLATILITY)
    if isinstance(scale, Reason):
        raise ForecastFailed(
            Reason.MODEL_UNAVAILABLE, f"the model fails its start-up check: {scale} in a forecast of simulated returns"
        )
    return took_ms
