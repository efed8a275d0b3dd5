"""Canonical features with an online learner: what the last 128 returns look like, and what followed such looks.

The 22 features of catch22 (Lubba et al., 2019, by ``pycatch22``) see the shape of a series and neither its mean nor
its scale; drift and change of volatility are added. A logistic regression (``river``) learns whether the price rose
over the horizon, from matured outcomes alone.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pycatch22
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from sage.models.alpha import AlphaView, Outcome

BARS = 128
EVERY_BARS = 8
"""Features take a fifth of a millisecond, and 128 returns look much the same a bar later."""

_LEARNING_RATE = 0.003
_PENALTY = 0.01
_FEATURE_LIMIT = 3.0
_GAIN = 2.0


class FeaturesAlpha:
    """Votes by the probability of a rise, learned as outcomes come due."""

    name = "features"
    min_bars = BARS + 1
    needs_model = False

    def __init__(self) -> None:
        self._scaler = StandardScaler()
        self._learner = LogisticRegression(optimizer=SGD(_LEARNING_RATE), l2=_PENALTY)
        self._pending: deque[tuple[int, dict[str, float]]] = deque()
        self._calls = 0
        self._vote = 0.0

    def vote(self, view: AlphaView) -> float:
        """Twice the probability of a rise, less 1, times a gain; renewed every :data:`EVERY_BARS`."""
        if self._calls % EVERY_BARS == 0:
            features = features_of(view.returns[-BARS:])
            self._scaler.learn_one(features)
            scaled = self._scaled(features)
            self._pending.append((view.signal.ts_event, scaled))
            rise = float(self._learner.predict_proba_one(scaled).get(True, 0.5))
            self._vote = min(max(_GAIN * (2.0 * rise - 1.0), -1.0), 1.0)
        self._calls += 1
        return self._vote

    def learn(self, outcome: Outcome) -> None:
        """Learn from what followed the features of that bar, if it was one that had any."""
        while self._pending and self._pending[0][0] < outcome.ts_ns:
            self._pending.popleft()  # its vote was never judged
        if self._pending and self._pending[0][0] == outcome.ts_ns:
            _, features = self._pending.popleft()
            if outcome.log_return != 0.0:
                self._learner.learn_one(features, outcome.log_return > 0.0)

    def _scaled(self, features: dict[str, float]) -> dict[str, float]:
        """In standard deviations so far; one strange window must not turn the learner over."""
        scaled = self._scaler.transform_one(features)
        return {name: min(max(value, -_FEATURE_LIMIT), _FEATURE_LIMIT) for name, value in scaled.items()}


def features_of(returns: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    """catch22 of the returns, shape (bars,), with their drift and the change of their volatility; all scale-free."""
    deviation = float(returns.std())
    if not deviation > 0.0:
        return {}
    half = len(returns) // 2
    found = pycatch22.catch22_all(((returns - returns.mean()) / deviation).tolist())
    features = dict(zip(found["names"], found["values"], strict=True))
    features["drift"] = float(returns.mean()) / deviation * math.sqrt(len(returns))
    features["recent_drift"] = float(returns[-half // 2 :].mean()) / deviation * math.sqrt(half / 2)
    features["volatility_change"] = float(returns[half:].std()) / deviation - 1.0
    return {name: value if math.isfinite(value) else 0.0 for name, value in features.items()}
