"""Adaptive conformal intervals for the return over the horizon.

A score is the absolute forecast error over the forecast's own scale. The interval covers the past scores up to a
level that is moved after each outcome: down when the interval missed too often, up when too seldom.
Source: Gibbs and Candes (2021), "Adaptive Conformal Inference Under Distribution Shift", equation 2. Outcomes
arrive one horizon late, and only then are used.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass

from regime.config import CalibrationConfig
from regime.errors import CannotAnswer
from regime.signal import Reason
from regime.window import RingBuffer

_MIN_ALPHA, _MAX_ALPHA = 0.001, 0.5
_WIDTH_HALF_LIFE_BARS = 500


@dataclass(frozen=True)
class Pending:
    """A forecast that waits for its outcome."""

    due_bar: int
    expected_return: float
    scale: float
    log_price: float
    factor: float | None


class ConformalCalibrator:
    """Scores, the adaptive level, and the interval they give."""

    def __init__(self, config: CalibrationConfig, horizon_bars: int) -> None:
        self._config = config
        self._horizon_bars = horizon_bars
        self.errors = RingBuffer(config.window_scores)
        self.alpha = config.miscoverage
        self.restarts = 0
        self._pending: deque[Pending] = deque()
        self._log_width: float | None = None
        # The same errors in order of size, so that a quantile is a look and not a sort of a thousand numbers.
        self._ordered: list[float] = []
        self._magnitudes: list[float] = []

    @property
    def scores(self) -> int:
        """Matured scores at hand."""
        return len(self.errors)

    def observe(self, bar: int, log_price: float) -> None:
        """Let the forecasts mature whose horizon ends with this bar.

        Parameters
        ----------
        bar
            Count of accepted bars.
        log_price
            Logarithm of this bar's close.
        """
        while self._pending and self._pending[0].due_bar <= bar:
            due = self._pending.popleft()
            if due.due_bar < bar:
                continue
            error = (log_price - due.log_price - due.expected_return) / due.scale
            self._add(error)
            if due.factor is not None and self._level_is_sound:
                missed = float(abs(error) > due.factor)
                step = self._config.step_size * (self._config.miscoverage - missed)
                self.alpha = min(max(self.alpha + step, _MIN_ALPHA), _MAX_ALPHA)

    def await_outcome(self, bar: int, log_price: float, expected_return: float, scale: float) -> None:
        """Note a forecast made at this bar; its score comes a horizon later."""
        factor = self._factor() if self.scores >= self._config.min_scores and self._level_is_sound else None
        self._pending.append(Pending(bar + self._horizon_bars, expected_return, scale, log_price, factor))

    def forget_pending(self) -> None:
        """Drop forecasts whose horizon contains a gap: no score can be had of them."""
        self._pending.clear()

    def interval(self, expected_return: float, scale: float) -> tuple[float, float]:
        """The calibrated interval around a forecast.

        Raises
        ------
        CannotAnswer
            FEW_SCORES before ``min_scores`` scores have matured; CALIBRATION_CORRUPT where the state makes no sense,
        which also starts calibration over: a state that lies is worth less than none.
        """
        errors = self.errors.view()
        # NaN and infinity stay in a sum of squares.
        if not (self._level_is_sound and math.isfinite(errors @ errors) and len(self._ordered) == len(errors)):
            self._start_over()
            raise CannotAnswer(Reason.CALIBRATION_CORRUPT)
        if self.scores < self._config.min_scores:
            raise CannotAnswer(Reason.FEW_SCORES)
        half_width = self._factor() * scale
        return expected_return - half_width, expected_return + half_width

    def probability_up(self, expected_return: float, scale: float) -> float:
        """Share of past standardised errors under which the return would have been positive."""
        above = len(self._ordered) - bisect_right(self._ordered, -expected_return / scale)
        return (above + 0.5) / (len(self._ordered) + 1.0)

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
    def _level_is_sound(self) -> bool:
        return _MIN_ALPHA <= self.alpha <= _MAX_ALPHA

    def _add(self, error: float) -> None:
        """Take in a matured error; the oldest one goes when there are enough."""
        if not math.isfinite(error):
            return
        if self.errors.full:
            oldest = self.errors.oldest
            _remove(self._ordered, oldest)
            _remove(self._magnitudes, abs(oldest))
        self.errors.append(error)
        insort(self._ordered, error)
        insort(self._magnitudes, abs(error))

    def _start_over(self) -> None:
        self.errors.clear()
        self._ordered.clear()
        self._magnitudes.clear()
        self._pending.clear()
        self.alpha = self._config.miscoverage
        self.restarts += 1

    def _factor(self) -> float:
        """The conformal quantile of the absolute errors at level 1 - alpha, with the finite-sample correction.

        Where more scores would be needed for the level, the largest one stands in for infinity; the adaptive
        level makes up for it.
        """
        count = len(self._magnitudes)
        return self._magnitudes[min(math.ceil((1.0 - self.alpha) * (count + 1)), count) - 1]


def _remove(ordered: list[float], value: float) -> None:
    """Take one value out, if it is there: a state that was tampered with is found out later, not here."""
    at = bisect_left(ordered, value)
    if at < len(ordered) and ordered[at] == value:
        del ordered[at]
