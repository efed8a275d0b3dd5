"""One fault at one place, through the real path: NT, actor, detector, model process, strategy.

Nothing in it is simulated but the market. The model's answers are spoilt in the model process itself, bars between NT
and the detector, memory where it lies.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import OptionError
from data.market import Market, synthetic_market
from data.synthetic import SyntheticConfig
from regime.config import HealthConfig
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import EngineSpec
from regime.serving.breaker import BreakerState
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.serving.process import ModelProcess, Started, StartFailed
from regime.signal import BarRejected, Level, Signal
from regime.window import BarInput
from sage.backtest import run_backtest
from sage.config import BacktestConfig, DataConfig, ModelConfig
from sage.rig import Parts, Rig
from sage.run import BacktestFailed, BacktestRun
from stress.cases import Answered, CaseResult, InjectConfig, Phase, Place, Placement, Verdict, check_deadline
from stress.expectations import Footing, expected
from stress.faults.machine import MEMORY_LIMIT_MB
from stress.judgement import STEADY_BARS, Witnessed, judge
from stress.misbehaviour import Control, MisbehavingProcess, Misbehaviour
from stress.scratch import scratch_directory
from stress.stage import Failure, Fault, Stage

SETTLED_BARS = 10
"""So many answers at level 0 before a fault is placed behind the warm-up."""

_NEEDS_NATIVE, _NEEDS_HEALTH = "native", "health"

QUICK_HEALTH = HealthConfig(window_bars=200, recent_bars=100, check_every_bars=5)
"""A check that finds in a run of some hundred bars what takes the ordinary one a thousand, and errs more often."""


def run_config(config: InjectConfig, fault: Fault | None = None) -> BacktestConfig:
    """The backtest in which faults are provoked: as it trades, under a deadline, its process replaced without delay."""
    regime = BacktestConfig().regime
    serving = ServingConfig(
        engine=EngineSpec(kind=config.engine),
        start_timeout_s=30.0,
        silence_limit_s=0.3,
        back_off_s=0.05,
        back_off_max_s=0.2,
        watch_s=0.05,
    )
    if fault is not None and _NEEDS_NATIVE in fault.needs:
        serving = dataclasses.replace(serving, memory_limit_mb=MEMORY_LIMIT_MB)
    if fault is not None and _NEEDS_HEALTH in fault.needs:
        regime = dataclasses.replace(regime, health=QUICK_HEALTH)
    return BacktestConfig(
        data=DataConfig(synthetic=SyntheticConfig(bars=config.bars)),
        model=ModelConfig(name=config.model, online=True, store=False),
        serving=serving,
        regime=dataclasses.replace(regime, deadline_ms=config.deadline_ms),
        seed=config.seed,
    )


@functools.lru_cache(maxsize=2)
def market_of(bars: int, seed: int) -> Market:
    """The simulated market of a run; the same for every case."""
    return synthetic_market(SyntheticConfig(bars=bars, seed=seed))


BARS_MAX = 100_000

_FELT_BY_FORECASTS = {
    Failure.QUANTILES_UNSOUND,
    Failure.FORECASTS_WORTHLESS,
    Failure.NO_USABLE_ANSWER,
    Failure.CHECKPOINT_UNUSABLE,
}


def check(config: InjectConfig, placement: Placement, fault: Fault | None = None) -> None:
    """Refuse what cannot be done. Raises OptionError."""
    settings = run_config(config)
    first = settings.regime.model_min_bars + settings.regime.horizon_bars + settings.regime.calibration.min_scores
    for_bars = placement.for_bars if placement.for_bars is not None else fault.lasts_bars if fault else 1
    if config.bars <= first:
        raise OptionError(f"--bars {config.bars}: level 0 is reached after {first} bars; give more")
    if config.bars > BARS_MAX:
        raise OptionError(f"--bars {config.bars}: at most {BARS_MAX:,}, for every run is kept in memory")
    check_deadline(config.deadline_ms, settings.regime.reserve_ms)
    if config.seed < 0:
        raise OptionError(f"--seed {config.seed}: must not be negative")
    if for_bars < 1:
        raise OptionError(f"--for {for_bars}: a fault lasts 1 bar or more")
    if placement.at_bar is not None and not 1 <= placement.at_bar <= config.bars:
        raise OptionError(f"--at {placement.at_bar}: the run has the bars 1 to {config.bars}; see --bars")
    asked_from = settings.regime.model_min_bars
    begins_at = placement.at_bar or asked_from
    if fault is not None and fault.failure in _FELT_BY_FORECASTS and begins_at < asked_from:
        raise OptionError(
            f"--at {begins_at}: the model is asked from bar {asked_from} on, and before that nobody would notice "
            f"{fault.name}"
        )
    if (placement.at_bar or 1) + for_bars > config.bars:
        raise OptionError(
            f"a fault of {for_bars} bars at bar {placement.at_bar or 1} would outlast the run of {config.bars} bars, "
            "and nobody would see level 0 come back; give fewer with --for, or more with --bars"
        )


class _OverheardProcess(MisbehavingProcess):
    """Notes what a process says that cannot load the model: signals carry a code for it, not the words."""

    def __init__(self, failures: list[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._failures = failures

    def started(self, timeout_s: float) -> Started | None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        try:
            return super().started(timeout_s)
        except StartFailed as error:
            self._failures.append(str(error))
            raise


class FaultRig(Rig):
    """Waits for the place, lets the fault begin and end there, and writes down every answer.

    Parameters
    ----------
    fault
        What is to go wrong; None for a run to compare with.
    placement
        Where and for how long.
    config
        The run's.
    """

    def __init__(self, fault: Fault | None, placement: Placement, config: InjectConfig) -> None:
        self.answers: list[Answered] = []
        self.given = 0
        self.load_s = 0.0
        self.began_at_bar = 0
        self.ended_at_bar = 0
        self.phase = Phase.BEFORE
        self.scores_at_end = 0
        self._fault = fault
        self._placement = placement
        self._config = config
        self._for_bars = placement.for_bars or (fault.lasts_bars if fault is not None else 0)
        self._bar = 0
        self._good_in_a_row = 0
        self._driven = False
        self._last_bar_at = 0.0
        self._client_made_at = 0.0
        self._pending: list[tuple[BarInput, bool]] = []
        self._parts: Parts | None = None
        self._stage: Stage | None = None
        self._control = Control()
        self._start_failures: list[str] = []
        self._kept: dict[str, object] = {"start_failures": self._start_failures}
        self._cleanup = ExitStack()
        self._cleanup.callback(self._control.close)

    @property
    def stage(self) -> Stage:
        """The run's parts as the fault sees them; once they are built."""
        assert self._stage is not None
        return self._stage

    def checkpoint(self, name: str) -> Checkpoint:
        """A private copy where the fault is to harm it."""
        found = find_checkpoint(name)
        if self._fault is None or "checkpoint" not in self._fault.needs:
            return found
        directory = Path(self._cleanup.enter_context(scratch_directory()))
        weights = directory / found.weights.name
        shutil.copyfile(found.weights, weights)
        self._kept["checkpoint"] = weights
        return dataclasses.replace(found, weights=weights)

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """A client of real processes whose answers can be spoilt."""
        self._client_made_at = time.perf_counter()
        return ModelClient(checkpoint, serving, launch=self._launch)

    def built(self, parts: Parts) -> None:
        """Set the stage. The model has been loaded and checked by now."""
        self.load_s = time.perf_counter() - self._client_made_at
        self._parts = parts
        self._stage = Stage(
            detector=parts.detector,
            client=parts.client,
            control=self._control,
            rng=np.random.default_rng(self._config.seed),
            bar_seconds=market_of(self._config.bars, self._config.seed).size.seconds,
            kept=self._kept,
        )

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """Begin, go on with or end the fault; then what it makes of the bar."""
        self._bar += 1
        if self.phase is Phase.RECOVERED and not self._config.baseline:
            return ()  # what was to be seen has been seen
        self._move_on()
        self._keep_pace()
        found = self.stage.distort(bar)
        self.given += len(found)
        self._pending = [(each, each is not bar) for each in found]
        return found

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        """Write down the answer, and pass on what the strategy is to hear."""
        state = self.stage.detector.state
        bar, bad = self._pending.pop(0)
        told = self.stage.heard(answer)
        footing = Footing(state.window.usable_bars, state.calibrator.scores, len(state.history) - 1)
        total_ms = self.stage.detector.last_timing.total_ms
        self.answers.append(
            Answered(self._bar, self.phase, bar, bad, answer, footing, total_ms, spoilt=told is not answer)
        )
        full = isinstance(answer, Signal) and answer.level is Level.FULL
        self._good_in_a_row = self._good_in_a_row + 1 if full else 0
        if self.phase is Phase.AFTER and self._good_in_a_row >= STEADY_BARS and self._has_left():
            self.phase = Phase.RECOVERED
        return told

    def witnessed(self) -> Witnessed:
        """What was seen, once the run is over."""
        proof = self._fault.proof(self.stage) if self._fault is not None and self._fault.proof is not None else ""
        return Witnessed(
            answers=self.answers,
            given=self.given,
            load_s=self.load_s,
            began_at_bar=self.began_at_bar,
            ended_at_bar=self.ended_at_bar,
            scores_at_end=self.scores_at_end,
            proof=proof if self.began_at_bar else "",
        )

    def close(self) -> None:
        """Set right what may still be wrong, and give everything back."""
        if self.phase is Phase.DURING and self._fault is not None:
            self._fault.end(self.stage)
        self._cleanup.close()

    def _launch(self, checkpoint: Checkpoint, config: ServingConfig) -> ModelProcess:
        return _OverheardProcess(self._start_failures, self._control, checkpoint, config)

    def _move_on(self) -> None:
        fault, stage = self._fault, self.stage
        if self.phase is Phase.BEFORE:
            if self._placed() and fault is not None:
                self.phase, self.began_at_bar = Phase.DURING, self._bar
                fault.begin(stage)
        elif self.phase is Phase.DURING and fault is not None:
            if self._bar - self.began_at_bar < self._for_bars:
                if fault.each is not None:
                    fault.each(stage)
            else:
                fault.end(stage)
                self.phase, self.ended_at_bar, self._good_in_a_row = Phase.AFTER, self._bar, 0
                self.scores_at_end = stage.detector.state.calibrator.scores

    def _placed(self) -> bool:
        """Whether the coming bar is the place."""
        assert self._parts is not None
        config, settled = self.stage.detector.config, self._good_in_a_row >= SETTLED_BARS
        position = self._parts.ledger.position
        match self._placement.place:
            case Place.AT_BAR:
                return self._bar == self._placement.at_bar
            case Place.WARM_UP:
                # The model has been asked for a while; level SMART could not answer yet.
                return self._bar == (config.model_min_bars + config.smart_min_bars) // 2
            case Place.FLAT:
                return settled and position == 0.0
            case Place.POSITION:
                return settled and position != 0.0
            case Place.HALF_OPEN:
                return self._half_open(settled=settled)
            case Place.WHOLE_RUN:
                return self._bar == 1

    def _half_open(self, *, settled: bool) -> bool:
        """Drive the breaker open by a failing model, heal the model, and wait for the first good probe."""
        breaker = self.stage.detector.state.breaker
        if not self._driven:
            if settled:
                self._control.set(Misbehaviour.RAISE)
            if breaker.state is BreakerState.OPEN:
                self._control.set(Misbehaviour.NONE)
                self._driven = True
        return self._driven and breaker.state is BreakerState.HALF_OPEN

    def _has_left(self) -> bool:
        """False while strange bars are still in the window: until then their like is to be expected."""
        strange = self._fault is not None and self._fault.strange_bars
        return not strange or self._bar - self.ended_at_bar >= self.stage.detector.config.context_bars

    def _keep_pace(self) -> None:
        if self.phase in {Phase.DURING, Phase.AFTER}:
            left_s = self._last_bar_at + self._config.pace_ms / 1e3 - time.perf_counter()
            if left_s > 0:
                time.sleep(left_s)
        self._last_bar_at = time.perf_counter()


