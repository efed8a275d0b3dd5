"""Quantile forecasts, and what makes one usable."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from regime.errors import ForecastFailed
from regime.signal import Reason

QUANTILE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MEDIAN = QUANTILE_LEVELS.index(0.5)
_LEVELS = np.array(QUANTILE_LEVELS)

FloatArray = NDArray[np.float64]
Context = NDArray[np.float32]

Z90_MINUS_Z10 = 2 * 1.2815515655446004
"""Distance between the outer quantiles of a standard normal distribution."""

CROSSING_TOLERANCE = 0.05
"""Quantiles may cross by this share of the distance between the outer ones: a network's rounding, harmless because
only the extremes and the median are used. A larger crossing is a defect."""

WIDTH_RATIO_MAX = 20.0
"""A forecast this many times wider or narrower than realised volatility is absurd."""


class Forecaster(Protocol):
    """Anything that answers quantile forecasts of log returns."""

    @property
    def checkpoint_id(self) -> str:
        """Names the weights; part of every signal that rests on them."""

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:
        """Forecast a batch.

        Parameters
        ----------
        contexts
            Log returns, shape (rows, context_bars), oldest first, NaN where there is no bar.
        horizon_bars
            Bars to forecast.
        timeout_s
            Wait no longer than this.

        Returns
        -------
        Quantiles of the log return of each bar, shape (rows, horizon_bars, 9).

        Raises
        ------
        ForecastFailed
            With the reason, if no answer came in time or at all.
        """


class KnownForecasts(Protocol):
    """Forecasts that were made before, of the same model, context and horizon."""

    @property
    def checkpoint_id(self) -> str:
        """Names the weights."""

    def get(self, window: bytes) -> NDArray[np.float32] | None:
        """The quantiles for a window (see :func:`window_key`), shape (horizon_bars, 9), or None."""


@dataclass(frozen=True)
class Forecast:
    """A forecast whose median is usable; the other quantiles may still be found wanting.

    ``quantiles`` has shape (horizon_bars, 9) and holds log returns per bar; ``expected_return`` is the sum of the
    medians, the log return over the horizon.
    """

    quantiles: FloatArray
    expected_return: float

    @classmethod
    def of(cls, answer: NDArray[np.float32], horizon_bars: int, factors: FloatArray | None = None) -> Forecast:
        """Check shape and median. Raises ForecastFailed with WRONG_SHAPE or NOT_FINITE.

        ``factors``, shape (horizon_bars,), multiply each bar's quantiles: the season that the model was not shown.
        """
        if answer.shape != (horizon_bars, len(QUANTILE_LEVELS)):
            raise ForecastFailed(Reason.WRONG_SHAPE, f"{answer.shape}")
        quantiles = answer.astype(np.float64)
        if factors is not None:
            quantiles *= factors[:, None]
        expected_return = float(quantiles[:, MEDIAN].sum())
        # NaN and infinity stay in a sum, and sums of float32 numbers do not overflow float64.
        if not math.isfinite(expected_return):
            raise ForecastFailed(Reason.NOT_FINITE, "median")
        return cls(quantiles, expected_return)

    def scale(self, realised_volatility: float) -> float | Reason:
        """Standard deviation over the horizon, as if bars were independent, or why the quantiles are unsound.

        Parameters
        ----------
        realised_volatility
            Per bar; the yardstick for absurd widths.

        Returns
        -------
        The scale, or NOT_FINITE, CROSSED_QUANTILES or ABSURD_WIDTH.
        """
        quantiles = self.quantiles
        if bool((quantiles[:, 1:] >= quantiles[:, :-1]).all()):
            # In order, which NaN never is: the usual case, and the cheap one.
            width = quantiles[:, -1] - quantiles[:, 0]
            if not (math.isfinite(quantiles[:, 0].min()) and math.isfinite(quantiles[:, -1].max())):
                return Reason.NOT_FINITE
        else:
            if not np.isfinite(quantiles).all():
                return Reason.NOT_FINITE
            width = quantiles.max(axis=1) - quantiles.min(axis=1)
            steps = quantiles[:, 1:] - quantiles[:, :-1]
            if bool((steps.min(axis=1) < -CROSSING_TOLERANCE * width).any()):
                return Reason.CROSSED_QUANTILES
        scale = math.sqrt(float(width @ width)) / Z90_MINUS_Z10
        per_bar = scale / math.sqrt(len(width))
        if not realised_volatility / WIDTH_RATIO_MAX < per_bar < realised_volatility * WIDTH_RATIO_MAX:
            return Reason.ABSURD_WIDTH
        return scale


def pinball(outcomes: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Pinball loss, mean of the nine quantiles (Koenker and Bassett, 1978).

    Twice its value estimates the CRPS (Gneiting and Ranjan, 2011); nine quantiles say nothing of the tails beyond
    the outer ones.

    Parameters
    ----------
    outcomes
        Log returns, any shape.
    quantiles
        The same shape and a last axis of 9, levels 0.1 to 0.9.

    Returns
    -------
    Of the outcomes' shape, in their units.
    """
    above = outcomes[..., None] - quantiles
    return np.asarray(np.maximum(_LEVELS * above, (_LEVELS - 1.0) * above).mean(axis=-1))


def window_key(context: Context) -> bytes:
    """Digest of a model's whole input: equal windows get equal keys, others different ones."""
    return hashlib.blake2b(context.tobytes(), digest_size=16).digest()
