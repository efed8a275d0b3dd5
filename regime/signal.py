"""The signal: what one bar says about the market, and how much that is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Level(IntEnum):
    """Which part of the chain answered. A higher number is a poorer answer."""

    FULL = 0
    BASIC = 1
    SMART = 2
    SIMPLE = 3
    HISTORICAL = 4
    EMERGENCY = 5


EXPOSURE_CAP: dict[Level, float] = {
    Level.FULL: 1.0,
    Level.BASIC: 0.75,
    Level.SMART: 0.5,
    Level.SIMPLE: 0.35,
    Level.HISTORICAL: 0.2,
    Level.EMERGENCY: 0.0,
}
"""Share of the maximum exposure that a signal of each level supports."""


class Direction(StrEnum):
    """Where prices drift."""

    BULL = "BULL"
    BEAR = "BEAR"
    SIDEWAYS = "SIDEWAYS"
    UNKNOWN = "UNKNOWN"


class VolatilityState(StrEnum):
    """How much they move."""

    LOW = "LOW"
    HIGH = "HIGH"


class Reason(StrEnum):
    """Why a level did not answer."""

    WARM_UP = "WARM_UP"
    PINNED = "PINNED"
    TIMEOUT = "TIMEOUT"
    MODEL_DIED = "MODEL_DIED"
    MODEL_ERROR = "MODEL_ERROR"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    BREAKER_OPEN = "BREAKER_OPEN"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    STALE_ANSWER = "STALE_ANSWER"
    WRONG_SHAPE = "WRONG_SHAPE"
    NOT_FINITE = "NOT_FINITE"
    CROSSED_QUANTILES = "CROSSED_QUANTILES"
    ABSURD_WIDTH = "ABSURD_WIDTH"
    FEW_SCORES = "FEW_SCORES"
    CALIBRATION_CORRUPT = "CALIBRATION_CORRUPT"
    UNHEALTHY = "UNHEALTHY"
    INDICATOR_ERROR = "INDICATOR_ERROR"
    SHORT_HISTORY = "SHORT_HISTORY"
    GAP = "GAP"
    REJECTED_BARS = "REJECTED_BARS"
    CLOCK_JUMP = "CLOCK_JUMP"
    NO_VARIANCE = "NO_VARIANCE"
    NO_REGIME_HISTORY = "NO_REGIME_HISTORY"
    REGIMES_CORRUPT = "REGIMES_CORRUPT"

    @property
    def is_fault(self) -> bool:
        """True unless the reason belongs to an ordinary start or to an explicit wish."""
        return self not in {Reason.WARM_UP, Reason.PINNED}


@dataclass(frozen=True)
class Signal:
    """One per accepted bar.

    Attributes
    ----------
    instrument_id
        The instrument, ``SYMBOL.VENUE``.
    direction, volatility_state
        The regime.
    confidence
        Probability, in [0, 1], that the named direction is right over the horizon; capped at poorer levels.
    uncertainty
        In [0, 1]: the interval's width against its own long-run width; 0.5 is usual, 1 means nothing is known.
    expected_return
        Median log return over the horizon.
    interval_low, interval_high
        Interval of the log return over the horizon at the configured coverage. Calibrated at level FULL,
        from realised volatility below it, and unbounded at EMERGENCY.
    bar_interval_low, bar_interval_high
        The same for the log return of the next bar alone.
    realised_volatility, forecast_volatility
        Standard deviation of log returns per bar; forecast_volatility falls back to the realised one.
    transition_probability
        Probability that the market passes from one volatility state into the other within the next 20 bars, at least
        once and whichever it is in now; the average of lately at HISTORICAL, 1 at EMERGENCY.
    level, reasons
        The level that answered, and for each level above it why it did not.
    checkpoint_id
        First 16 hex digits of the checkpoint's sha256; empty below BASIC.
    ts_event, ts_init
        The bar's close, nanoseconds since the epoch.
    """

    instrument_id: str
    direction: Direction
    volatility_state: VolatilityState
    confidence: float
    uncertainty: float
    expected_return: float
    interval_low: float
    interval_high: float
    bar_interval_low: float
    bar_interval_high: float
    realised_volatility: float
    forecast_volatility: float
    transition_probability: float
    level: Level
    reasons: tuple[Reason, ...]
    checkpoint_id: str
    ts_event: int
    ts_init: int

    @property
    def is_warm_up(self) -> bool:
        """True where the level is below FULL only because the run has just begun."""
        return bool(self.reasons) and all(reason is Reason.WARM_UP for reason in self.reasons)


@dataclass(frozen=True)
class BarRejected:
    """Takes the place of a signal where a bar cannot be used; the strategy opens no risk on it."""

    instrument_id: str
    why: str
    ts_event: int
    ts_init: int
