"""The trading side of a soak, in a process of its own: model, detector, strategy and engine, segment by segment."""

from __future__ import annotations

import dataclasses
import os
import pickle
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache

from data.market import Market
from regime.detector import Detector, DetectorState
from regime.model.checkpoint import Checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Level, Signal
from regime.window import BarInput
from sage.assembly import ensemble_of
from sage.backtest import for_market
from sage.collector import VitalsCollector
from sage.engine import trade
from sage.ensemble import Ensemble
from sage.ledger import Ledger
from sage.model import WATCH_S, RunModel
from sage.plugins import build_alphas, load_plugin, load_strategy
from sage.progress import Silent
from sage.rig import Rig
from sage.run import BacktestRun
from sage.votes import drop_notes
from stress.chaos import LONGEST_BARS, usable_faults
from stress.invariants import Evidence, Memory, violations
from stress.misbehaviour import Control
from stress.overheard import OverheardChild, Talk
from stress.schedule import Schedule
from stress.simulated import Heard
from stress.soak.config import SoakConfig
from stress.soak.heap import settle
from stress.soak.market import EndlessMarket
from stress.soak.messages import OrderSent, Played, Ready
from stress.soak.plants import Plant, Planter
from stress.soak.sampling import Sampling, Tell
from stress.soak.schedules import segment_schedule
from stress.soak.yardstick import Yardstick
from stress.stage import Fault
from stress.witness import ScheduledRig, Seen

RECOVERY_S = 120.0
"""Level 0 must be back in this time, and what bars take to fill a window at the given rate."""


