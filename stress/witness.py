"""A rig that plays a schedule of faults in a run, and writes down what it sees of every bar."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.market import Market
from regime.calibration import Intervals
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineChoice, EngineSpec
from regime.serving.breaker import BreakerState
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import BarRejected, Reason, Signal
from regime.window import BarInput
from sage.ledger import BookEntry
from sage.rig import Parts, Rig
from sage.strategy import SentOrder
from stress.misbehaviour import Control
from stress.schedule import Planted, Schedule
from stress.simulated import Heard, Machine
from stress.stage import Fault, Stage


@dataclass
class Seen:
    """One bar as the detector got it, and what became of it.

    ``number`` is that of the market's bar, from 1: a fault may make none or several of one. ``took_s`` is the time
    from bar in to answer out. ``asked`` is what reached a process in that time, as sequence numbers and digests of
    contexts; ``received`` is what came back. ``breaker``, ``times_opened``, ``scores``, ``proposed`` (the
    calibrated intervals, None where it did not come to any), ``usable_bars``, ``restart`` and ``unhealthy`` are the
    detector's state afterwards. ``faults`` were active at it, or at bars before it of which a fault left nothing.
    ``book`` and ``orders`` are what the strategy made of the answer.
    """

    number: int
    bar: BarInput
    answer: Signal | BarRejected
    heard: Signal | BarRejected
    took_s: float
    asked: list[tuple[int, int]]
    received: list[Heard]
    breaker: BreakerState
    times_opened: int
    scores: int
    proposed: Intervals | None
    usable_bars: int
    restart: Reason | None
    faults: tuple[str, ...]
    unhealthy: bool = False
    book: list[BookEntry] = field(default_factory=list)
    orders: list[SentOrder] = field(default_factory=list)


class ScheduledRig(Rig):
    """Plays a schedule through a :class:`~stress.stage.Stage`, and is the witness of the run.

    Parameters
    ----------
    schedule
        What is to go wrong, and when.
    faults
        By name.
    market
        What the run goes over.
    """

    def __init__(self, schedule: Schedule, faults: Mapping[str, Fault], market: Market) -> None:
        self.schedule = schedule
        self.market = market
        self.seen: list[Seen] = []
        self.given: list[BarInput] = []
        self.active: list[Planted] = []
        self.parts: Parts | None = None
        self._faults = faults
        self._stages: dict[Planted, Stage] = {}
        self._unanswered: set[str] = set()
        self._number = 0
        self._began_s = 0.0
        self._counted = 0, 0
        self._books = 0, 0
        # The strategy's own lists: it is emptied at the end of a run, before the last bar's books are closed.
        self._book: list[BookEntry] = []
        self._sent_orders: list[SentOrder] = []

    def control(self) -> Control:
        """What makes the model misbehave."""
        raise NotImplementedError

    def clock_s(self) -> float:
        """The time, without an effect on it."""
        return self.stopwatch()

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a model process."""
        raise NotImplementedError

    def between_bars(self) -> None:
        """Let the time between two bars pass."""

    def talk(self) -> tuple[list[tuple[int, int]], list[Heard]]:
        """All that was asked and heard so far, where it can be known."""
        return [], []

    def built(self, parts: Parts) -> None:
        """Set the stage."""
        self.parts = parts
        self._book, self._sent_orders = parts.strategy.book, parts.strategy.sent_orders
        stage = Stage(
            parts.detector,
            parts.client,
            self.control(),
            np.random.default_rng(self.schedule.seed),
            self.market.size.seconds,
            kill=self.kill,
        )
        for planted in self.schedule.planted:
            # A source of chance for each: leaving one fault out changes nothing about the others.
            rng = np.random.default_rng([self.schedule.seed, 2, zlib.crc32(planted.name.encode()), planted.at])
            self._stages[planted] = dataclasses.replace(stage, rng=rng, kept={})
        self._stage = stage

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """Begin and end what is due, and hand out the bar as the faults leave it."""
        self._close_books()
        self._number += 1
        if self._number > 1:
            self.between_bars()
        for planted in [planted for planted in self.active if planted.end == self._number]:
            self._faults[planted.name].end(self._stages[planted])
            self.active.remove(planted)
        for planted in self.schedule.planted:
            if planted.at == self._number:
                self._faults[planted.name].begin(self._stages[planted])
                self.active.append(planted)
        for planted in self.active:
            each = self._faults[planted.name].each
            if each is not None:
                each(self._stages[planted])
        if self.seen and self.seen[-1].number == self._number - 1:
            self._unanswered.clear()
        self._unanswered |= {planted.name for planted in self.active}
        found = self._stage.distort(bar)
        self.given += found
        self._coming = iter(found)
        self._began_s = self.clock_s()
        asked, received = self.talk()
        self._counted = len(asked), len(received)
        return found

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        """Write down what was seen of a bar."""
        assert self.parts is not None
        took_s = self.clock_s() - self._began_s
        self._close_books()
        asked, received = self.talk()
        state = self.parts.detector.state
        said = self._stage.heard(answer)
        self.seen.append(
            Seen(
                number=self._number,
                bar=next(self._coming),
                answer=answer,
                heard=said,
                took_s=took_s,
                asked=asked[self._counted[0] :],
                received=received[self._counted[1] :],
                breaker=state.breaker.state,
                times_opened=state.breaker.times_opened,
                scores=state.calibrator.scores,
                proposed=state.calibrator.proposed,
                usable_bars=state.window.usable_bars,
                restart=state.window.restart,
                faults=tuple(sorted(self._unanswered)),
                unhealthy=state.health.unhealthy,
            )
        )
        self._counted = len(asked), len(received)
        self._began_s = self.clock_s()
        return said

    def finish(self) -> None:
        """Take in what came of the last bar."""
        self._close_books()

    def _close_books(self) -> None:
        """Give what the strategy did since the last answer to that answer."""
        books, orders = self._books
        if self.seen:
            self.seen[-1].book += self._book[books:]
            self.seen[-1].orders += self._sent_orders[orders:]
        self._books = len(self._book), len(self._sent_orders)


