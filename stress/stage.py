"""Where faults act: one run's parts, and the switches by which they are harmed and set right again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from regime.detector import Detector
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Signal
from regime.window import BarInput
from stress.misbehaviour import Control

BarFault = Callable[[BarInput], Sequence[BarInput]]
SignalFault = Callable[[Signal], Signal]


class Failure(StrEnum):
    """What a fault amounts to. Which level must answer it stands in ``stress.expectations``, not here."""

    QUANTILES_UNSOUND = "quantiles crossed, absurdly wide or not finite outside the median"
    FORECASTS_WORTHLESS = "forecasts sound to look at, and worse than none"
    CALIBRATION_LOST = "calibration missing or corrupt"
    NO_USABLE_ANSWER = "median not finite, wrong shape, stale, exception, time-out, hang, death, out of memory"
    CHECKPOINT_UNUSABLE = "checkpoint missing, damaged or wrong"
    INDICATORS_FAIL = "the same with indicators failing or history short"
    WINDOW_UNUSABLE = "the same with an unusable window"
    NO_HISTORY = "the same with no history of regimes"
    BAR_REJECTED = "a bar that cannot be used"
    MARKET_STRANGE = "bars that are usable and strange"
    SIGNAL_INVALID = "a signal that the strategy must not trade on"
    HARMLESS = "the run goes on at its level"
    RUN_REFUSED = "there is nothing to run on, or no place for what it leaves"


@dataclass
class Stage:
    """One run's parts as faults see them.

    ``control`` makes the model misbehave, real or simulated. ``bar_faults`` are applied to each bar in turn, in the
    order in which they were added, ``signal_faults`` to what the strategy hears. ``rng`` is the fault's only source
    of chance. ``kept`` is the faults' own memory of what they are to set right. ``kill`` sends a signal to a model
    process (``stage.kill(pid, SIGSTOP)``), one of the system's or, where the machine is simulated, one of its own.
    """

    detector: Detector
    client: ModelClient | None
    control: Control
    rng: np.random.Generator
    bar_seconds: int
    bar_faults: list[BarFault] = field(default_factory=list)
    signal_faults: list[SignalFault] = field(default_factory=list)
    kept: dict[str, object] = field(default_factory=dict)
    kill: Callable[[int, int], None] = os.kill

    def distort(self, bar: BarInput) -> list[BarInput]:
        """The bars that take a bar's place."""
        found = [bar]
        for fault in self.bar_faults:
            found = [made for given in found for made in fault(given)]
        return found

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        """What the strategy hears."""
        if isinstance(answer, Signal):
            for fault in self.signal_faults:
                answer = fault(answer)
        return answer


@dataclass(frozen=True)
class Fault:
    """One way in which something goes wrong.

    ``begin`` is called before the first bar that it concerns, ``end`` before the first that it does not; ``each``,
    where there is one, before every bar between. ``reasons`` are the codes of which one must be seen. ``ends`` says
    for people how it ends. ``calibration_lost`` and ``window_lost`` say what must be built up again before level 0
    can return, ``strange_bars`` that it leaves bars in the window that are no market's. ``needs`` names what must be
    there: ``process`` (a real model process), ``checkpoint`` (a private copy of it, its weights' path in
    ``stage.kept["checkpoint"]``), ``native`` (the native engine), ``health`` (a check of the model's health that is
    quick to judge). ``lasts_bars`` is how long the fault lasts unless somebody wants otherwise. ``proof`` says after
    the run what was not seen of a fault that leaves no reason behind; empty if all was.
    """

    name: str
    does: str
    ends: str
    failure: Failure
    begin: Callable[[Stage], None]
    end: Callable[[Stage], None]
    each: Callable[[Stage], None] | None = None
    reasons: frozenset[str] = frozenset()
    calibration_lost: bool = False
    window_lost: bool = False
    needs: frozenset[str] = frozenset()
    lasts_bars: int = 24
    strange_bars: bool = False
    proof: Callable[[Stage], str] | None = None