class TradingSide:
    """All that outlives a segment: the model and its process, the detector, the ensemble, and who judges them.

    Use as a context manager; leaving it ends the model process.

    Parameters
    ----------
    config
        The soak's.
    market
        Where its bars come from.
    generation
        How many trading processes there were before this one.
    tell
        Hears of samples and of how the run is doing.
    plants
        Leaks on purpose.
    bare
        Neither samples nor vitals: what they cost is measured beside this.
    judged
        With the witness, and all invariants looked at.

    Raises
    ------
    OptionError, UserCodeRaised
        If classes of the user's own are none, or raise.
    ModelUnavailable
        If there is no model.
    """

    def __init__(
        self,
        config: SoakConfig,
        market: EndlessMarket,
        generation: int,
        tell: Tell,
        plants: tuple[Plant, ...] = (),
        *,
        bare: bool = False,
        judged: bool = True,
    ) -> None:
        self._config = config
        self._market = market
        self._generation = generation
        self.talk = Talk()
        self.control = Control()
        self._faults = usable_faults()
        self._sound_at = time.monotonic()
        first = market.segment(0)
        backtest = config.backtest
        self._backtest = dataclasses.replace(backtest, regime=for_market(backtest.regime, first))
        own = backtest.own
        self._own_strategy = load_strategy(own.strategy) if own.strategy is not None else None
        self._alphas = [load_plugin("--alpha", spec) for spec in own.alphas]
        self._witnessed = config.is_witnessed and judged
        with ExitStack() as stack:
            stack.callback(self.control.close)
            self._model = RunModel.open(self._backtest, _SoakParts(self.control, self.talk), stack)
            self._model.start(first.bars, Silent())
            self._stack = stack.pop_all()
        self._client = self._model.client
        regime, seconds = self._backtest.regime, first.size.seconds
        self._detector = Detector(regime, str(first.instrument.id), seconds, self._client)
        self._memory = Memory(regime, seconds, self._faults)
        self._ensemble: Ensemble | None = None
        self._planter = Planter(plants, self.control, time.monotonic) if plants else None
        self._pace = Pace(config.rate, time.monotonic)
        self._bare = bare
        self._sampling = Sampling("trading", generation, market.segment_bars, tell, Yardstick())
        self._collector = None if bare else VitalsCollector(target_ms=regime.deadline_ms, tell=tell)

    def __enter__(self) -> TradingSide:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def introduction(self) -> Ready:
        """Who is here."""
        checkpoint = self._client.checkpoint
        model = {"name": checkpoint.name, "sha256": checkpoint.sha256, "engine": self._model.engine_name}
        return Ready(os.getpid(), model, tuple(self._model.notes))

    def snapshot(self) -> bytes:
        """What another process needs to go on from here, pickled."""
        return pickle.dumps((self._detector.snapshot(), self._memory.remembered()))

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot."""
        detector, remembered = pickle.loads(state)
        assert isinstance(detector, DetectorState)
        self._detector.restore(detector)
        self._memory.recall(remembered)

    def play(self, segment: int, *, sampled: bool = True) -> Played:
        """Run one segment, and judge it; sample memory in it if it is to be sampled."""
        self._sampling.begin(wanted=sampled and not self._bare)
        self._pace.begin()
        began = time.monotonic()
        market = self._market.segment(segment)
        schedule = self._schedule(segment)
        self.talk.clear()
        run = self._run(market)
        if self._witnessed:
            rig: SegmentRig | PlainRig = SegmentRig(self, schedule, self._faults, market, segment)
        else:
            rig = PlainRig(self, segment)
        trade(run, self._detector, self._client, Silent(), rig, self._own_strategy, self._collector)
        self._sampling.end(len(market.bars))
        found = self._judge(run, rig)
        if run.stopped is not None:
            raise run.stopped
        orders = tuple(OrderSent(order.ts_ns, order.quantity, order.reduce_only) for order in run.sent_orders)
        played = Played(
            generation=self._generation,
            segment=segment,
            bars=len(market.bars),
            answers=len(run.signals) + len(run.rejections),
            orders=orders,
            violations=found,
            faults=str(schedule),
            seconds=time.monotonic() - began,
            notes=tuple(drop_notes(self._ensemble)) if self._ensemble is not None else (),
            median_ms=statistics.median(timing.total_ms for timing in run.timings) if run.timings else None,
        )
        if self._ensemble is not None:
            self._ensemble.polls.clear()
        del run, rig
        settle()
        return played

    def before_bar(self, segment: int, number: int) -> None:
        """What happens between two bars."""
        if self._planter is not None:
            self._planter.between_bars()
        self._sampling.before_bar(segment, number)
        late_s = self._pace.wait()
        if self._collector is not None:
            self._collector.due(late_s, self._pace.queue_bars)

    def _schedule(self, segment: int) -> Schedule:
        return segment_schedule(
            self._config.faults, self._config.seed, segment, self._market.segment_bars, soak_fault_lengths()
        )

    def _run(self, market: Market) -> BacktestRun:
        config = self._backtest
        run = BacktestRun(config, market, self._client.checkpoint, "", self._model.engine_name)
        run.allow_short = market.kind.can_short if config.sizing.allow_short is None else config.sizing.allow_short
        run.ledger = Ledger(config.cash, run.cost_rates.carry)
        if self._own_strategy is None:
            if self._ensemble is None:
                own = build_alphas(self._alphas, market)
                self._ensemble = ensemble_of(config, market, run.cost_rates.trade_rate, time.perf_counter, own)
            run.ensemble = self._ensemble
        return run

    def _judge(self, run: BacktestRun, rig: SegmentRig | PlainRig) -> tuple[str, ...]:
        """What was violated in a segment: all invariants, or with a user's strategy that each bar has an answer."""
        bars = len(run.market.bars)
        if isinstance(rig, PlainRig):
            answers = len(run.signals) + len(run.rejections)
            return () if answers == bars else (f"{bars} bars, and {answers} answers",)
        rig.finish()
        evidence = Evidence(
            config=run.config,
            bar_seconds=run.market.size.seconds,
            market_bars=bars,
            run=run,
            seen=rig.seen,
            given_bars=len(rig.given),
            faults=self._faults,
            faults_end=rig.schedule.end,
            # By which bar a process is back depends on how fast bars come; how long it takes does not, see below.
            back_by=bars + 1,
            simulated_time=False,
        )
        return (*map(str, violations(evidence, self._memory)), *self._level_0_returns(rig.seen))

    def _level_0_returns(self, seen: Sequence[Seen]) -> Iterator[str]:
        """Invariant 6 by the clock: level 0 is away no longer than it takes to start a process and fill a window."""
        now = time.monotonic()
        for one in seen:
            signal = one.answer
            if isinstance(signal, Signal) and (signal.level is Level.FULL or signal.is_warm_up or one.unhealthy):
                self._sound_at = now
        bars_s = self._backtest.regime.context_bars / self._config.rate if self._config.rate else 0.0
        if now - self._sound_at > RECOVERY_S + bars_s:
            yield f"invariant 6: level 0 has not come back for {now - self._sound_at:.0f} s"


