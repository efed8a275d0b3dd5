"""What a soak is to do, and how long."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum

from data.errors import OptionError
from regime.model.weights import ARCHITECTURES
from sage.config import BacktestConfig, validate
from stress.soak.plants import Plant, PlantedIn

SEGMENT_BARS, SEGMENT_BARS_MAX = 1_000, 3_000
"""A long soak has longer segments: NautilusTrader keeps a part of each engine."""

PHASES = 4
"""Samples of memory in a segment, at equal counts of bars."""

SEGMENT_S_MAX = 120.0
"""At a given rate a segment takes no longer than this: what is stopped or fails is stopped soon."""

SEGMENTS_MIN = 20
SEGMENT_BARS_MIN = 20
_BARS_A_SECOND = 50.0
"""What the slowest model does where nothing sets a rate."""

FAULTY_SEGMENT_BARS_MIN = 500
HOURS_MAX = 24 * 365.0


class FaultLoad(StrEnum):
    """How much goes wrong on purpose."""

    NONE = "none"
    LIGHT = "light"
    HEAVY = "heavy"


FAULTS_AT_ONCE = {FaultLoad.LIGHT: 1, FaultLoad.HEAVY: 5}
"""At most so many faults in a segment."""


@dataclass(frozen=True)
class SoakConfig:
    """A soak; ``hours`` or ``bars`` says how long.

    ``rate`` is bars a second, 0 for as fast as it goes. ``backtest`` configures everything that trades; its deadline
    is the target of every minute's p99. ``architecture`` puts random weights of that architecture in the place of a
    model. ``leak_limit_mb_per_hour`` and ``growth_limit_mb`` are of our own memory, NautilusTrader's share apart.
    A trading process that has come to ``recycle_mb`` is replaced.
    """

    hours: float | None = None
    bars: int | None = None
    backtest: BacktestConfig = field(default_factory=lambda: soak_backtest(BacktestConfig()))
    architecture: str | None = None
    segment_bars: int | None = None
    rate: float = 0.0
    faults: FaultLoad = FaultLoad.NONE
    background: int = 0
    seed: int = 1
    leak_limit_mb_per_hour: float = 5.0
    growth_limit_mb: float = 500.0
    recycle_mb: float = 1_000.0
    plants: tuple[Plant, ...] = ()

    @property
    def bars_a_segment(self) -> int:
        """Bars of a segment: as configured, or as many as the rate allows in reasonable time."""
        if self.segment_bars is not None:
            return self.segment_bars
        if not (math.isfinite(self.rate) and self.rate > 0):
            bars = self.bars if self.bars is not None else 3600.0 * min(self.hours or 0.0, HOURS_MAX) * _BARS_A_SECOND
            return int(min(SEGMENT_BARS_MAX, max(SEGMENT_BARS, bars / SEGMENTS_MIN)))
        seconds = SEGMENT_S_MAX
        if self.hours is not None and 0 < self.hours < math.inf:
            # Hours end with a segment: a short soak has short ones.
            seconds = min(seconds, 3600.0 * self.hours / SEGMENTS_MIN)
        least = SEGMENT_BARS_MIN
        if self.faults is not FaultLoad.NONE and self.rate * SEGMENT_S_MAX >= FAULTY_SEGMENT_BARS_MIN:
            least = FAULTY_SEGMENT_BARS_MIN
        return max(least, min(SEGMENT_BARS, math.floor(self.rate * seconds)))

    @property
    def is_witnessed(self) -> bool:
        """True where every rule of level, reason and order is looked at.

        Those of orders are SAGE's strategy's, and only SAGE's own model process can be overheard.
        """
        return self.backtest.own.strategy is None and self.backtest.own.forecaster is None

    @property
    def segments(self) -> int | None:
        """How many segments there are, where bars say how long."""
        return None if self.bars is None else math.ceil(self.bars / self.bars_a_segment)


def soak_backtest(config: BacktestConfig) -> BacktestConfig:
    """The configuration of a soak's trading side: online, without a store, under a deadline."""
    deadline_ms = config.regime.deadline_ms or 50.0
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, online=True, store=False),
        regime=dataclasses.replace(config.regime, deadline_ms=deadline_ms),
    )


def check(config: SoakConfig) -> None:
    """Refuse what makes no sense. Raises OptionError."""
    for rule, message in _rules(config):
        if not rule:
            raise OptionError(message)
    validate(config.backtest)


def _rules(config: SoakConfig) -> list[tuple[bool, str]]:
    own = config.backtest.own
    hours, bars, segment_bars = config.hours, config.bars, config.segment_bars
    finite = all(
        math.isfinite(value)
        for value in (config.rate, config.leak_limit_mb_per_hour, config.growth_limit_mb, config.recycle_mb)
    )
    return [
        (hours is not None or bars is not None, "say how long: --hours H, such as 0.5, or --bars N"),
        (hours is None or bars is None, "--hours and --bars exclude each other"),
        (hours is None or 0 < hours <= HOURS_MAX, f"--hours {hours}: must be more than 0, and {HOURS_MAX:g} at most"),
        (bars is None or bars >= 1, f"--bars {bars}: must be 1 or more"),
        (
            segment_bars is None or segment_bars >= SEGMENT_BARS_MIN,
            f"--segment-bars {segment_bars}: must be {SEGMENT_BARS_MIN} or more",
        ),
        (finite, "limits and rates must be finite numbers"),
        (config.rate >= 0, f"--rate {config.rate:g}: must not be negative"),
        (config.background >= 0, f"--background {config.background}: must not be negative"),
        (config.seed >= 0, f"--seed {config.seed}: must not be negative"),
        (config.leak_limit_mb_per_hour > 0, f"--leak-limit-mb-per-hour {config.leak_limit_mb_per_hour:g}: must be > 0"),
        (config.growth_limit_mb > 0, f"--growth-limit-mb {config.growth_limit_mb:g}: must be more than 0"),
        (
            config.faults is FaultLoad.NONE or config.bars_a_segment >= FAULTY_SEGMENT_BARS_MIN,
            f"--faults {config.faults}: segments of {config.bars_a_segment} bars are too short to mend in; "
            f"{FAULTY_SEGMENT_BARS_MIN} is the least",
        ),
        (
            config.faults is FaultLoad.NONE or config.is_witnessed,
            f"--faults {config.faults}: the catalogue's faults know SAGE's own model and strategy alone",
        ),
        (
            config.architecture is None or config.architecture in ARCHITECTURES,
            f"--architecture {config.architecture}: must be one of {', '.join(ARCHITECTURES)}",
        ),
        (
            config.architecture is None or own.forecaster is None,
            "--architecture and --forecaster exclude each other: only one of them can forecast",
        ),
        (
            config.faults is FaultLoad.NONE or all(plant.where is PlantedIn.TRADING for plant in config.plants),
            "--plant ...@model makes the model's process misbehave, and so does --faults: one at a time",
        ),
        (config.recycle_mb >= 50, f"--recycle-mb {config.recycle_mb:g}: must be 50 or more"),
    ]
