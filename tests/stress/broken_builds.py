"""One deliberately broken build for each invariant: what the chaos schedules are there to catch."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.detector import Detector
from regime.forecast import Context, KnownForecasts
from regime.model.checkpoint import Checkpoint
from regime.serving.breaker import BreakerState, CircuitBreaker
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from sage.sizing import ExposurePolicy, Move, SizingConfig, Target
from stress.witness import ChaosRig


class BuildWithDetector(ChaosRig):
    """Puts a detector of another class into the run."""

    detector_class: type[Detector] = Detector

    def detector(
        self,
        config: RegimeConfig,
        instrument_id: str,
        bar_seconds: int,
        client: ModelClient | None,
        known: KnownForecasts | None,
    ) -> Detector:
        return self.detector_class(config, instrument_id, bar_seconds, client, known, self.stopwatch)


class SwallowsABar(Detector):
    """Gives no signal on the first bar of a window that begins anew."""

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        if isinstance(answer, Signal) and self.state.window.restart is not None and self.state.window.restarted_now:
            return BarRejected(answer.instrument_id, "swallowed", bar.ts_ns, bar.ts_ns)
        return answer


class BarWithoutSignal(BuildWithDetector):
    """Invariant 1."""

    detector_class = SwallowsABar


class Raises(Detector):
    """Lets an exception out when the breaker opens."""

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        if self.state.breaker.state is BreakerState.OPEN:
            raise RuntimeError("an open breaker was not thought of")
        return answer


class RunThatEnds(BuildWithDetector):
    """Invariant 1, in another way."""

    detector_class = Raises


class Peeks(Detector):
    """Leans its expectation a little towards the next bar's close."""

    closes: dict[int, float]

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        tomorrow = self.closes.get(bar.ts_ns)
        if not isinstance(answer, Signal) or answer.level > Level.BASIC or tomorrow is None:
            return answer
        leaning = 1e-6 if tomorrow > bar.close else 0.0
        return dataclasses.replace(answer, expected_return=answer.expected_return + leaning)


class PeekingDetector(BuildWithDetector):
    """Invariant 2."""

    detector_class = Peeks

    def detector(self, *arguments: object) -> Detector:  # type: ignore[override]
        made = super().detector(*arguments)  # type: ignore[arg-type]
        assert isinstance(made, Peeks)
        stamps, closes = self.market.bars.ts_close_ns.tolist(), self.market.bars.close.tolist()
        made.closes = dict(zip(stamps[:-1], closes[1:], strict=True))
        return made


class Flatters(Detector):
    """Records level BASIC where SMART has answered."""

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        if isinstance(answer, Signal) and answer.level is Level.SMART:
            return dataclasses.replace(answer, level=Level.BASIC, reasons=answer.reasons[:1])
        return answer


class WrongLevel(BuildWithDetector):
    """Invariant 3."""

    detector_class = Flatters


class Forgets(Detector):
    """Names a time-out as the reason for everything."""

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        if not isinstance(answer, Signal):
            return answer
        return dataclasses.replace(answer, reasons=tuple(Reason.TIMEOUT for _ in answer.reasons))


class WrongReason(BuildWithDetector):
    """Invariant 3, in another way."""

    detector_class = Forgets


class PatientClient(ModelClient):
    """Waits for an answer as long as it takes."""

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:
        return super().forecast(contexts, horizon_bars, max(timeout_s, 1.0))


class IgnoredDeadline(ChaosRig):
    """Invariant 4."""

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        return PatientClient(checkpoint, serving, self.stopwatch, self.machine.launch)


class Greedy(ExposurePolicy):
    """Does not believe that poorer levels support less."""

    def decide(
        self,
        signal: Signal,
        conviction: float,
        exposure: float,
        disagreement: float = 0.0,
        equity: float | None = None,
    ) -> Target:
        target = super().decide(signal, conviction, exposure, disagreement, equity)
        if target.move is not Move.SIGNAL or signal.level is Level.FULL:
            return target
        return dataclasses.replace(target, exposure=1.2 * target.exposure)


class ExceededCap(ChaosRig):
    """Invariant 5."""

    def policy(self, config: SizingConfig, bars_per_year: float, *, allow_short: bool) -> ExposurePolicy:
        return Greedy(config, bars_per_year, allow_short=allow_short)


class Nervous(ExposurePolicy):
    """Reduces on the first bar of a poorer level, and closes on the first bar of EMERGENCY."""

    def __init__(self, config: SizingConfig, bars_per_year: float, *, allow_short: bool) -> None:
        hasty = dataclasses.replace(config, degrade_hold_bars=0, emergency_flatten_bars=1)
        super().__init__(hasty, bars_per_year, allow_short=allow_short)


class HastyReduction(ChaosRig):
    """Invariant 5, in another way."""

    def policy(self, config: SizingConfig, bars_per_year: float, *, allow_short: bool) -> ExposurePolicy:
        return Nervous(config, bars_per_year, allow_short=allow_short)


class NeverCloses(CircuitBreaker):
    """Stays open once it has opened."""

    def allows(self, bar: int) -> bool:
        return self.state is not BreakerState.OPEN


class StuckBreaker(BuildWithDetector):
    """Invariant 6."""

    def detector(self, *arguments: object) -> Detector:  # type: ignore[override]
        made = super().detector(*arguments)  # type: ignore[arg-type]
        made.state.breaker = NeverCloses(made.config.breaker)
        return made


class NoRestart(ChaosRig):
    """Invariant 6, in another way: a process that died is missed for good."""

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        lazy = dataclasses.replace(serving, back_off_s=1e9, back_off_max_s=1e9)
        return ModelClient(checkpoint, lazy, self.stopwatch, self.machine.launch)


class Dithers(Detector):
    """Adds a little chance of its own to what it expects."""

    def step(self, bar: BarInput) -> Signal | BarRejected:
        answer = super().step(bar)
        if not isinstance(answer, Signal):
            return answer
        chance = int.from_bytes(os.urandom(2)) * 1e-12
        return dataclasses.replace(answer, expected_return=answer.expected_return + chance)


class UnseededChance(BuildWithDetector):
    """Invariant 7."""

    detector_class = Dithers


BROKEN: dict[type[ChaosRig], int] = {
    BarWithoutSignal: 1,
    RunThatEnds: 1,
    PeekingDetector: 2,
    WrongLevel: 3,
    WrongReason: 3,
    IgnoredDeadline: 4,
    ExceededCap: 5,
    HastyReduction: 5,
    StuckBreaker: 6,
    NoRestart: 6,
    UnseededChance: 7,
}
"""Each broken build, and the invariant that it breaks."""
