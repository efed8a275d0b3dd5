"""Chaos: random schedules of several faults over a backtest on a simulated machine, judged bar by bar.

NT's engine, the actor, the detector, the model's client, the breaker and the strategy are the real ones. Time and the
model process are simulated, so that a schedule of faults takes a tenth of a second and comes out the same each time.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from data.bars import Bars
from data.market import Market, synthetic_market
from data.synthetic import SyntheticConfig
from regime.config import BreakerConfig, CalibrationConfig, ClassifierConfig, HealthConfig, RegimeConfig
from regime.forecast import WIDTH_RATIO_MAX
from regime.serving.config import ServingConfig
from sage.backtest import run_backtest
from sage.config import BacktestConfig, DataConfig, ModelConfig
from sage.results import determinism_hash_of
from sage.run import BacktestRun
from sage.sizing import SizingConfig
from stress.expectations import Damage, recovery_bound_bars
from stress.faults import FAULTS
from stress.invariants import Evidence, Violation, same_before_cut, violations
from stress.machine_faults import SLOW_LOAD, machine_faults
from stress.schedule import Schedule
from stress.simulated import Machine, Pace
from stress.stage import Failure, Fault
from stress.witness import ChaosRig

BARS = 320
FAULTS_UNTIL = 180
"""All faults end before this bar, so that level 0 has the time to return."""

MARKETS = 8
"""Schedules take turns on so many simulated markets."""

LONGEST_BARS = 40
GAP_S = 1.0
"""Simulated time from one bar to the next."""

_COST_PROCESSES = {
    Failure.NO_USABLE_ANSWER,
    Failure.CHECKPOINT_UNUSABLE,
    Failure.INDICATORS_FAIL,
    Failure.NO_HISTORY,
}

RigType = Callable[..., ChaosRig]


def chaos_config() -> BacktestConfig:
    """A run whose lengths let it recover several times over within a schedule; all else is as always."""
    regime = RegimeConfig(
        context_bars=64,
        horizon_bars=4,
        model_min_bars=16,
        smart_min_bars=24,
        max_gap_bars=6,
        history_regimes=20,
        deadline_ms=50.0,
        hang_limit_s=4.0,
        calibration=CalibrationConfig(window_scores=100, min_scores=20),
        classifier=ClassifierConfig(trend_span_bars=24, reference_bars=200),
        # Faults are too short to tell a model's worth from, and what is unhealthy would hide what else is judged.
        health=HealthConfig(recent_bars=1000),
        breaker=BreakerConfig(window_calls=8, minimum_calls=4, open_bars=8, probes=2),
    )
    return BacktestConfig(
        data=DataConfig(synthetic=SyntheticConfig(bars=BARS, drift=0.3, mean_direction_bars=40.0)),
        model=ModelConfig(online=True, store=False),
        serving=ServingConfig(start_timeout_s=10.0, silence_limit_s=3.0, back_off_s=1.0, back_off_max_s=8.0),
        regime=regime,
        # A target beyond every cap, and next to no other limit, so that it is the caps that bind.
        sizing=SizingConfig(
            target_volatility=12.0,
            conviction_gain=8.0,
            allow_short=True,
            emergency_flatten_bars=5,
            degrade_hold_bars=3,
            full_size_uncertainty=0.99,
        ),
    )


def usable_faults() -> dict[str, Fault]:
    """Faults that need nothing but a stage, by name."""
    return {name: fault for name, fault in FAULTS.items() if not fault.needs}


def known_faults() -> dict[str, Fault]:
    """All faults that schedules are made of, by name; those of the machine act on one that nobody runs on."""
    machine = Machine(Pace(), 0)
    machine.close()
    return usable_faults() | machine_faults(machine)


def fault_lengths() -> dict[str, int]:
    """The longest that each of them may last, in bars."""
    return {name: min(2 * fault.lasts_bars, LONGEST_BARS) for name, fault in known_faults().items()}


@dataclass(frozen=True)
class Played:
    """One run of a schedule: what it left, and what was seen of it."""

    schedule: Schedule
    evidence: Evidence
    run: BacktestRun | None


@dataclass
class Verdict:
    """How a schedule came out. ``run_hash`` is empty unless it was asked for."""

    schedule: Schedule
    bars: int = 0
    levels: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    breaker_openings: int = 0
    violations: list[Violation] = field(default_factory=list)
    run_hash: str = ""


@lru_cache(maxsize=MARKETS)
def _market(number: int) -> Market:
    return synthetic_market(dataclasses.replace(chaos_config().data.synthetic, seed=number))


def market_of_seed(seed: int, bars: int = BARS) -> Market:
    """The first ``bars`` bars of the market of a schedule's seed."""
    market = _market(seed % MARKETS)
    if bars == len(market.bars):
        return market
    early = Bars(*(column[:bars] for column in market.bars.columns()))  # type: ignore[arg-type]
    return dataclasses.replace(market, bars=early, nautilus_bars=market.nautilus_bars[:bars], labels=None)


