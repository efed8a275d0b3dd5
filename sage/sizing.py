"""How much to hold: conviction times a volatility target, under what level, uncertainty and drawdown allow.

Pure arithmetic on signals and exposures (signed position value over equity); knows nothing of NT.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from regime.signal import EXPOSURE_CAP, Direction, Level, Signal


@dataclass(frozen=True)
class SizingConfig:
    """Limits and speeds of the position.

    ``target_volatility`` is annual. ``max_exposure`` is a multiple of equity. ``conviction_gain`` turns the expected
    return over half the interval into a conviction that is full at 1. Exposure moves only when it is off by
    ``rebalance_band``. A reduction forced by a poorer level waits ``degrade_hold_bars``; at EMERGENCY the position
    is held, and closed after ``emergency_flatten_bars``.

    Up to an uncertainty of ``full_size_uncertainty`` the whole maximum may be held, from there on less, and nothing at
    1. Once equity is ``brake_drawdown`` below its peak, sizes are multiplied by ``brake_factor`` until it is within
    ``release_drawdown`` of it.
    """

    target_volatility: float = 0.20
    max_exposure: float = 1.0
    conviction_gain: float = 4.0
    rebalance_band: float = 0.10
    allow_short: bool | None = None
    full_size_uncertainty: float = 0.7
    brake_drawdown: float = 0.20
    release_drawdown: float = 0.10
    brake_factor: float = 0.5
    degrade_hold_bars: int = 3
    emergency_flatten_bars: int = 12


class Move(StrEnum):
    """Why the exposure is to change, or not."""

    NONE = "none"
    SIGNAL = "signal"
    FORCED = "forced reduction"
    FLATTEN = "emergency flatten"


@dataclass(frozen=True)
class Target:
    """An exposure to move to, why, and the cap that no order may exceed."""

    exposure: float
    move: Move
    cap: float


class DrawdownBrake:
    """Makes positions smaller after losses, and lets go when they have been made up for in good part."""

    def __init__(self, config: SizingConfig) -> None:
        self._config = config
        self._peak = 0.0
        self.engaged = False

    def factor(self, equity: float) -> float:
        """What sizes are to be multiplied by at this equity; hears of each bar's once, in order."""
        self._peak = max(self._peak, equity)
        drawdown = 1.0 - equity / self._peak if self._peak > 0.0 else 0.0
        self.engaged = drawdown >= self._config.brake_drawdown or (
            self.engaged and drawdown > self._config.release_drawdown
        )
        return self._config.brake_factor if self.engaged else 1.0


def ensemble_uncertainty(signal_uncertainty: float, disagreement: float) -> float:
    """In [0, 1]: nothing is certain unless both the interval and the alphas are; ``disagreement`` in [0, 1]."""
    return 1.0 - (1.0 - signal_uncertainty) * (1.0 - disagreement)


class ExposurePolicy:
    """Decides, bar by bar, which exposure to hold.

    Parameters
    ----------
    config
        The limits.
    bars_per_year
        For the annual volatility of a signal's volatility per bar.
    allow_short
        Whether targets below zero are allowed.
    """

    def __init__(self, config: SizingConfig, bars_per_year: float, *, allow_short: bool) -> None:
        self._config = config
        self._bars_per_year = bars_per_year
        self._allow_short = allow_short
        self._bars_over_cap = 0
        self._emergency_bars = 0
        self._caps: deque[float] = deque(maxlen=config.degrade_hold_bars + 1)
        self._brake = DrawdownBrake(config)

    def decide(
        self,
        signal: Signal,
        conviction: float,
        exposure: float,
        disagreement: float = 0.0,
        equity: float | None = None,
    ) -> Target:
        """The exposure to hold after this signal.

        Parameters
        ----------
        signal
            A valid signal.
        conviction
            Of the alpha models, in [-1, 1]; NaN where none has an opinion, and the position is then held.
        exposure
            Held now.
        disagreement
            Of the alpha models, in [0, 1].
        equity
            Now, for the drawdown brake; None for no brake.
        """
        factor = 1.0 if equity is None else self._brake.factor(equity)
        config = self._config
        cap = EXPOSURE_CAP[signal.level] * config.max_exposure
        if signal.level is Level.EMERGENCY:
            self._emergency_bars += 1
            if self._emergency_bars >= config.emergency_flatten_bars and exposure != 0.0:
                return Target(0.0, Move.FLATTEN, cap)
            return Target(exposure, Move.NONE, cap)
        self._emergency_bars = 0
        wanted = self._wanted(signal, conviction, exposure, disagreement, factor)
        bounded = math.copysign(min(abs(wanted), cap), wanted)
        # A cap that shrank is obeyed only when it stays so: one late answer should not cost two fees. Price
        # drift beyond the cap within the band is no reason to trade either.
        self._caps.append(cap)
        if abs(exposure) > cap + config.rebalance_band / 2:
            self._bars_over_cap += 1
            # Nor should one answer that is poorer still: what must be obeyed is the largest of the last caps.
            lasting = max(self._caps)
            if self._bars_over_cap <= config.degrade_hold_bars or abs(exposure) <= lasting + config.rebalance_band / 2:
                return Target(exposure, Move.NONE, cap)
            keeps_side = bounded * exposure > 0
            return Target(math.copysign(min(abs(wanted), lasting), wanted) if keeps_side else bounded, Move.FORCED, cap)
        self._bars_over_cap = 0
        if abs(bounded - exposure) < config.rebalance_band and not (bounded == 0.0 and exposure != 0.0):
            return Target(exposure, Move.NONE, cap)
        return Target(bounded, Move.SIGNAL, cap)

    def _wanted(self, signal: Signal, conviction: float, exposure: float, disagreement: float, factor: float) -> float:
        config = self._config
        if signal.direction is Direction.UNKNOWN or math.isnan(conviction):
            return exposure  # no opinion: hold, within the cap
        volatility = max(signal.forecast_volatility, signal.realised_volatility)
        if not volatility > 0:
            return exposure
        wanted = conviction * config.target_volatility / (volatility * math.sqrt(self._bars_per_year))
        certainty = 1.0 - ensemble_uncertainty(signal.uncertainty, disagreement)
        # Both make a position smaller and never larger: the cap of the level stays the bound of all.
        limit = config.max_exposure * min(1.0, certainty / (1.0 - config.full_size_uncertainty))
        wanted = factor * math.copysign(min(abs(wanted), limit), wanted)
        return max(wanted, 0.0) if not self._allow_short else wanted


def problem_with(signal: Signal, bar_ts_ns: int) -> str | None:
    """Why a signal must not be traded on, or None: stale, out of range or impossible."""
    if signal.ts_event != bar_ts_ns:
        return f"stale: of {signal.ts_event}, the bar is {bar_ts_ns}"
    for name in ("confidence", "uncertainty", "transition_probability"):
        if not 0.0 <= getattr(signal, name) <= 1.0:
            return f"{name} {getattr(signal, name)} is not in [0, 1]"
    if not math.isfinite(signal.expected_return):
        return "expected return is not finite"
    if not signal.interval_low <= signal.expected_return <= signal.interval_high:
        return "expected return lies outside its interval"
    if not signal.bar_interval_low <= signal.bar_interval_high:
        return "the next bar's interval ends before it begins"
    volatilities = signal.realised_volatility, signal.forecast_volatility
    if not all(0.0 <= volatility < math.inf for volatility in volatilities):
        return "volatility is negative or not finite"
    if len(signal.reasons) != signal.level:
        return f"level {signal.level} with {len(signal.reasons)} reasons"
    return None
