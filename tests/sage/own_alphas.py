"""Users' alphas for the tests, named to the program as ``tests.sage.own_alphas:Class``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sage.models.alpha import AlphaView


class LastMove:
    name = "last move"
    min_bars = 2
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        return float(np.sign(view.returns[-1]))


class TakesBars(LastMove):
    """Honest about the bars that it is handed: looks no further than the bar it votes on."""

    name = "takes bars"

    def __init__(self, bars: pd.DataFrame) -> None:
        self.says = self.precompute(bars).fillna(0.0).to_dict()

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return np.sign(bars["close"].diff())

    def vote(self, view: AlphaView) -> float:
        return float(self.says[pd.Timestamp(view.signal.ts_event, tz="UTC")])


class PeeksOneBar(TakesBars):
    name = "peeks"

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        return np.sign(bars["close"].diff().shift(-1))


class ScalesOnAll(TakesBars):
    name = "scales"

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        returns = bars["close"].pct_change()
        return np.tanh((returns - returns.mean()) / returns.std())


class StampedAtOpen(TakesBars):
    name = "stamped at the open"

    def precompute(self, bars: pd.DataFrame) -> pd.Series:
        resampled = np.sign(bars["close"].resample("4h").last().diff())
        return resampled.reindex(bars.index, method="ffill")


class RaisesNowAndThen(LastMove):
    name = "raises"

    def vote(self, view: AlphaView) -> float:
        if view.signal.ts_event // 3_600_000_000_000 % 5 == 0:
            raise OverflowError("my own mistake")
        return 0.5


class NoVote:
    name = "none"
    min_bars = 2
    needs_model = False


class RaisesWhenBuilt(LastMove):
    def __init__(self) -> None:
        raise ConnectionError("no such feed")
