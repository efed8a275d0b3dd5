"""What must be seen when something fails: the architecture's table of levels, and how soon level 0 must be back.

Faults say what they amount to (:class:`~stress.stage.Failure`); what that has to lead to stands here alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regime.config import RegimeConfig
from regime.serving.config import ServingConfig
from regime.signal import Level
from stress.stage import Failure

LEVEL_THAT_ANSWERS: dict[Failure, Level] = {
    Failure.QUANTILES_UNSOUND: Level.BASIC,
    Failure.FORECASTS_WORTHLESS: Level.BASIC,
    Failure.CALIBRATION_LOST: Level.BASIC,
    Failure.NO_USABLE_ANSWER: Level.SMART,
    Failure.CHECKPOINT_UNUSABLE: Level.SMART,
    Failure.INDICATORS_FAIL: Level.SIMPLE,
    Failure.WINDOW_UNUSABLE: Level.HISTORICAL,
    Failure.NO_HISTORY: Level.EMERGENCY,
    # What spoils no forecast leaves the level as it is.
    Failure.BAR_REJECTED: Level.FULL,
    Failure.MARKET_STRANGE: Level.FULL,
    Failure.SIGNAL_INVALID: Level.FULL,
    Failure.HARMLESS: Level.FULL,
}
"""The best level that may answer while a failure lasts."""

WORST_LEVEL: dict[Failure, Level] = {
    # Of a market that it does not know the model may say what nobody believes; its median still stands.
    Failure.MARKET_STRANGE: Level.BASIC,
}
"""The worst level that may answer, where that is not the best one too."""

BESIDE_THE_LEVEL: dict[Failure, str] = {
    Failure.BAR_REJECTED: "a rejection for each bad bar, and no level lost",
    Failure.MARKET_STRANGE: "FULL or BASIC",
    Failure.FORECASTS_WORTHLESS: "BASIC, once it has shown",
    Failure.SIGNAL_INVALID: "no order, and no level lost",
    Failure.WINDOW_UNUSABLE: "HISTORICAL, and SIMPLE from 3 usable bars on",
    Failure.HARMLESS: "no level lost",
    Failure.RUN_REFUSED: "one clear message, and nothing half-done",
}
"""The same for people, where more is asked than a level."""


def expected(failure: Failure) -> str:
    """What must be seen, for people."""
    return BESIDE_THE_LEVEL.get(failure) or LEVEL_THAT_ANSWERS[failure].name


@dataclass(frozen=True)
class Footing:
    """What the levels have to stand on at one bar: bars in a row, matured scores, and signals before this one."""

    usable_bars: int
    scores: int
    earlier_signals: int


def has_footing(level: Level, footing: Footing, config: RegimeConfig) -> bool:
    """Whether a level's precondition holds, whatever else has failed."""
    match level:
        case Level.FULL:
            enough = footing.scores >= config.calibration.min_scores
            return enough and footing.usable_bars >= config.model_min_bars
        case Level.BASIC:
            return footing.usable_bars >= config.model_min_bars
        case Level.SMART:
            return footing.usable_bars >= config.smart_min_bars
        case Level.SIMPLE:
            return footing.usable_bars >= config.simple_min_bars
        case Level.HISTORICAL:
            return footing.earlier_signals >= 1
        case Level.EMERGENCY:
            return True


def levels_allowed(failure: Failure, footing: Footing, config: RegimeConfig) -> tuple[Level, Level]:
    """The best and the worst level that may answer a bar while a failure lasts."""

    def from_on(level: Level) -> Level:
        return next(each for each in Level if each >= level and has_footing(each, footing, config))

    if failure is Failure.WINDOW_UNUSABLE:
        # The window grows again from the first good bar on, and with it what can be answered.
        return from_on(Level.FULL), from_on(Level.HISTORICAL)
    if failure is Failure.FORECASTS_WORTHLESS:
        # It takes matured forecasts to tell.
        return from_on(Level.FULL), from_on(Level.BASIC)
    best = LEVEL_THAT_ANSWERS[failure]
    return from_on(best), from_on(WORST_LEVEL.get(failure, best))


def must_be_seen(failure: Failure) -> Level | None:
    """A level that must have answered at least once, where a range of levels is allowed."""
    found_late = {Failure.WINDOW_UNUSABLE, Failure.NO_HISTORY, Failure.FORECASTS_WORTHLESS}
    return LEVEL_THAT_ANSWERS[failure] if failure in found_late else None


def levels_allowed_afterwards(failure: Failure, footing: Footing, config: RegimeConfig) -> tuple[Level, Level]:
    """The same between the end of a fault and level 0: breaker, process and scores may still be on their way.

    Where nothing but the market was strange there is nothing to wait for: what held during the fault holds until the
    last strange bar has left the window.
    """
    if failure is Failure.MARKET_STRANGE:
        return levels_allowed(failure, footing, config)
    best, _ = levels_allowed(Failure.HARMLESS, footing, config)
    _, worst = levels_allowed(Failure.NO_USABLE_ANSWER, footing, config)
    return best, worst


@dataclass(frozen=True)
class Damage:
    """What is left to build up again when a fault ends.

    ``process`` tells that a model process is still to be started or busy with a late answer, ``window`` that the
    window begins anew, ``strange_bars`` that bars which are no market's lie in it, ``health`` that the model was found
    unhealthy. ``scores_short`` is how many scores are missing.
    """

    process: bool = False
    window: bool = False
    strange_bars: bool = False
    health: bool = False
    scores_short: int = 0


def recovery_bound_bars(
    damage: Damage, config: RegimeConfig, serving: ServingConfig, bar_s: float, load_s: float
) -> int:
    """Bars after the end of a fault within which level 0 must be back: the architecture's sixth invariant.

    What goes on at the same time counts by the longest; what waits for something else comes on top of it:

    - The breaker may have opened at the fault's last bar. It waits ``open_bars``, then probes.
    - A process that must be started waits at most ``back_off_max_s`` and loads for ``load_s``; one with a late answer
      still to give is given no longer. The breaker may have sent a probe just before it was ready, so that the next
      one comes a whole breaker's wait later.
    - A window that begins anew takes ``model_min_bars`` until the model is asked. The clock may have gone back at
      the fault's end: then ``max_rejects`` bars are refused before the new time is believed.
    - Strange bars must have left the window: ``context_bars`` of returns, and the one bar more that bounds them.
    - A model found unhealthy has to show ``recent_bars`` of good forecasts, the last bad ones of which mature a horizon
      later, at several checks; where the market gives it little chance to shine, in twice the time.
    - Scores come only of forecasts, so the missing ones and the horizon that the first of them takes to mature come
      after all that.

    Parameters
    ----------
    damage
        What is to be built up.
    config, serving
        The lengths.
    bar_s
        Seconds from one bar to the next.
    load_s
        How long the model takes to load, seconds.
    """
    breaker = config.breaker.open_bars + config.breaker.probes
    process = math.ceil((serving.back_off_max_s + load_s) / bar_s) + breaker if damage.process else 0
    window = config.max_rejects + config.model_min_bars if damage.window else 0
    strange = config.context_bars + 1 if damage.strange_bars else 0
    lengths = config.health
    checks = lengths.sustained_checks * lengths.check_every_bars
    health = config.horizon_bars + 2 * (lengths.recent_bars + checks) if damage.health else 0
    scores = damage.scores_short + config.horizon_bars if damage.scores_short else 0
    return max(breaker, process, window, strange, health) + scores