def provoke(fault: Fault | None, placement: Placement, config: InjectConfig) -> tuple[BacktestRun, FaultRig]:
    """Run the market with the fault at its place.

    Raises
    ------
    ModelUnavailable
        If there is no model to begin with.
    """
    rig = FaultRig(fault, placement, config)
    try:
        run = run_backtest(run_config(config, fault), rig=rig, market=market_of(config.bars, config.seed))
    finally:
        rig.close()
    return run, rig


def run_case(fault: Fault, placement: Placement, config: InjectConfig) -> CaseResult:
    """Provoke a fault and judge what was seen.

    Where the machine itself was too slow for the deadline and the verdict is a failure, the case is tried once more:
    the second verdict stands.

    Raises
    ------
    OptionError
        If place or length make no sense.
    ModelUnavailable
        If there is no model to begin with.
    """
    check(config, placement, fault)
    result = _once(fault, placement, config)
    if result.verdict is Verdict.FAILED and result.stray_timeouts:
        result = _once(fault, placement, config)
        result.attempts = 2
    return result


def _once(fault: Fault, placement: Placement, config: InjectConfig) -> CaseResult:
    started = time.perf_counter()
    try:
        run, rig = provoke(fault, placement, config)
    except BacktestFailed as error:
        return CaseResult(fault.name, fault.failure, str(placement), expected(fault.failure), why=str(error))
    result = judge(fault, placement, config, run, rig.witnessed())
    if config.baseline:
        result.equity, result.baseline_equity = last_equity(run), baseline_equity(placement, config)
    result.seconds = time.perf_counter() - started
    return result


def baseline_equity(placement: Placement, config: InjectConfig) -> float:
    """The last equity of the same run without the fault. A breaker that is driven open for a place is so here too."""
    bare = placement if placement.place is Place.HALF_OPEN else Placement(Place.AT_BAR, config.bars)
    return _equity_without_fault(bare, config)


@functools.lru_cache(maxsize=8)
def _equity_without_fault(placement: Placement, config: InjectConfig) -> float:
    return last_equity(provoke(None, placement, config)[0])


def last_equity(run: BacktestRun) -> float:
    """Cash and position at the last close."""
    return run.ledger.equity(float(run.market.bars.close[-1]))
