"""Calibrated intervals: of each bar's return over the horizon, and of the return over the whole of it.

Plain adaptive conformal inference (:mod:`regime.conformal`) keeps its promise on the whole, and breaks it at each hour
and in each kind of market on its own. So the quantile of all scores is multiplied by a factor for the group of
volatility that the market is in, and by one for the hour of the day, which daily bars have all in common; each factor
moves on the outcomes of its own group, up after a miss and down after a hit, until the group is covered as promised.

Outcomes arrive as many bars late as the forecast looked ahead, and only then are used.

Steps are small because each costs sharpness: over twelve real series (see :func:`normaliser`) the mean Winkler score
beside the static quantile's was 0.9606, 0.9615 and 0.9636 with steps of the level of 0, 0.002 and 0.005, and 0.9632,
0.9651, 0.9676 and 0.9730 with steps of both groups of 0.01, 0.02, 0.03 and 0.05. With no groups at all it was 0.9637,
with hours from 0.82 on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.config import CalibrationConfig
from regime.conformal import AdaptiveConformal, FloatArray
from regime.errors import CannotAnswer
from regime.forecast import MEDIAN, Z90_MINUS_Z10, Forecast
from regime.ranges import Ranges
from regime.signal import Reason
from regime.window import NEVER, RingBuffer

IntArray = NDArray[np.int64]

VOLATILITY_GROUPS = 3
HOURS = 24

_REFERENCE_BARS = 2000
_MIN_REFERENCE_BARS = 100
_CUT_EVERY_BARS = 50
_OFFSET_MAX = 3.0
"""Factors of groups lie between exp(-3) and exp(3): twenty times is where a width is absurd."""

_WIDTH_HALF_LIFE_BARS = 500

ABSURD_RATIO = 50.0
"""A calibrated interval this many times wider or narrower than one of realised volatility is absurd."""


@dataclass(frozen=True)
class Outlook:
    """A forecast as calibration sees it: a row for each bar ahead, and the last for the return over all of them.

    ``centres`` and ``scales`` have shape (horizon_bars + 1,): medians, and what errors are measured by, see
    :func:`normaliser`. ``deviation`` is the standard deviation over the horizon by the forecast's own quantiles.
    ``hours`` are those of the day, UTC, in which the bars ahead will close, shape (horizon_bars,); all 0 where a day
    has no hours. ``volatility`` is the realised one, per bar.
    """

    centres: FloatArray
    scales: FloatArray
    deviation: float
    hours: IntArray
    volatility: float

    @classmethod
    def of(
        cls, forecast: Forecast, volatility: float, ranges: Ranges, season: FloatArray, hours: IntArray
    ) -> Outlook | Reason:
        """A forecast's outlook, or why its quantiles are unsound. ``season`` holds the factors of the bars ahead."""
        deviation = forecast.scale(volatility)
        if isinstance(deviation, Reason):
            return deviation
        quantiles = forecast.quantiles
        widths = np.abs(quantiles[:, -1] - quantiles[:, 0]) / Z90_MINUS_Z10
        # A step may be shut for good, as where the market was idle; its outcomes then still make finite scores.
        widths = np.maximum(widths, deviation * _WIDTH_SHARE_MIN)
        scales = normaliser(np.append(widths, deviation), ranges, season)
        centres = np.append(quantiles[:, MEDIAN], forecast.expected_return)
        return cls(centres, scales, deviation, hours, volatility)


def normaliser(widths: FloatArray, ranges: Ranges, season: FloatArray) -> FloatArray:
    """What errors are measured by: the geometric mean of the forecast's widths and of what recent ranges suggest.

    Parameters
    ----------
    widths
        Standard deviations by the forecast's quantiles, of each bar ahead and of all together, shape
        (horizon_bars + 1,).
    ranges
        Of the bars so far.
    season
        Factors of the bars ahead, shape (horizon_bars,).

    Notes
    -----
    Mean Winkler score of the next bar's 90 % interval beside that of a static quantile of EWMA(0.94)-normalised
    returns, over twelve real series (bars 22,000 to 11,000 before their ends: not those that the study judges), each
    with groups as below: EWMA 0.975, the forecast's width 0.964, both 0.964, the forecast's width and recent ranges
    0.957, these with the rise 0.961. The rise is there for breaks of volatility (see :mod:`regime.ranges`): on
    simulated ones it lifts coverage of the first 60 bars from 0.84 to 0.88.
    """
    suggested = np.append(season, math.sqrt(float(season @ season))) * ranges.recent
    # In an idle market ranges are nil, and the forecast alone counts.
    suggested = np.clip(suggested, widths / _RANGE_RATIO_MAX, widths * _RANGE_RATIO_MAX)
    return np.asarray(np.sqrt(widths * suggested) * ranges.rise)


