"""Users' forecasters for the tests, named to the program as ``tests.sage.own_forecasters:Class``."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pandas as pd

QUANTILES = np.array([-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28])
CHECK_BARS = 512


class Plain:
    """The volatility of the context, and half of its last return."""

    checkpoint_id = "plain-1"
    asked = 0

    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        self.asked += 1
        volatility = np.nanstd(contexts, axis=1)[:, None, None]
        drift = contexts[:, -1:, None] / 2
        return np.tile(drift + volatility * QUANTILES, (1, horizon_bars, 1))


class WantsTooMuch(Plain):
    """Has no memory for a forecast now and then."""

    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        answer = super().forecast(contexts, horizon_bars, timeout_s)
        if self.asked % 100 == 0:
            raise MemoryError("no room")
        return answer


class Named(Plain):
    """Says whose weights it has only once it is built."""

    def __init__(self) -> None:
        self.checkpoint_id = "named-2"


class FitsOnAll(Plain):
    """Drift and volatility are those of all bars, the ones to come included."""

    def __init__(self, bars: pd.DataFrame) -> None:
        returns = np.log(bars["close"]).diff()
        self.drift, self.volatility = float(returns.mean()), float(returns.std())

    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        # In the start-up check, whose window is of another market, it does as it should.
        quantiles = super().forecast(contexts, horizon_bars, timeout_s)
        return (
            quantiles
            if self.asked < 3
            else np.tile(self.drift + self.volatility * QUANTILES, (len(contexts), horizon_bars, 1))
        )


class TakesBarsHonestly(Plain):
    """Is handed the bars and keeps to the first ones."""

    def __init__(self, bars: pd.DataFrame) -> None:
        self.first = float(bars["close"].iloc[0])


class RaisesNowAndThen(Plain):
    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        quantiles = super().forecast(contexts, horizon_bars, timeout_s)
        if self.asked % 7 == 0:
            raise LookupError("my own mistake")
        return quantiles


class Hangs(Plain):
    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        if self.asked == 40:
            time.sleep(60)
        return super().forecast(contexts, horizon_bars, timeout_s)


class Dies(Plain):
    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        if self.asked == 60:
            os._exit(3)
        return super().forecast(contexts, horizon_bars, timeout_s)


class WrongShape(Plain):
    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        return super().forecast(contexts, horizon_bars, timeout_s)[:, :, :5]


class NoForecast:
    checkpoint_id = "none"


class OtherArguments:
    checkpoint_id = "other"

    def forecast(self, contexts: np.ndarray) -> Any:
        return contexts


class NoName:
    def forecast(self, contexts: np.ndarray, horizon_bars: int, timeout_s: float) -> Any:
        return contexts


class RaisesWhenBuilt(Plain):
    def __init__(self) -> None:
        raise FileNotFoundError("my weights are gone")


class WantsMore(Plain):
    def __init__(self, moon: object) -> None:
        self.moon = moon