class ChaosRig(ScheduledRig):
    """A run on a simulated machine.

    ``gap_s`` passes between two bars. Where it is ``watched``, the client looks after its process once in between, as
    its watcher does on a real one; else whoever asks next has to find out.
    """

    def __init__(
        self,
        schedule: Schedule,
        faults: Mapping[str, Fault],
        market: Market,
        machine: Machine,
        gap_s: float,
        *,
        watched: bool = False,
    ) -> None:
        super().__init__(schedule, faults, market)
        self.machine = machine
        self._gap_s = gap_s
        self._watched = watched

    def stopwatch(self) -> float:
        """Simulated seconds."""
        return self.machine.time.now()

    def clock_s(self) -> float:
        """Simulated seconds, without the work of a look."""
        return self.machine.time.s

    def checkpoint(self, name: str) -> Checkpoint:  # noqa: ARG002 (a Rig's method)
        """A checkpoint without weights: nothing here loads any."""
        return SIMULATED_CHECKPOINT

    def engine(self, spec: EngineSpec) -> EngineChoice:  # noqa: ARG002 (a Rig's method)
        """The simulated model's."""
        return EngineChoice("native", "simulated-1")

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """The real client, on simulated time, with simulated processes."""
        return ModelClient(checkpoint, serving, self.stopwatch, self.machine.launch)

    def control(self) -> Control:
        """The simulated model's."""
        return self.machine.control

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a simulated process."""
        self.machine.kill(pid, number)

    def between_bars(self) -> None:
        """Let simulated time pass."""
        self.machine.time.advance(self._gap_s / 2)
        if self._watched and self.parts is not None and self.parts.client is not None:
            self.parts.client.tend()
        self.machine.time.advance(self._gap_s / 2)

    def talk(self) -> tuple[list[tuple[int, int]], list[Heard]]:
        """What reached the simulated processes, and what they said."""
        return self.machine.asked, self.machine.heard


SIMULATED_CHECKPOINT = Checkpoint("simulated", Path("simulated"), "51" * 32, None)
