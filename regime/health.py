"""Is the model better than none? What its forecasts lost, beside those of a moving volatility.

Each bar's outcome is scored under every forecast that was made of it, 1 to ``horizon_bars`` bars before: by the pinball
loss of nine quantiles, in units of the realised volatility known when the forecast was made. The baseline is that
volatility (exponentially weighted, RiskMetrics 1996) times the empirical quantiles of past returns over their own
volatility, both as they were known then. Normal quantiles would be too easy to beat: returns have heavy tails.

The model is unhealthy when the lower bound of its relative excess loss, by a circular block bootstrap (Politis and
Romano, 1992), lies above the limit at several checks in a row, over the whole window (which finds what is a little
worse) or over the newest bars (which soon finds what is much worse). It is healthy again when the upper bound over the
newest bars lies below the limit as often.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from regime.config import HealthConfig
from regime.forecast import QUANTILE_LEVELS, FloatArray, pinball
from regime.window import NEVER, RingBuffer

_NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
_MIN_STANDARDISED = 100
"""Before so many returns their quantiles are taken to be normal."""

_REPLICATIONS = 500
_SEED = 6
_BLOCKS_OF_HORIZONS = 2
_TINY = 1e-9

FOUND_CONFIDENCE = 0.99
CLEARED_CONFIDENCE = 0.90


@dataclass(frozen=True)
class Excess:
    """How much more the model loses than its baseline, relative to it; ``low`` and ``high`` are one-sided bounds."""

    estimate: float
    low: float
    high: float


class HealthMonitor:
    """Follows a model's matured forecasts.

    ``unhealthy`` is the verdict, ``excess`` what the last check found, None before the first.

    Parameters
    ----------
    config
        Lengths and the limit.
    horizon_bars
        Bars that a forecast looks ahead.
    """

    def __init__(self, config: HealthConfig, horizon_bars: int) -> None:
        self.unhealthy = False
        self.excess: Excess | None = None
        self._config = config
        self._horizon_bars = horizon_bars
        self._block_bars = _BLOCKS_OF_HORIZONS * horizon_bars
        self._losses = RingBuffer(config.window_bars)
        self._baseline_losses = RingBuffer(config.window_bars)
        self._standardised = RingBuffer(config.window_bars)
        self._shape = _NORMAL
        self._checks_in_a_row = 0
        self._matured = 0
        # Forecasts in units of volatility, by the bar they were made at; slot bar % horizon_bars.
        self._made_at = np.full(horizon_bars, NEVER)
        self._volatility = np.ones(horizon_bars)
        self._forecasts = np.zeros((horizon_bars, horizon_bars, len(QUANTILE_LEVELS)))
        self._baselines = np.zeros((horizon_bars, len(QUANTILE_LEVELS)))
        self._steps = np.arange(horizon_bars)

    @property
    def matured(self) -> int:
        """Bars whose outcome was scored, those that were forgotten since included."""
        return self._matured

    def observe(self, bar: int, log_return: float, volatility_before: float) -> None:
        """Score the forecasts of this bar, and look after the verdict now and then.

        Parameters
        ----------
        bar
            Count of accepted bars.
        log_return
            Of this bar.
        volatility_before
            Per bar, as it was known before this return.
        """
        made = bar - 1 - self._steps
        slots = made % self._horizon_bars
        there = self._made_at[slots] == made
        if there.any():
            slots, steps = slots[there], self._steps[there]
            outcomes = log_return / self._volatility[slots]
            self._losses.append(float(pinball(outcomes, self._forecasts[slots, steps]).mean()))
            self._baseline_losses.append(float(pinball(outcomes, self._baselines[slots]).mean()))
            self._matured += 1
            if self._matured % self._config.check_every_bars == 0:
                self._check()
        if volatility_before > 0:
            self._standardised.append(log_return / volatility_before)
        if bar % self._config.check_every_bars == 0:
            self._shape = _quantiles(self._standardised.view())

    def await_outcome(self, bar: int, quantiles: FloatArray, volatility: float) -> None:
        """Note a sound forecast made at this bar, shape (horizon_bars, 9), and the volatility known to it."""
        slot = bar % self._horizon_bars
        self._made_at[slot] = bar
        self._volatility[slot] = volatility
        self._forecasts[slot] = quantiles / volatility
        self._baselines[slot] = self._shape

    def forget_pending(self) -> None:
        """Drop forecasts whose horizon contains a gap: what they foretold did not come."""
        self._made_at[:] = NEVER

    def told(self) -> str:
        """The last check, for people."""
        found = self.excess
        if found is None:
            return "not enough forecasts have matured"
        return (
            f"loss beside a moving volatility's {found.estimate:+.1%}, surely between {found.low:+.1%} "
            f"and {found.high:+.1%}"
        )

    def _check(self) -> None:
        config = self._config
        if len(self._losses) < config.recent_bars:
            return
        recent = self._excess(config.recent_bars)
        if self.unhealthy:
            self.excess, changed = recent, recent.high < config.excess_limit
        else:
            self.excess = max(recent, self._excess(config.window_bars), key=lambda found: found.low)
            changed = self.excess.low > config.excess_limit
        self._checks_in_a_row = self._checks_in_a_row + 1 if changed else 0
        if self._checks_in_a_row >= config.sustained_checks:
            if self.unhealthy:
                self._keep_newest(config.recent_bars)
            self.unhealthy, self._checks_in_a_row = not self.unhealthy, 0

    def _excess(self, bars: int) -> Excess:
        return relative_excess(self._losses.view(bars), self._baseline_losses.view(bars), self._block_bars)

    def _keep_newest(self, bars: int) -> None:
        """Forget the losses of the bad days, or they would tell against a model that is well again."""
        for buffer in (self._losses, self._baseline_losses):
            kept = buffer.view(bars).tolist()
            buffer.clear()
            for loss in kept:
                buffer.append(loss)


def relative_excess(losses: FloatArray, baseline: FloatArray, block_bars: int) -> Excess:
    """The mean loss over the baseline's, less 1, with bounds at FOUND_CONFIDENCE below and CLEARED_CONFIDENCE above.

    The same blocks are drawn at every call, so that equal losses have equal bounds.

    Parameters
    ----------
    losses, baseline
        Shape (bars,); positive.
    block_bars
        Length of a block: at least as long as a loss depends on those before it.
    """
    bars = len(losses)
    block = min(block_bars, bars)
    places = (_uniforms(math.ceil(bars / block)) * bars).astype(np.int64)
    # Where no price moved, a baseline of zero width loses nothing.
    baseline = np.maximum(baseline, _TINY)
    drawn = _block_sums(losses, block)[places].sum(axis=1) / _block_sums(baseline, block)[places].sum(axis=1) - 1.0
    low, high = np.quantile(drawn, (1.0 - FOUND_CONFIDENCE, CLEARED_CONFIDENCE))
    return Excess(float(losses.sum() / baseline.sum()) - 1.0, float(low), float(high))


@functools.lru_cache(maxsize=8)
def _uniforms(blocks: int) -> FloatArray:
    return np.random.default_rng(_SEED).random((_REPLICATIONS, blocks))


def _block_sums(values: FloatArray, block: int) -> FloatArray:
    """Sums of the blocks that begin at each value, going round at the end; shape as given."""
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))])
    return np.asarray(sums[block:] - sums[:-block])


def _quantiles(standardised: FloatArray) -> FloatArray:
    count = len(standardised)
    if count < _MIN_STANDARDISED:
        return _NORMAL
    ordered = np.sort(standardised)
    return ordered[(np.array(QUANTILE_LEVELS) * count).astype(np.int64)]
