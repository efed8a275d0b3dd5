"""Chaos once more with nothing simulated but the market: a real model process, real signals, real time.

The bars come at a steady pace, so that what dies can be started again within a schedule. All invariants are held
against the run but three: the deadline is not judged on the wall clock, and a run on it is not the same twice.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence

from data.errors import OptionError
from data.market import Market
from regime.errors import ModelUnavailable
from regime.model.checkpoint import EMBEDDED, Checkpoint, find_checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from sage.backtest import run_backtest
from sage.config import BacktestConfig, ModelConfig
from sage.progress import Progress, Silent
from stress.chaos import LONGEST_BARS, Verdict, chaos_config, market_of_seed, usable_faults
from stress.chaos_runs import SCHEDULES_MAX, ChaosReport
from stress.invariants import Evidence, violations
from stress.misbehaviour import Control
from stress.overheard import OverheardChild, Talk
from stress.schedule import Schedule, check_seed, random_schedule
from stress.simulated import Heard
from stress.stage import Fault
from stress.witness import ScheduledRig

BARS = 280
FAULTS_UNTIL = 110
PACE_S = 0.015


def real_config(model: str = EMBEDDED) -> BacktestConfig:
    """The lengths of simulated schedules, with patience to match a process that starts in less than a second."""
    config = chaos_config()
    return dataclasses.replace(
        config,
        model=ModelConfig(name=model, online=True, store=False),
        serving=ServingConfig(start_timeout_s=30.0, silence_limit_s=0.3, back_off_s=0.05, back_off_max_s=0.2),
        regime=dataclasses.replace(config.regime, hang_limit_s=0.5),
    )


class RealRig(ScheduledRig):
    """A run with a real model process."""

    def __init__(self, schedule: Schedule, faults: Mapping[str, Fault], market: Market) -> None:
        super().__init__(schedule, faults, market)
        self.processes: list[OverheardChild] = []
        self._control = Control()
        self._talk = Talk()
        self._next_at = 0.0

    def checkpoint(self, name: str) -> Checkpoint:
        """The real one."""
        return find_checkpoint(name)

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """The real client, with real processes that misbehave on request."""
        return ModelClient(checkpoint, serving, self.stopwatch, self._launch)

    def control(self) -> Control:
        """The real processes'."""
        return self._control

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a real process."""
        os.kill(pid, number)

    def between_bars(self) -> None:
        """Keep the pace."""
        now = time.perf_counter()
        if now < self._next_at:
            time.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + PACE_S

    def talk(self) -> tuple[list[tuple[int, int]], list[Heard]]:
        """What went through the pipes."""
        return self._talk.asked, self._talk.received

    def close(self) -> None:
        """Give the shared memory back."""
        self._control.close()

    def _launch(self, checkpoint: Checkpoint, config: ServingConfig) -> OverheardChild:
        process = OverheardChild(checkpoint, config, self._control, self._talk)
        self.processes.append(process)
        return process


def real_lengths() -> dict[str, int]:
    """Faults for real processes, and the longest that each may last, in bars."""
    return {name: min(2 * fault.lasts_bars, LONGEST_BARS) for name, fault in usable_faults().items()}


def judge_real(schedule: Schedule, model: str = EMBEDDED) -> Verdict:
    """Run a schedule against a real model process. Raises ModelUnavailable if there is none to begin with."""
    config, faults = real_config(model), usable_faults()
    market = market_of_seed(schedule.seed, BARS)
    rig = RealRig(schedule, faults, market)
    run, error = None, ""
    try:
        run = run_backtest(config, rig=rig, market=market)
        rig.finish()
    except ModelUnavailable:
        raise
    except Exception as caught:  # whatever ends a run early is what is looked for
        error = f"{type(caught).__name__}: {caught}"
    finally:
        rig.close()
    evidence = Evidence(
        config=run.config if run is not None else config,
        bar_seconds=market.size.seconds,
        market_bars=len(market.bars),
        run=run,
        seen=rig.seen,
        given_bars=len(rig.given),
        faults=faults,
        faults_end=schedule.end,
        back_by=len(market.bars),
        orphans=sum(process.alive() for process in rig.processes),
        simulated_time=False,
        error=error,
    )
    verdict = Verdict(schedule, len(rig.seen), violations=violations(evidence))
    if run is not None:
        verdict.levels.update(signal.level.name for signal in run.signals)
        verdict.restarts, verdict.breaker_openings = run.model_restarts, rig.seen[-1].times_opened
    return verdict


def check_count(count: int) -> None:
    """Refuse a number of runs that makes no sense. Raises OptionError."""
    if not 1 <= count <= SCHEDULES_MAX:
        raise OptionError(f"--real {count}: must be 1 to {SCHEDULES_MAX:,}")


def schedules_of(count: int, seed: int) -> list[Schedule]:
    """Random schedules for real processes. Raises OptionError if it makes no sense."""
    check_count(count)
    check_seed(seed)
    lengths = real_lengths()
    return [random_schedule(seed + number, lengths, FAULTS_UNTIL) for number in range(count)]


def run_real(schedules: Sequence[Schedule], progress: Progress | None = None, model: str = EMBEDDED) -> ChaosReport:
    """Run schedules against a real model process, one after the other.

    Raises
    ------
    ModelUnavailable
        If there is no model.
    """
    show, report, started = progress or Silent(), ChaosReport(), time.perf_counter()
    show.stage("real model process", len(schedules))
    for schedule in schedules:
        report.take(judge_real(schedule, model))
        show.advance(1, f"{report.violating} violating, {report.restarts} restarts")
    report.seconds = time.perf_counter() - started
    return report
