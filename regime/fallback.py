"""The six levels, best first. Each has its own precondition and says why when it does not hold.

A level gets the bar's :class:`Evidence` and returns an :class:`Answer`, or raises CannotAnswer. The last one never
fails.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from regime.calibration import ConformalCalibrator, Outlook
from regime.classifier import Regime, RegimeClassifier
from regime.config import RegimeConfig
from regime.errors import CannotAnswer, ForecastFailed
from regime.forecast import Forecast
from regime.signal import Direction, Level, Reason, Signal, VolatilityState
from regime.window import BarWindow

CONFIDENCE_CAP: dict[Level, float] = {
    Level.FULL: 1.0,
    Level.BASIC: 0.75,
    Level.SMART: 0.6,
    Level.SIMPLE: 0.4,
    Level.HISTORICAL: 0.3,
    Level.EMERGENCY: 0.0,
}

UNCERTAINTY: dict[Level, float] = {
    Level.BASIC: 0.6,
    Level.SMART: 0.7,
    Level.SIMPLE: 0.8,
    Level.HISTORICAL: 0.9,
    Level.EMERGENCY: 1.0,
}
"""What stands in for the calibrated uncertainty at the levels that have none."""

ForecastResult = Forecast | ForecastFailed
"""A forecast, or why there is none."""


@dataclass
class Evidence:
    """All that the levels may look at for one bar.

    ``outlook`` is the forecast as calibration sees it, or why its quantiles are unsound.
    ``realised_trend`` is a z-score, ``realised_volatility`` per bar; ``history`` holds the regimes answered lately.
    ``unhealthy`` says that the model's forecasts were worse than none for a while.
    """

    config: RegimeConfig
    window: BarWindow
    forecast: ForecastResult
    outlook: Outlook | Reason
    calibrator: ConformalCalibrator
    classifier: RegimeClassifier
    realised_trend: float
    realised_volatility: float
    history: Sequence[Signal]
    unhealthy: bool


@dataclass(frozen=True)
class Answer:
    """What a level says; the fields are those of the signal."""

    regime: Regime
    confidence: float
    uncertainty: float
    expected_return: float
    interval: tuple[float, float]
    bar_interval: tuple[float, float]
    forecast_volatility: float


def full(evidence: Evidence) -> Answer:
    """TiRex quantiles, validated and conformally calibrated."""
    forecast = _forecast(evidence)
    expected = forecast.expected_return
    outlook = evidence.outlook
    if isinstance(outlook, Reason):
        raise CannotAnswer(outlook)
    if evidence.unhealthy:
        raise CannotAnswer(Reason.UNHEALTHY)
    calibrator, scale = evidence.calibrator, outlook.deviation
    intervals = calibrator.intervals(outlook)
    low, high = intervals.horizon
    probability_up = calibrator.probability_up(outlook)
    regime = evidence.classifier.classify(_trend(evidence, expected, scale))
    return Answer(
        regime=regime,
        confidence=_confidence(regime.direction, probability_up),
        uncertainty=calibrator.uncertainty(high - low),
        expected_return=expected,
        interval=(low, high),
        bar_interval=intervals.bar,
        forecast_volatility=scale / math.sqrt(evidence.config.horizon_bars),
    )


def basic(evidence: Evidence) -> Answer:
    """TiRex median only; the width comes from realised volatility."""
    forecast = _forecast(evidence)
    expected = forecast.expected_return
    scale = _realised_scale(evidence)
    trend = _trend(evidence, expected, scale)
    return _uncalibrated(evidence, Level.BASIC, trend, expected)


def smart(evidence: Evidence) -> Answer:
    """Indicators on the window: trend, momentum, volatility and range."""
    _require_window(evidence, evidence.config.smart_min_bars)
    closes, highs, lows = (
        buffer.view() for buffer in (evidence.window.closes, evidence.window.highs, evidence.window.lows)
    )
    volatility = evidence.realised_volatility
    bars = len(closes)
    log_close = np.log(closes)
    # Trend: z-score of the slope of log prices against that of a random walk with the same volatility.
    time = np.arange(bars) - (bars - 1) / 2
    slope = float(time @ log_close) / float(time @ time)
    slope_deviation = volatility * math.sqrt(1.2 / bars)
    # Momentum: return over the last quarter. Range: where the close lies between the extremes, -1 to 1.
    quarter = bars // 4
    momentum = float(log_close[-1] - log_close[-1 - quarter]) / (volatility * math.sqrt(quarter))
    span = float(highs.max() - lows.min())
    position = 2.0 * float(closes[-1] - lows.min()) / span - 1.0 if span > 0 else 0.0
    trend = float(np.mean([slope / slope_deviation, momentum, 1.5 * position, evidence.realised_trend]))
    if not math.isfinite(trend):
        raise CannotAnswer(Reason.INDICATOR_ERROR)
    # A trend of that many standard errors, shrunk: most of a measured trend is luck.
    expected = 0.1 * trend * volatility * math.sqrt(evidence.config.horizon_bars)
    return _uncalibrated(evidence, Level.SMART, trend, expected)


def simple(evidence: Evidence) -> Answer:
    """Realised volatility only; nothing is said about direction."""
    _require_window(evidence, evidence.config.simple_min_bars)
    return _uncalibrated(evidence, Level.SIMPLE, None, 0.0)


def historical(evidence: Evidence) -> Answer:
    """The average of the regimes seen lately."""
    if not evidence.history:
        first_bar = evidence.window.restart is None and evidence.window.usable_bars <= 1
        raise CannotAnswer(Reason.WARM_UP if first_bar else Reason.NO_REGIME_HISTORY)
    informed = [signal for signal in evidence.history if signal.level < Level.HISTORICAL] or list(evidence.history)
    direction, count = Counter(signal.direction for signal in informed).most_common(1)[0]
    state, _ = Counter(signal.volatility_state for signal in informed).most_common(1)[0]
    expected = float(np.mean([signal.expected_return for signal in informed]))
    volatility = float(np.mean([signal.realised_volatility for signal in informed]))
    if not (math.isfinite(expected) and math.isfinite(volatility)):
        raise CannotAnswer(Reason.REGIMES_CORRUPT)
    # Before any return is known the average volatility is nil, and so is what can be said.
    interval, bar_interval = _normal_intervals(evidence.config, expected, volatility)
    probability = float(np.mean([signal.transition_probability for signal in informed]))
    return Answer(
        regime=Regime(direction, state, probability),
        confidence=CONFIDENCE_CAP[Level.HISTORICAL] * count / len(informed),
        uncertainty=UNCERTAINTY[Level.HISTORICAL],
        expected_return=expected,
        interval=interval,
        bar_interval=bar_interval,
        forecast_volatility=volatility,
    )


def emergency(evidence: Evidence) -> Answer:  # noqa: ARG001 (every level is asked the same way)
    """A constant: nothing is known."""
    return Answer(
        regime=Regime(Direction.UNKNOWN, VolatilityState.HIGH, 1.0),
        confidence=0.0,
        uncertainty=UNCERTAINTY[Level.EMERGENCY],
        expected_return=0.0,
        interval=(-math.inf, math.inf),
        bar_interval=(-math.inf, math.inf),
        forecast_volatility=0.0,
    )


CHAIN: dict[Level, Callable[[Evidence], Answer]] = {
    Level.FULL: full,
    Level.BASIC: basic,
    Level.SMART: smart,
    Level.SIMPLE: simple,
    Level.HISTORICAL: historical,
    Level.EMERGENCY: emergency,
}


def answer(evidence: Evidence) -> tuple[Level, Answer, tuple[Reason, ...]]:
    """Ask the levels in turn, from the pinned one on; one reason for each that did not answer."""
    reasons: list[Reason] = []
    for level, ask in CHAIN.items():
        if evidence.config.pinned_level is not None and level < evidence.config.pinned_level:
            reasons.append(Reason.PINNED)
            continue
        try:
            return level, ask(evidence), tuple(reasons)
        except CannotAnswer as error:
            reasons.append(error.reason)
        except (ArithmeticError, ValueError, LookupError, AttributeError, TypeError):
            # A defect in a level must cost that level, not the bar; the reason stays in the signal.
            reasons.append(_DEFECT[level])
    raise AssertionError("the last level never fails")


_DEFECT: dict[Level, Reason] = {
    Level.FULL: Reason.CALIBRATION_CORRUPT,
    Level.BASIC: Reason.MODEL_ERROR,
    Level.SMART: Reason.INDICATOR_ERROR,
    Level.SIMPLE: Reason.INDICATOR_ERROR,
    Level.HISTORICAL: Reason.REGIMES_CORRUPT,
}


def _forecast(evidence: Evidence) -> Forecast:
    if isinstance(evidence.forecast, ForecastFailed):
        raise CannotAnswer(evidence.forecast.reason)
    if not math.isfinite(evidence.realised_volatility) or evidence.realised_volatility <= 0:
        raise CannotAnswer(Reason.NO_VARIANCE)
    return evidence.forecast


def _require_window(evidence: Evidence, bars: int) -> None:
    window = evidence.window
    if window.usable_bars < bars:
        raise CannotAnswer(window.shortage())
    if not window.has_variance or not evidence.realised_volatility > 0:
        raise CannotAnswer(Reason.NO_VARIANCE)


def _trend(evidence: Evidence, expected: float, scale: float) -> float:
    """The forecast's median path as a z-score."""
    config = evidence.config
    # A drift per bar, seen for as long as the realised trend is, is worth sqrt(span) bars of noise.
    return expected / scale * math.sqrt(config.classifier.trend_span_bars / config.horizon_bars)