def play(schedule: Schedule, rig_type: RigType = ChaosRig, bars: int = BARS) -> Played:
    """Run a schedule over the first ``bars`` bars of its market."""
    config = chaos_config()
    market = market_of_seed(schedule.seed, bars)
    machine = Machine(Pace(), schedule.seed)
    faults = usable_faults() | machine_faults(machine)
    rig = rig_type(schedule, faults, market, machine, GAP_S, watched=is_watched(schedule))
    run, error = None, ""
    try:
        run = run_backtest(config, rig=rig, market=market)
        rig.finish()
    except Exception as caught:  # whatever ends a run early is what is looked for
        error = f"{type(caught).__name__}: {caught}"
    finally:
        machine.close()
    evidence = Evidence(
        config=run.config if run is not None else config,
        bar_seconds=market.size.seconds,
        market_bars=len(market.bars),
        run=run,
        seen=rig.seen,
        given_bars=len(rig.given),
        faults=faults,
        faults_end=schedule.end,
        back_by=recovery_bar(schedule, faults, config),
        orphans=sum(not process.ended for process in machine.processes),
        error=error,
    )
    return Played(schedule, evidence, run)


def is_watched(schedule: Schedule) -> bool:
    """Whether somebody looks after the model process between bars: in every other schedule."""
    return schedule.seed % 2 == 1


def recovery_bar(schedule: Schedule, faults: Mapping[str, Fault], config: BacktestConfig) -> int:
    """The bar by which level 0 must be back, whatever of the schedule's faults came together.

    The bound of one fault is that of :func:`~stress.expectations.recovery_bound_bars`. Of several, these wait for each
    other: rejected bars move nothing out of a window; and where nobody watches the process, one that died while the
    window was too short is missed only when the model is asked again.
    """
    regime = config.regime
    planted = [faults[one.name] for one in schedule.planted]
    slow = SLOW_LOAD if "machine.slow_load" in {one.name for one in schedule.planted} else 1.0

    def bound(damage: Damage) -> int:
        return recovery_bound_bars(damage, regime, config.serving, GAP_S, 1.5 * slow * Pace().load_s)

    # Bad bars of several faults may come in a row, and begin the window anew.
    lost_window = any(fault.window_lost or fault.failure is Failure.BAR_REJECTED for fault in planted)
    lost_process = any(fault.failure in _COST_PROCESSES for fault in planted)
    window = bound(Damage(window=True)) if lost_window else 0
    process = bound(Damage(process=True)) if lost_process else 0
    strange = 0
    if any(fault.strange_bars for fault in planted):
        strange = max(bound(Damage(strange_bars=True)), fading_bars(config)) + window
    lost_scores = any(fault.calibration_lost for fault in planted)
    warm_up_bars = regime.model_min_bars + regime.horizon_bars + regime.calibration.min_scores
    young = any(one.at <= warm_up_bars for one in schedule.planted)
    scores = regime.calibration.min_scores + regime.horizon_bars if lost_scores or young else 0
    breaker = bound(Damage())
    if is_watched(schedule):
        together = max(window, process, breaker)
    else:
        # A probe finds the process dead, a second one starts it, a third one is answered.
        together = max(window + process + breaker if process else window, breaker)
    return max(schedule.end + max(together, strange) + scores, warm_up_bars)


def fading_bars(config: BacktestConfig) -> int:
    """Bars until a tenfold move there and back has faded from the realised volatility, by which widths are judged.

    That volatility is exponentially weighted and does not begin anew with the window. A forecast that has forgotten
    the move is absurdly narrow beside it until they are within ``WIDTH_RATIO_MAX`` of each other again.
    """
    decay, calm = config.regime.classifier.volatility_decay, config.data.synthetic.volatility_low / 2
    shock = math.log(10.0) * math.sqrt(2 * (1.0 - decay))
    return math.ceil(2.0 * math.log(shock / (WIDTH_RATIO_MAX * calm)) / -math.log(decay))


def judge(schedule: Schedule, rig_type: RigType = ChaosRig, *, again: bool = False) -> Verdict:
    """Run a schedule and hold every invariant against it; ``again`` adds those that take further runs (2 and 7)."""
    played = play(schedule, rig_type)
    verdict = Verdict(schedule, len(played.evidence.seen), violations=violations(played.evidence))
    if played.run is None:
        return verdict
    verdict.levels.update(signal.level.name for signal in played.run.signals)
    verdict.restarts, verdict.breaker_openings = played.run.model_restarts, played.evidence.seen[-1].times_opened
    if again:
        verdict.run_hash = determinism_hash_of(played.run)
        cut = int(np.random.default_rng([schedule.seed, 3]).integers(2, BARS))
        part = play(schedule, rig_type, cut).run
        if part is None:
            verdict.violations.append(Violation(2, cut, "the run fails where the market ends at this bar"))
        else:
            verdict.violations += same_before_cut(played.run, part)
        if run_hash(schedule, rig_type) != verdict.run_hash:
            verdict.violations.append(Violation(7, 0, "a second run of the same schedule has another hash"))
    return verdict


def run_hash(schedule: Schedule, rig_type: RigType = ChaosRig) -> str:
    """The determinism hash of a schedule's run; empty where the run fails."""
    run = play(schedule, rig_type).run
    return determinism_hash_of(run) if run is not None else ""
