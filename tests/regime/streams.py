"""Bars and forecasters for tests of the regime path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.detector import Detector
from regime.forecast import QUANTILE_LEVELS, Context
from regime.signal import BarRejected, Signal
from regime.window import BarInput

HOUR_S = 3600
HOUR_NS = HOUR_S * 1_000_000_000
START_NS = 1_700_000_000_000_000_000 // HOUR_NS * HOUR_NS

# Quantiles of the standard normal distribution at 0.1 to 0.9.
NORMAL = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])

Answer = NDArray[np.float32]


def bars(count: int, seed: int = 1, volatility: float = 0.01, start: int = 0) -> list[BarInput]:
    """A random walk on a grid of hours."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, size=count)))
    opened = np.concatenate([[100.0], close[:-1]])
    spread = 1.0 + np.abs(rng.normal(0.0, volatility / 2, size=count))
    high, low = np.maximum(opened, close) * spread, np.minimum(opened, close) / spread
    return [
        BarInput(START_NS + (start + index) * HOUR_NS, *map(float, row), 10.0)
        for index, row in enumerate(zip(opened, high, low, close, strict=True))
    ]


def shifted(bar: BarInput, hours: float) -> BarInput:
    """The same bar at another time."""
    return BarInput(bar.ts_ns + int(hours * HOUR_NS), bar.open, bar.high, bar.low, bar.close, bar.volume)


def normal_forecast(horizon_bars: int, volatility: float = 0.01, drift: float = 0.0) -> Answer:
    """What an honest model says of a random walk; shape (horizon_bars, 9)."""
    return np.tile((drift + volatility * NORMAL).astype(np.float32), (horizon_bars, 1))


class ScriptedForecaster:
    """Answers what a script says, given the number of the call; the script may raise."""

    checkpoint_id = "0123456789abcdef"

    def __init__(self, script: Callable[[int, int], Answer] | None = None) -> None:
        self._script = script or (lambda call, horizon: normal_forecast(horizon))
        self.calls = 0
        self.contexts: list[Context] = []
        self.timeouts_s: list[float] = []

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> Answer:
        """See regime.forecast.Forecaster."""
        self.calls += 1
        self.contexts.append(contexts[0].copy())
        self.timeouts_s.append(timeout_s)
        return self._script(self.calls, horizon_bars)[None]


def detector(forecaster: ScriptedForecaster | None, config: RegimeConfig | None = None) -> Detector:
    """A detector of hourly bars."""
    return Detector(config or RegimeConfig(), "TEST.SIM", HOUR_S, forecaster)


def signals_of(subject: Detector, stream: list[BarInput]) -> list[Signal]:
    """Step through accepted bars."""
    answers = [subject.step(bar) for bar in stream]
    assert all(isinstance(answer, Signal) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Signal)]


def last_answer(subject: Detector, stream: list[BarInput]) -> Signal | BarRejected:
    """Step through bars and return the last answer."""
    return [subject.step(bar) for bar in stream][-1]


assert len(NORMAL) == len(QUANTILE_LEVELS)
