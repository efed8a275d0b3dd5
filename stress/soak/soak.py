"""The soak: hours of the real system, watched from outside.

A trading process plays segment after segment; a control process plays the same ones after it, with the same orders and
nothing of SAGE's; this process hands out the work, takes samples down, and judges at the end. It keeps to itself what
it knows, so that nothing that happens to a file or to a worker takes the record with it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from regime.alerts import Alert
from regime.errors import ModelUnavailable
from sage.processes import Machine, MachineSample
from sage.vitals import Vitals
from stress.load import busy_cores
from stress.soak.beside import by_turns, pairs_for
from stress.soak.config import SoakConfig
from stress.soak.journal import Journal
from stress.soak.messages import Begin, Failed, HandedOver, HandOver, Play, Played, Ready, Sampled
from stress.soak.notes import alert_values, machine_values, minute_values, process_values, total_values, with_earlier
from stress.soak.size import Size
from stress.soak.staff import START_PATIENCE_S, Worker, WorkerDied, await_ready, raise_if_failed
from stress.soak.worker import control_segments, trade_segments

CHECKPOINT_S = 60.0
SAMPLE_S = 5.0
"""How often the processes are looked at from here, whatever bars do."""

STALL_S = 30.0
"""A trading process that says nothing for so long has stalled; so does one that misses a hundred bars at its rate."""

SAMPLED_SEGMENTS = 1_000
MACHINES_NOTED = 2_000
"""A long soak has about so many sampled segments, and lines on the machine: days leave no larger journal than hours."""

GIVEN_UP_S = 300.0
DEATHS_MAX = 3


class Show(Protocol):
    """Who looks on while a soak goes on."""

    def stage(self, name: str, total: int) -> None:
        """Something begins that is no bar yet."""

    def go_on_from(self, before: Vitals) -> None:
        """It goes on with an earlier soak, which had come so far; told before anything else."""

    def update(self, vitals: Vitals) -> Sequence[Alert]:
        """How things are; gives back the alerts that came or went by it."""


@dataclass
class Progress:
    """How far the soak is: segments played, trading processes begun and dead, and what those came to that ended."""

    segments: int = 0
    generation: int = 0
    deaths: int = 0
    totals: list[dict[str, Any]] = field(default_factory=list)


class Soak:
    """One soak, from its first worker to its last.

    Parameters
    ----------
    config
        What to do.
    journal
        Where everything is written down.
    show
        Who looks on.
    checkpoint
        Called about once a minute, when the journal is on the disk.
    began_s
        Seconds that an earlier soak of the same journal had gone on for.
    progress
        How far that one was.
    after
        Called between two segments, with what became of the first.
    """

    def __init__(
        self,
        config: SoakConfig,
        journal: Journal,
        show: Show,
        checkpoint: Callable[[], None],
        began_s: float = 0.0,
        progress: Progress | None = None,
        after: Callable[[Played], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._show = show
        self._checkpoint = checkpoint
        self._after = after
        self._zero = time.monotonic() - began_s
        self._at = progress or Progress()
        self._inbox: queue.SimpleQueue[tuple[Worker, Any]] = queue.SimpleQueue()
        self._trading: Worker | None = None
        self._control: Worker | None = None
        self._waiting: list[Play] = []
        self._control_busy = False
        self._machine = Machine(self._roles, stopwatch=time.monotonic)
        self._newest: MachineSample | None = None
        self._vitals: Vitals | None = None
        self._totals: dict[str, Any] | None = None
        self._totals_noted: dict[str, Any] | None = None
        self._minutes = 0
        self._sampled_at = self._noted_at = self._checked_at = self._segment_sampled_at = -math.inf
        self._stalled = False
        self._segment_s = 0.0
        self._size = Size(config.recycle_mb)

    @property
    def now_s(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self._zero

    @property
    def has_begun(self) -> bool:
        """True once a trading process was ready, in this soak or in the one that it goes on with."""
        return self._at.generation > 0

    @property
    def has_played(self) -> bool:
        """True once a segment was played."""
        return self._at.segments > 0

    def run(self) -> None:
        """Go on until the hours are over or the bars are played.

        Raises
        ------
        OptionError, DataError, ModelUnavailable, UserCodeRaised
            As a worker tells, before the first bar or later.
        WorkerDied, WorkerFailed
            If the trading process dies again and again, or fails by SAGE's own fault.
        """
        if self.has_begun:
            self._show.go_on_from(self._as_a_whole(Vitals()))
        with busy_cores(self._config.background), self._staff():
            self._start(None)
            while not self._is_over():
                try:
                    trading = self._play_one()
                    why = self._size.too_large(self._newest, trading.pid)
                    if why and not self._is_over():
                        self._start(self._hand_over(trading, why))
                except WorkerDied as death:
                    self._mourn(death)
                    self._start(None)
            self._finish_control()
            self._compare()

    def _start(self, state: bytes | None) -> None:
        """Have workers, in the place of those before; some that die at once are mourned as any other."""
        while True:
            try:
                self._replace_workers(state)
            except WorkerDied as death:
                if not self.has_begun:
                    raise
                self._mourn(death)
            else:
                return

    def _mourn(self, death: WorkerDied) -> None:
        """Note the death of a trading process. Raises it again where there were too many."""
        self._at.deaths += 1
        self._journal.note("event", self.now_s, event="trading_died", detail=str(death), segment=self._at.segments)
        self._tell()
        if self._at.deaths > DEATHS_MAX:
            raise death

    def _is_over(self) -> bool:
        hours, segments = self._config.hours, self._config.segments
        if segments is not None:
            return self._at.segments >= segments
        return hours is not None and self.now_s >= hours * 3600.0

    def _play_one(self) -> Worker:
        """Let the next segment be played, and give back by whom. Raises WorkerDied where it ends that process."""
        trading = self._trading
        assert trading is not None
        trading.heard_at = time.monotonic()
        play = Play(self._at.segments, sampled=self._is_sampled())
        trading.tell(play)
        self._feed_control()
        played = self._until_played(trading)
        self._at.segments += 1
        self._segment_s = played.seconds
        self._journal.note(
            "segment",
            self.now_s,
            segment=played.segment,
            generation=played.generation,
            bars=played.bars,
            answers=played.answers,
            orders=len(played.orders),
            violations=list(played.violations),
            faults=played.faults,
            seconds=round(played.seconds, 3),
            **({"notes": list(played.notes)} if played.notes else {}),
        )
        # A worker's last words before it has played are its vitals as of then.
        self._totals = total_values(self._vitals) if self._vitals is not None else None
        if play.sampled:
            self._note_totals()
        if self._control is not None:
            self._waiting.append(dataclasses.replace(play, orders=played.orders))
        self._after(played)
        return trading

    def _is_sampled(self) -> bool:
        """Whether memory is to be sampled in the next segment: in each, unless there are a great many."""
        if self._config.segments is not None:
            return self._at.segments % math.ceil(self._config.segments / SAMPLED_SEGMENTS) == 0
        if self.now_s - self._segment_sampled_at < self._planned_s / SAMPLED_SEGMENTS:
            return False
        self._segment_sampled_at = self.now_s
        return True

    @property
    def _planned_s(self) -> float:
        """How long it is to be; where bars say so, how long it has been is the best there is."""
        return self.now_s if self._config.hours is None else 3600.0 * self._config.hours

    def _until_played(self, trading: Worker) -> Played:
        while True:
            message = self._next(trading)
            if isinstance(message, Played):
                return message

    def _next(self, wanted: Worker) -> object | None:
        """Attend to one message, or to nothing for a while; gives back what the wanted worker has said."""
        try:
            speaker, message = self._inbox.get(timeout=self._patience_s())
        except queue.Empty:
            speaker, message = None, None
        self._look_around()
        self._watch_for_stall(wanted)
        if speaker is None:
            return None
        if speaker is not wanted and speaker is not self._control:
            if speaker is self._trading:
                raise_if_failed(speaker, message)  # it may die while another one is waited for
            return None  # the last words of one that was replaced
        if speaker is self._control and (message is None or isinstance(message, Failed)):
            # What is ours cannot be told from NautilusTrader's from here on; the soak itself goes on.
            told = "the control process died" if message is None else f"the control process failed: {message.error}"
            self._lose_control(told)
            return None
        raise_if_failed(speaker, message)
        match message:
            case Sampled():
                self._take_down(speaker.role, message)
            case Vitals():
                self._follow(message)
            case Played() if speaker is self._control:
                self._control_busy = False
                self._feed_control()
                return None
        return message if speaker is wanted else None

    def _patience_s(self) -> float:
        return max(0.05, min(1.0, self._sampled_at + SAMPLE_S - time.monotonic()))

    def _stall_s(self) -> float:
        return max(STALL_S, 100.0 / self._config.rate if self._config.rate else 0.0)

    def _watch_for_stall(self, wanted: Worker) -> None:
        if wanted is not self._trading:
            return
        silent_s = time.monotonic() - wanted.heard_at
        stall_s = self._stall_s()
        if silent_s > stall_s and not self._stalled:
            self._stalled = True
            self._journal.note("event", self.now_s, event="stalled", detail=f"silent for {silent_s:.0f} s")
            self._tell()
        elif silent_s <= stall_s and self._stalled:
            self._stalled = False
            self._journal.note("event", self.now_s, event="going_on", detail="the trading process speaks again")
        if silent_s > stall_s + GIVEN_UP_S:
            wanted.kill()

    def _look_around(self) -> None:
        """Sample what is due from here, and write a checkpoint now and then."""
        now = time.monotonic()
        if now - self._sampled_at >= SAMPLE_S:
            self._sampled_at = now
            self._newest = self._machine.sample()
            if now - self._noted_at >= self._planned_s / MACHINES_NOTED:
                self._noted_at = now
                self._journal.note("machine", self.now_s, **machine_values(self._newest))
            # Those who look on hear of memory when the trading process says nothing, too: then above all.
            self._tell()
        if now - self._checked_at >= CHECKPOINT_S:
            self._checked_at = now
            self._note_totals()
            if self._journal.checkpoint():
                self._checkpoint()

    def _take_down(self, role: str, sampled: Sampled) -> None:
        self._journal.note(
            "sample",
            sampled.at_s - self._zero,
            side=role,
            generation=sampled.generation,
            segment=sampled.segment,
            phase=sampled.phase,
            bars=sampled.bars,
            processes=process_values(sampled.machine),
            **({} if sampled.yardstick_ms is None else {"yardstick_ms": round(sampled.yardstick_ms, 4)}),
        )

    def _follow(self, vitals: Vitals) -> None:
        """Hear how the trading process is doing."""
        if vitals.minutes != self._minutes:
            self._minutes = vitals.minutes
            self._journal.note("minute", self.now_s, generation=self._at.generation - 1, **minute_values(vitals))
        self._vitals = vitals
        self._tell()

    def _tell(self) -> None:
        """Tell who looks on how the whole soak is: a worker knows nothing of those before it."""
        if self._vitals is None:
            return
        whole = self._as_a_whole(self._vitals)
        for alert in self._show.update(whole):
            self._journal.note("alert", self.now_s, bars=whole.bars, **alert_values(alert))

    def _as_a_whole(self, vitals: Vitals) -> Vitals:
        """Vitals of the trading process with what those before it came to, and what is only known here."""
        hours, segments = self._config.hours, self._config.segments
        return dataclasses.replace(
            with_earlier(vitals, self._at.totals),
            elapsed_s=self.now_s,
            seconds_total=None if hours is None else 3600.0 * hours,
            bars_total=None if segments is None else segments * self._config.bars_a_segment,
            machine=self._newest,
            stalled=self._stalled,
            deaths=self._at.deaths,
        )

    def _feed_control(self) -> None:
        """The control follows, a segment at a time; it never keeps the trading side waiting. It may fall silent."""
        control = self._control
        if control is None:
            return
        if self._control_busy:
            silent_s = time.monotonic() - control.heard_at
            if silent_s > START_PATIENCE_S:
                self._lose_control(f"the control process fell silent: nothing was heard of it for {silent_s:.0f} s")
        elif self._waiting:
            self._control_busy = True
            control.heard_at = time.monotonic()
            control.tell(self._waiting.pop(0))

    def _lose_control(self, told: str) -> None:
        """Go on without it, and say so: it must not end in silence, for nothing later has anything to be beside."""
        assert self._control is not None
        self._journal.note("event", self.now_s, event="control_died", detail=told)
        self._control.kill()
        self._control = None
        self._waiting.clear()

    def _finish_control(self) -> None:
        """Let it play what is left to it, however long that takes, unless it falls silent."""
        self._feed_control()
        while self._control is not None and self._control_busy:
            try:
                self._next(self._control)
            except WorkerDied as death:
                assert self._trading is not None
                self._trading.end()
                self._trading = None
                self._mourn(death)
            self._feed_control()

    def _compare(self) -> None:
        """Let a process that has just begun play by turns with the one that has gone on for so long."""
        trading = self._trading
        if trading is None:
            return  # it died while the control finished
        pairs = pairs_for(time.monotonic() - trading.began_at, self._segment_s)
        if not pairs:
            return
        self._show.stage("beside a process that has just begun", 0)
        fresh = Worker("fresh", trade_segments, self._config, Begin(self._at.generation), self._inbox)
        try:
            await_ready(fresh, self._inbox)
            played = by_turns(
                trading, fresh, self._inbox, self._at.segments, pairs, self._stall_s() + GIVEN_UP_S, self._look_around
            )
            for pair in played:
                told = dataclasses.asdict(pair)
                self._journal.note("beside", self.now_s, generation=trading.generation, **told)
            fresh.end()
        except (WorkerDied, ModelUnavailable) as failure:
            if isinstance(failure, WorkerDied) and failure.role == trading.role:
                self._mourn(failure)
            else:
                self._journal.note("event", self.now_s, event="comparison_failed", detail=str(failure))
        finally:
            fresh.kill()

    def _hand_over(self, trading: Worker, why: str) -> bytes:
        """What the next trading process needs to go on where this one is."""
        trading.heard_at = time.monotonic()
        trading.tell(HandOver())
        while not isinstance(message := self._next(trading), HandedOver):
            pass
        self._journal.note("event", self.now_s, event="recycled", detail=why)
        trading.end()
        self._trading = None  # that it has ended is no death
        self._finish_control()
        return message.state

    def _replace_workers(self, state: bytes | None) -> None:
        self._note_totals()
        for worker in (self._trading, self._control):
            if worker is not None:
                worker.end()
        self._waiting.clear()
        # The next one counts from nothing. Who looks on is told of all that was done: counts never fall.
        if self._vitals is not None:
            self._at.totals.append(total_values(self._vitals))
        self._vitals, self._totals = None, None
        self._minutes, self._size = 0, Size(self._config.recycle_mb)
        self._control_busy = self._stalled = False
        self._show.stage("starting the model process", 1)
        config, generation = self._config, self._at.generation
        self._trading = Worker("trading", trade_segments, config, Begin(generation, state, config.plants), self._inbox)
        self._control = Worker("control", control_segments, config, Begin(generation), self._inbox)
        ready = await_ready(self._trading, self._inbox)
        if not self._at.generation:
            # Loading a model is no part of the hours.
            self._zero = time.monotonic()
        self._show.stage("trading", 0)
        self._introduce(ready)
        self._at.generation += 1

    def _note_totals(self) -> None:
        """What the trading process has come to by the end of its last segment; its newest such line counts."""
        if self._totals is not None and self._totals != self._totals_noted:
            self._totals_noted = self._totals
            self._journal.note("totals", self.now_s, generation=self._at.generation - 1, **self._totals)

    def _introduce(self, ready: Ready) -> None:
        self._journal.note(
            "event", self.now_s, event="trading_began", detail=f"process {ready.pid}", model=ready.model,
            notes=list(ready.notes),
        )  # fmt: skip

    @contextmanager
    def _staff(self) -> Iterator[None]:
        """No worker outlives this, whatever ends it."""
        try:
            yield
            for worker in (self._trading, self._control):
                if worker is not None:
                    worker.end()
        finally:
            for worker in (self._trading, self._control):
                if worker is not None:
                    worker.kill()
            self._note_totals()
            self._journal.checkpoint()

    def _roles(self) -> dict[int, str]:
        known = [worker for worker in (self._trading, self._control) if worker is not None]
        return {worker.pid: worker.role for worker in known} | {os.getpid(): "watching"}
