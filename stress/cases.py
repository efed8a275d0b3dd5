"""One fault at one place, as it is asked for and as it came out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from data.errors import OptionError
from regime.model.checkpoint import EMBEDDED
from regime.model.engines import EngineKind
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from stress.expectations import Footing
from stress.stage import Failure


class Place(StrEnum):
    """Where in a run a fault begins; WHOLE_RUN is for what is wrong before the first bar."""

    WARM_UP = "warm-up"
    FLAT = "flat"
    POSITION = "position"
    HALF_OPEN = "half-open"
    AT_BAR = "at bar"
    WHOLE_RUN = "whole run"


MATRIX = (Place.WARM_UP, Place.FLAT, Place.POSITION, Place.HALF_OPEN)
"""Where every fault of the catalogue is provoked."""


class Verdict(StrEnum):
    """How a case came out; what was not placed has not passed."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_PLACED = "not placed"
    SKIPPED = "skipped"


def check_deadline(deadline_ms: float, reserve_ms: float) -> None:
    """Refuse a deadline within which no forecast is ever in time. Raises OptionError."""
    if not reserve_ms < deadline_ms < math.inf:
        raise OptionError(
            f"--deadline-ms {deadline_ms:g}: must exceed the reserve of {reserve_ms:g} ms, or no forecast is ever in "
            "time"
        )


@dataclass(frozen=True)
class InjectConfig:
    """What the runs have in common.

    Bars come no faster than one in ``pace_ms`` from the fault's beginning until level 0 is back: without the model a
    backtest is so fast that a process would take thousands of bars to start. ``baseline`` runs the market without the
    fault as well, to its end.
    """

    model: str = EMBEDDED
    engine: EngineKind = "auto"
    bars: int = 1_200
    seed: int = 13
    deadline_ms: float = 50.0
    pace_ms: float = 5.0
    baseline: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a fault begins (``at_bar`` counts from 1) and how many bars it lasts; None for the fault's own length."""

    place: Place
    at_bar: int | None = None
    for_bars: int | None = None

    def __str__(self) -> str:
        return f"bar {self.at_bar}" if self.place is Place.AT_BAR else str(self.place)


class Phase(StrEnum):
    """How far a case is."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class Answered:
    """One bar that the detector was given, and what became of it.

    ``market_bar`` counts from 1. ``bad`` tells that a fault made or changed the bar, ``spoilt`` that the strategy
    heard something else than was said.
    """

    market_bar: int
    phase: Phase
    bar: BarInput
    bad: bool
    answer: Signal | BarRejected
    footing: Footing
    total_ms: float
    spoilt: bool


@dataclass
class CaseResult:
    """How one case came out.

    ``levels`` and ``reasons`` are those seen while the fault lasted; ``all_levels`` those of the whole run, with a
    code for each level passed over that is no warm-up. ``worst_ms`` is the longest that an answer took meanwhile.
    ``stray_timeouts`` are the machine's and not the fault's. ``timeline`` holds, for each market bar around the fault,
    the level that answered, ``-1`` for a rejection and None where no bar was given; ``fault_begins`` and ``fault_ends``
    are places in it. ``equity`` and ``baseline_equity`` are the run's last ones where a baseline was asked for.
    """

    fault: str
    failure: Failure
    place: str
    expected: str
    verdict: Verdict = Verdict.FAILED
    why: str = ""
    began_at_bar: int = 0
    for_bars: int = 0
    levels: Counter[Level] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    reached: dict[Level, Counter[Reason]] = field(default_factory=dict)
    worst_ms: float = 0.0
    bars_lost: int = 0
    rejected: int = 0
    orders_degraded: int = 0
    orders_over_cap: int = 0
    bars_to_full: int | None = None
    bound_bars: int | None = None
    stray_timeouts: int = 0
    attempts: int = 1
    timeline: list[int | None] = field(default_factory=list)
    fault_begins: int = 0
    fault_ends: int = 0
    equity: float | None = None
    baseline_equity: float | None = None
    seconds: float = 0.0

    @property
    def cost(self) -> float | None:
        """What the fault cost against the run without it, in the quote currency; None where nothing was compared."""
        if self.equity is None or self.baseline_equity is None:
            return None
        return self.baseline_equity - self.equity