_WIDTH_SHARE_MIN = 1e-3
_RANGE_RATIO_MAX = 20.0


@dataclass(frozen=True)
class Intervals:
    """Calibrated intervals of log returns, of each bar ahead and of all together; shapes (horizon_bars + 1,)."""

    lows: FloatArray
    highs: FloatArray

    @property
    def bar(self) -> tuple[float, float]:
        """Of the next bar's return."""
        return float(self.lows[0]), float(self.highs[0])

    @property
    def horizon(self) -> tuple[float, float]:
        """Of the return over the horizon."""
        return float(self.lows[-1]), float(self.highs[-1])


class ConformalCalibrator:
    """Scores, levels, the groups' factors, and the intervals they give.

    ``errors`` are the matured ones of the return over the horizon, standardised; ``offsets`` the logarithms of the
    groups' factors, shapes (horizon_bars + 1, groups). ``proposed`` are this bar's intervals, before anybody asked
    whether they are absurd.
    """

    def __init__(self, config: CalibrationConfig, horizon_bars: int) -> None:
        self._config = config
        self._horizon_bars = horizon_bars
        # Returns over the horizon overlap: a miss there is seldom alone, and must move less.
        self._slowness = np.append(np.ones(horizon_bars), 1.0 / horizon_bars)
        self.restarts = 0
        self.proposed: Intervals | None = None
        self._proposed_for: Outlook | None = None
        self._log_width: float | None = None
        self._log_volatility = RingBuffer(_REFERENCE_BARS)
        self._cuts = (math.inf, math.inf)
        self._bars = 0
        self._begin()

    def _begin(self) -> None:
        config, rows = self._config, self._horizon_bars + 1
        self.conformal = AdaptiveConformal(config.miscoverage, config.step_size * self._slowness, config.window_scores)
        self.errors = RingBuffer(config.window_scores)
        self.volatility_offsets = np.zeros((rows, VOLATILITY_GROUPS))
        self.hour_offsets = np.zeros((rows, HOURS))
        self._rows = np.arange(rows)
        # Forecasts that wait for their outcomes, in the slot of the bar they were made at, modulo the slots.
        self._lags = np.append(np.arange(1, rows), self._horizon_bars)
        self._made_at = np.full(rows, NEVER)
        self._log_prices = np.zeros(rows)
        self._centres, self._scales = np.zeros((rows, rows)), np.ones((rows, rows))
        self._claimed = np.full((rows, rows), np.nan)
        self._groups = np.zeros(rows, dtype=np.int64)
        self._hours = np.zeros((rows, rows), dtype=np.int64)

    @property
    def scores(self) -> int:
        """Matured scores of the return over the horizon."""
        return len(self.errors)

    def observe(self, bar: int, log_return: float, log_price: float) -> None:
        """Let the forecasts mature that were about this bar.

        Parameters
        ----------
        bar
            Count of accepted bars.
        log_return, log_price
            Of this bar's close.
        """
        rows, slots = self._rows, (bar - self._lags) % len(self._rows)
        due = self._made_at[slots] == bar - self._lags
        if not due.any():
            return
        outcomes = np.full(len(rows), log_return)
        outcomes[-1] = log_price - self._log_prices[slots[-1]]
        errors = outcomes - self._centres[slots, rows]
        claimed = self._claimed[slots, rows]
        errors[~due] = np.nan
        standardised = errors / self._scales[slots, rows]
        missed = np.where(np.isfinite(errors) & ~np.isnan(claimed), np.abs(errors) > claimed, np.nan)
        self.conformal.observe(np.abs(standardised), missed)
        if math.isfinite(standardised[-1]):
            self.errors.append(standardised[-1])
        moves = np.where(np.isnan(missed), 0.0, self._slowness * (missed - self._config.miscoverage))
        for offsets, group, step in (
            (self.volatility_offsets, self._groups[slots], self._config.volatility_step),
            (self.hour_offsets, self._hours[slots, rows], self._config.hour_step),
        ):
            offsets[rows, group] = np.clip(offsets[rows, group] + step * moves, -_OFFSET_MAX, _OFFSET_MAX)

    def await_outcome(self, bar: int, log_price: float, outlook: Outlook) -> None:
        """Note a forecast made at this bar; its scores come as its bars do."""
        self._see_volatility(outlook.volatility)
        slot = bar % len(self._rows)
        self._made_at[slot], self._log_prices[slot] = bar, log_price
        self._centres[slot], self._scales[slot] = outlook.centres, outlook.scales
        self._groups[slot], self._hours[slot] = self._group(outlook.volatility), _with_horizon(outlook.hours)
        if self.proposed is not None and self._proposed_for is outlook:
            self._claimed[slot] = self.proposed.highs - outlook.centres
        else:
            enough = self.conformal.counts >= self._config.min_scores
            self._claimed[slot] = np.where(enough, self._half_widths(outlook), np.nan)

    def forget_pending(self) -> None:
        """Drop forecasts whose horizon contains a gap: no score can be had of them."""
        self._made_at[:] = NEVER

    def intervals(self, outlook: Outlook) -> Intervals:
        """The calibrated intervals around a forecast.

        Raises
        ------
        CannotAnswer
            FEW_SCORES before ``min_scores`` scores of the horizon have matured; CALIBRATION_CORRUPT where the state
            makes no sense, which also starts calibration over: a state that lies is worth less than none. ABSURD_WIDTH
            where the intervals make none, though the state does.
        """
        self.proposed = None
        if not self._is_sound:
            self._start_over()
            raise CannotAnswer(Reason.CALIBRATION_CORRUPT)
        if self.scores < self._config.min_scores:
            raise CannotAnswer(Reason.FEW_SCORES)
        half_widths = self._half_widths(outlook)
        self._proposed_for = outlook
        self.proposed = Intervals(outlook.centres - half_widths, outlook.centres + half_widths)
        over_horizon = outlook.volatility * math.sqrt(self._horizon_bars)
        if is_absurd(half_widths[0], outlook.volatility) or is_absurd(half_widths[-1], over_horizon):
            raise CannotAnswer(Reason.ABSURD_WIDTH)
        return self.proposed

    def probability_up(self, outlook: Outlook) -> float:
        """Share of past standardised errors under which the return over the horizon would have been positive."""
        above = int(np.count_nonzero(self.errors.view() > -outlook.centres[-1] / outlook.scales[-1]))
        return (above + 0.5) / (self.scores + 1.0)

    def uncertainty(self, width: float) -> float:
        """The width against its own long-run geometric mean, in (0, 1): 0.5 at the mean. Moves the mean on."""
        log_width = math.log(width)
        if self._log_width is None:
            self._log_width = log_width
        ratio = math.exp(min(log_width - self._log_width, 50.0))
        decay = 0.5 ** (1.0 / _WIDTH_HALF_LIFE_BARS)
        self._log_width = decay * self._log_width + (1.0 - decay) * log_width
        return ratio / (1.0 + ratio)

    @property
    def _is_sound(self) -> bool:
        errors = self.errors.view()
        # NaN and infinity stay in sums of squares.
        found = errors @ errors + self.volatility_offsets.sum() + self.hour_offsets.sum()
        return math.isfinite(found) and self.conformal.is_sound

    def _start_over(self) -> None:
        self._begin()
        self.restarts += 1

    def _half_widths(self, outlook: Outlook) -> FloatArray:
        """Half the width of each row's interval: scale, conformal factor, and the factors of its groups."""
        offsets = self.volatility_offsets[:, self._group(outlook.volatility)]
        offsets = offsets + self.hour_offsets[self._rows, _with_horizon(outlook.hours)]
        return np.asarray(outlook.scales * self.conformal.factors() * np.exp(offsets))

    def _group(self, volatility: float) -> int:
        """Which third of the volatilities seen lately this one belongs to."""
        return int(volatility > self._cuts[0]) + int(volatility > self._cuts[1])

    def _see_volatility(self, volatility: float) -> None:
        self._log_volatility.append(math.log(volatility))
        self._bars += 1
        if self._bars % _CUT_EVERY_BARS == 0 and len(self._log_volatility) >= _MIN_REFERENCE_BARS:
            low, high = np.quantile(self._log_volatility.view(), [1 / 3, 2 / 3])
            self._cuts = math.exp(low), math.exp(high)


def is_absurd(half_width: float, volatility: float) -> bool:
    """Whether a calibrated interval is beyond belief: empty, unbounded, or far from what returns were like lately.

    Parameters
    ----------
    half_width
        Half of the interval's width.
    volatility
        Realised, over as many bars as the interval is about.
    """
    return not volatility / ABSURD_RATIO < half_width < volatility * ABSURD_RATIO


def _with_horizon(hours: IntArray) -> IntArray:
    """The hour of each row; the horizon as a whole counts to that of its first bar."""
    return np.append(hours, hours[0])
