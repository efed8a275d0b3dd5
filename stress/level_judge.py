"""Which levels could answer a bar, worked out anew from the bars and from what the model truly said."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from regime.calibration import ABSURD_RATIO, Intervals
from regime.config import RegimeConfig
from regime.forecast import CROSSING_TOLERANCE, MEDIAN, WIDTH_RATIO_MAX, FloatArray
from regime.serving.breaker import BreakerState
from regime.serving.protocol import Status, digest_of
from regime.signal import Level, Reason, Signal
from stress.shadow import Shadow
from stress.stage import Failure, Fault
from stress.witness import Seen

TAMPERING = {Failure.CALIBRATION_LOST, Failure.INDICATORS_FAIL, Failure.WINDOW_UNUSABLE, Failure.NO_HISTORY}
"""Failures that come of harm done to what the detector remembers, which bars and answers do not show."""

_NORMAL_80 = 2.5631
"""Distance between the outer quantiles of a standard normal distribution."""

_SOUND_KEPT = 20
"""Horizons of sound forecasts that are kept by their bars at most."""

Reasons = frozenset[Reason]
_NONE: Reasons = frozenset()
_WITHOUT_HISTORY = frozenset({Reason.NO_REGIME_HISTORY, Reason.REGIMES_CORRUPT})


@dataclass(frozen=True)
class Outcome:
    """How asking the model went: codes of which level FULL must give one, empty where its quantiles are sound.

    ``median`` says whether level BASIC could answer all the same, ``tried`` whether there was anything to be asked.
    ``impossible`` is what was seen that must not be.
    """

    why: Reasons = _NONE
    median: bool = False
    tried: bool = True
    impossible: str = ""


class LevelJudge:
    """Walks through a run, bar by bar.

    Parameters
    ----------
    config
        The detector's.
    bar_seconds
        Length of a bar.
    faults
        By name; the codes of those that harm the detector's memory are excused while they may show.
    """

    def __init__(self, config: RegimeConfig, bar_seconds: int, faults: Mapping[str, Fault]) -> None:
        self._config = config
        self._faults = faults
        self._shadow = Shadow(config, bar_seconds)
        self._times_opened = 0
        self._signals = 0
        self._failed_before = False
        self._tampered = False
        self._excused: set[str] = set()
        self._sound_at: list[int] = []
        self._sound_before = 0

    def look(self, seen: Seen) -> Iterator[str]:
        """What is wrong with the level and the reasons of one bar."""
        accepted = self._shadow.accepts(seen.bar)
        tampering = self._follow_tampering(seen)
        opened_now, self._times_opened = seen.times_opened > self._times_opened, seen.times_opened
        signal = seen.answer
        if not accepted or not isinstance(signal, Signal):
            return
        outcome = self._asked(seen, opened_now)
        self._failed_before |= outcome.tried and not outcome.median
        if outcome.impossible:
            yield outcome.impossible
        elif len(signal.reasons) != signal.level:
            yield f"level {signal.level} with {len(signal.reasons)} reasons"
        else:
            yield from self._walk(signal, seen, outcome)
        if not outcome.why:
            self._note_sound()
            if not tampering:
                # Harm done to the calibration shows at the next sound forecast at the latest.
                self._excused.clear()
        self._signals += 1

    def remembered(self) -> dict[str, object]:
        """All that it knows of the bars so far, for another judge over the same faults."""
        return {name: value for name, value in vars(self).items() if name != "_faults"}

    def recall(self, remembered: Mapping[str, object]) -> None:
        """Go on from what another one remembered."""
        vars(self).update(remembered)

    def _note_sound(self) -> None:
        """A forecast was sound; those that have matured long since are only counted, for a run may be without end."""
        self._sound_at.append(self._shadow.accepted)
        if len(self._sound_at) > _SOUND_KEPT * self._config.horizon_bars:
            old = len(self._sound_at) - self._config.horizon_bars - 1
            self._sound_before += old
            del self._sound_at[:old]

    def _follow_tampering(self, seen: Seen) -> bool:
        found = [self._faults[name] for name in seen.faults if self._faults[name].failure in TAMPERING]
        self._tampered |= bool(found)
        for fault in found:
            # Whoever takes regimes away leaves damaged ones or none.
            no_history = fault.failure is Failure.NO_HISTORY
            self._excused |= fault.reasons | (_WITHOUT_HISTORY if no_history else _NONE)
        shadow = self._shadow
        if found and (shadow.usable_bars, shadow.restart) != (seen.usable_bars, seen.restart):
            shadow.follow(seen.usable_bars, seen.restart)
        return bool(found)

    def _walk(self, signal: Signal, seen: Seen, outcome: Outcome) -> Iterator[str]:
        """Go down the chain: whoever could answer must, and who could not must say why."""
        for level in Level:
            allowed = self._reasons(level, seen, outcome)
            if level is signal.level:
                if allowed:
                    yield f"level {level.name} is recorded, which cannot have answered: {_told(allowed)}"
                matured = bisect_right(self._sound_at, self._shadow.accepted - self._config.horizon_bars)
                matured += self._sound_before
                needed = self._config.calibration.min_scores
                if level is Level.FULL and matured < needed:
                    yield f"level FULL on {matured} forecasts that can have matured, {needed} are needed"
                return
            reason = signal.reasons[level]
            if reason not in allowed and reason not in self._excused:
                could = f"the reason must be {_told(allowed)}" if allowed else "could have answered"
                yield f"level {level.name}, {could}; recorded is {reason}"

    def _reasons(self, level: Level, seen: Seen, outcome: Outcome) -> Reasons:
        """Codes with which this level may be passed over; none where it must answer."""
        config, shadow = self._config, self._shadow
        match level:
            case Level.FULL if outcome.why:
                return outcome.why
            case Level.FULL if seen.unhealthy:
                # The detector's own verdict, which takes hundreds of forecasts: whether it is right is another study's.
                return frozenset({Reason.UNHEALTHY})
            case Level.FULL if seen.scores < config.calibration.min_scores:
                if self._tampered:
                    return frozenset({Reason.FEW_SCORES, Reason.WARM_UP})
                warm_up_bars = config.model_min_bars + config.horizon_bars + config.calibration.min_scores
                young = not self._failed_before and shadow.restart is None and shadow.accepted < warm_up_bars
                return frozenset({Reason.WARM_UP if young else Reason.FEW_SCORES})
            case Level.FULL if seen.proposed is not None and self._beyond_belief(seen.proposed):
                return frozenset({Reason.ABSURD_WIDTH})
            case Level.BASIC if not outcome.median:
                return outcome.why
            case Level.SMART | Level.SIMPLE:
                needed = config.smart_min_bars if level is Level.SMART else config.simple_min_bars
                if shadow.usable_bars < needed:
                    return frozenset({shadow.shortage})
                return _NONE if shadow.moves and shadow.volatility > 0 else frozenset({Reason.NO_VARIANCE})
            case Level.HISTORICAL if not self._signals:
                first = shadow.restart is None and shadow.usable_bars <= 1
                return frozenset({Reason.WARM_UP if first else Reason.NO_REGIME_HISTORY})
        return _NONE

    def _asked(self, seen: Seen, opened_now: bool) -> Outcome:
        """How asking the model went, by what reached a process and what came back."""
        config, shadow = self._config, self._shadow
        if shadow.usable_bars < config.model_min_bars:
            return Outcome(frozenset({shadow.shortage}), tried=False)
        if not shadow.moves:
            return Outcome(frozenset({Reason.NO_VARIANCE}), tried=False)
        if seen.breaker is BreakerState.OPEN and not opened_now:
            asked = "the breaker is open, and the model was asked" if seen.asked else ""
            return Outcome(frozenset({Reason.BREAKER_OPEN}), impossible=asked)
        if not seen.asked:
            return Outcome(frozenset({Reason.TIMEOUT, Reason.MODEL_DIED, Reason.MODEL_UNAVAILABLE}))
        digest = digest_of(shadow.context())
        sequence, of_window = seen.asked[-1]
        if len(seen.asked) > 1 or (of_window != digest and not self._tampered):
            return Outcome(impossible=f"the model was asked {len(seen.asked)} times, or about another window")
        replies = [heard for heard in seen.received if heard.sequence == sequence]
        if not replies:
            return Outcome(frozenset({Reason.TIMEOUT, Reason.MODEL_DIED}))
        reply, quantiles = replies[-1].reply, replies[-1].quantiles
        if reply.status is not Status.OK:
            failed = Reason.OUT_OF_MEMORY if reply.status is Status.OUT_OF_MEMORY else Reason.MODEL_ERROR
            return Outcome(frozenset({failed}))
        if (reply.rows, reply.horizon_bars) != (1, config.horizon_bars):
            return Outcome(frozenset({Reason.WRONG_SHAPE}))
        if reply.digest != of_window:
            return Outcome(frozenset({Reason.STALE_ANSWER}))
        if not np.isfinite(quantiles[0, :, MEDIAN]).all():
            return Outcome(frozenset({Reason.NOT_FINITE}))
        why = self._unsound(quantiles[0].astype(np.float64) * shadow.outlook()[:, None])
        return Outcome(frozenset({why}) if why else _NONE, median=True)

    def _beyond_belief(self, found: Intervals) -> bool:
        """Whether the next bar's interval, or that over the horizon, has nothing to do with this market."""
        half_widths = (found.highs - found.lows)[[0, -1]] / 2
        per_bar = half_widths / (self._shadow.volatility * np.sqrt([1, self._config.horizon_bars]))
        return not bool(((per_bar > 1 / ABSURD_RATIO) & (per_bar < ABSURD_RATIO)).all())

    def _unsound(self, quantiles: FloatArray) -> Reason | None:
        """What is wrong with quantiles, shape (horizon_bars, 9), whose median is finite."""
        if not np.isfinite(quantiles).all():
            return Reason.NOT_FINITE
        width = np.ptp(quantiles, axis=1)
        if (np.diff(quantiles, axis=1).min(axis=1) < -CROSSING_TOLERANCE * width).any():
            return Reason.CROSSED_QUANTILES
        per_bar = math.sqrt(float(np.mean(width**2))) / _NORMAL_80
        ratio = per_bar / self._shadow.volatility
        return None if 1 / WIDTH_RATIO_MAX < ratio < WIDTH_RATIO_MAX else Reason.ABSURD_WIDTH


def _told(reasons: Reasons) -> str:
    return " or ".join(sorted(reasons))