class SegmentRig(ScheduledRig):
    """Stands between the parts of one segment: plays its faults, keeps the pace, samples, and is the witness."""

    def __init__(
        self, side: TradingSide, schedule: Schedule, faults: Mapping[str, Fault], market: Market, segment: int
    ) -> None:
        super().__init__(schedule, faults, market)
        self._side = side
        self._segment = segment

    def control(self) -> Control:
        """The model's."""
        return self._side.control

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a model process."""
        os.kill(pid, number)

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """Wait until a bar is due, and hand it out as the faults leave it."""
        self._side.before_bar(self._segment, self._number + 1)
        return super().bars(bar)

    def talk(self) -> tuple[list[tuple[int, int]], list[Heard]]:
        """What went through the pipes in this segment."""
        return self._side.talk.asked, self._side.talk.received


class PlainRig(Rig):
    """The same without faults and witness, for a strategy of the user's own, whose orders have no rules here."""

    def __init__(self, side: TradingSide, segment: int) -> None:
        self._side = side
        self._segment = segment
        self._number = 0

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """Wait until a bar is due."""
        self._number += 1
        self._side.before_bar(self._segment, self._number)
        return (bar,)


class _SoakParts(Rig):
    """The model's client, with real processes that misbehave on request and can be overheard."""

    def __init__(self, control: Control, talk: Talk) -> None:
        self._control = control
        self._talk = talk

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """The client, which looks after its process by itself: time passes between bars."""
        serving = dataclasses.replace(serving, watch_s=serving.watch_s or WATCH_S)
        return ModelClient(checkpoint, serving, self.stopwatch, self._launch)

    def _launch(self, checkpoint: Checkpoint, config: ServingConfig) -> OverheardChild:
        return OverheardChild(checkpoint, config, self._control, self._talk)


class Pace:
    """Keeps bars to a rate by the clock: those that fall due while one is answered wait, and count as late.

    None falls due between two segments: what goes by there, judging one and building the next one's engine, is the
    rig's time and no system's. ``queue_bars`` is how many were due and unanswered when the last one was begun.
    """

    def __init__(self, rate: float, stopwatch: Callable[[], float]) -> None:
        self._gap_s = 1.0 / rate if rate else 0.0
        self._stopwatch = stopwatch
        self._due: float | None = None
        self.queue_bars = 0

    def begin(self) -> None:
        """Let the next bar fall due when it is waited for: a segment begins."""
        self._due = None

    def wait(self) -> float:
        """Wait until the next bar is due; gives back how late it is already, in seconds."""
        if not self._gap_s:
            return 0.0
        now = self._stopwatch()
        self._due = now if self._due is None else self._due + self._gap_s
        if now < self._due:
            time.sleep(self._due - now)
            now = self._stopwatch()  # a machine that wakes one up late keeps the bar waiting, too
        late_s = max(0.0, now - self._due)
        self.queue_bars = int(late_s / self._gap_s)
        return late_s


@lru_cache(maxsize=1)
def soak_fault_lengths() -> dict[str, int]:
    """Faults that a soak may hold, and the longest that each may last, in bars."""
    return {name: min(2 * fault.lasts_bars, LONGEST_BARS) for name, fault in usable_faults().items()}