def _realised_scale(evidence: Evidence) -> float:
    return evidence.realised_volatility * math.sqrt(evidence.config.horizon_bars)


def _uncalibrated(evidence: Evidence, level: Level, trend: float | None, expected: float) -> Answer:
    """An answer whose interval is normal around ``expected``, with realised volatility as its width."""
    scale = _realised_scale(evidence)
    interval, bar_interval = _normal_intervals(evidence.config, expected, evidence.realised_volatility)
    regime = evidence.classifier.classify(trend)
    probability_up = _normal_cdf(expected / scale) if scale > 0 else 0.5
    return Answer(
        regime=regime,
        confidence=min(CONFIDENCE_CAP[level], _confidence(regime.direction, probability_up)),
        uncertainty=UNCERTAINTY[level],
        expected_return=expected,
        interval=interval,
        bar_interval=bar_interval,
        forecast_volatility=evidence.realised_volatility,
    )


def _normal_intervals(
    config: RegimeConfig, expected: float, volatility: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Normal intervals of the return over the horizon and of the next bar's, unbounded without any volatility."""
    bars = config.horizon_bars
    half_width = NormalDist().inv_cdf(1.0 - config.calibration.miscoverage / 2) * volatility or math.inf
    over_horizon = half_width * math.sqrt(bars)
    drift = expected / bars
    return (expected - over_horizon, expected + over_horizon), (drift - half_width, drift + half_width)


def _confidence(direction: Direction, probability_up: float) -> float:
    """How probable the named direction is: up, down, or neither clearly."""
    match direction:
        case Direction.BULL:
            return probability_up
        case Direction.BEAR:
            return 1.0 - probability_up
        case Direction.SIDEWAYS:
            return 1.0 - abs(2.0 * probability_up - 1.0)
        case Direction.UNKNOWN:
            return 0.0


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
