"""A machine that is simulated: its time, and model processes that load, answer, hang, fall silent and die on it.

Everything else is real: the client, the breaker, the detector, the strategy and NT. Hours of failures pass in a
moment, and the same seed brings the same ones.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.forecast import QUANTILE_LEVELS, Context
from regime.model.checkpoint import Checkpoint
from regime.serving.config import ServingConfig
from regime.serving.process import MB, ProcessDied, Started, StartFailed
from regime.serving.protocol import HEART_BEAT_S, Reply, Request, Status, digest_of
from regime.serving.server import Answer
from stress.misbehaviour import Control, disturbed

FIRST_PID = 1 << 30
"""Beyond every process id that a system gives, so that a signal for a simulated process reaches no real one."""

_NORMAL = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
_DECAY = 0.94
_TREND_BARS = 24
_TREND_SHARE = 0.3
"""Of the mean of the last bars, so much is expected to go on: enough for a position now and then."""


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds.

    A model loads for ``load_s``, give or take half of that. It answers after ``answer_s`` (median) with log-normal
    ``answer_spread``; one answer in ``straggler_one_in`` takes ``straggler_s`` more. Between two looks at the clock
    ``work_s`` of other work is done, and who waits is woken up to ``wake_s`` late.
    """

    load_s: float = 2.0
    answer_s: float = 0.004
    answer_spread: float = 0.5
    straggler_one_in: int = 400
    straggler_s: float = 0.15
    work_s: float = 20e-6
    wake_s: float = 1e-3


class SimulatedTime:
    """A stopwatch that goes on only when told to, and by a little work whenever somebody looks."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.s = 0.0
        self._work_s = work_s

    def now(self) -> float:
        """Seconds since the beginning."""
        self.s += self._work_s
        return self.s

    def advance(self, seconds: float) -> None:
        """Let time pass; never backwards."""
        assert seconds >= 0, seconds
        self.s += seconds


def honest_answer(contexts: Context, horizon_bars: int) -> Answer:
    """A simple model of returns: normal, with exponentially weighted volatility and a little of the recent trend.

    Parameters
    ----------
    contexts
        Log returns, shape (rows, bars), NaN where there are none.
    horizon_bars
        Bars to forecast.
    """
    quantiles = np.empty((len(contexts), horizon_bars, len(QUANTILE_LEVELS)), dtype=np.float32)
    for row, context in enumerate(contexts):
        known = context[~np.isnan(context)].astype(np.float64)
        weights = _DECAY ** np.arange(len(known) - 1, -1, -1.0)
        volatility = math.sqrt(float(weights @ known**2) / float(weights.sum()))
        drift = _TREND_SHARE * float(known[-_TREND_BARS:].sum()) / _TREND_BARS
        quantiles[row] = drift + volatility * _NORMAL
    return Answer(quantiles, digest_of(contexts))


@dataclass(frozen=True)
class Heard:
    """What a process truly said: an answer as it was received, for the judges of a run.

    ``digest`` is that of the contexts it was asked about, ``quantiles`` what lay in the shared memory then.
    """

    sequence: int
    digest: int
    reply: Reply
    quantiles: NDArray[np.float32]


class Machine:
    """Where simulated model processes run.

    Parameters
    ----------
    pace
        How long things take.
    seed
        Of all chance on this machine.
    answer
        The model; misbehaves as ``control`` says.

    Attributes
    ----------
    load_error
        What a model process says in the place of loading; empty where it loads.
    load_factor
        Loading takes so many times as long.
    hearts_stand
        Processes run, and none shows that it lives.
    leak_bytes
        Memory that each answer costs for good.
    dies_answering
        A process dies half-way to its answer.
    unkillable_s
        So long the kernel takes over a killed process.
    busy
        Answers take so many times as long.
    """

    def __init__(self, pace: Pace, seed: int, answer: Callable[[Context, int], Answer] = honest_answer) -> None:
        self.pace = pace
        self.time = SimulatedTime(pace.work_s)
        self.control = Control()
        self.rng = np.random.default_rng([seed, 1])
        self.load_error = ""
        self.load_factor = 1.0
        self.hearts_stand_since: float | None = None
        self.leak_bytes = 0
        self.dies_answering = False
        self.unkillable_s = 0.0
        self.busy = 1.0
        self.processes: list[SimulatedProcess] = []
        self.heard: list[Heard] = []
        self.asked: list[tuple[int, int]] = []
        self._model = answer

    def launch(self, checkpoint: Checkpoint, config: ServingConfig) -> SimulatedProcess:  # noqa: ARG002 (a Launcher)
        """Start a process; see :data:`~regime.serving.process.Launcher`."""
        process = SimulatedProcess(self, FIRST_PID + len(self.processes), self._model)
        self.processes.append(process)
        return process

    def kill(self, pid: int, number: int) -> None:
        """Send a signal: SIGKILL, SIGSTOP or SIGCONT. Raises ProcessLookupError where there is no such process."""
        index = pid - FIRST_PID
        if not 0 <= index < len(self.processes) or self.processes[index].gone:
            raise ProcessLookupError(f"no process {pid} on the simulated machine")
        process = self.processes[index]
        match number:
            case signal.SIGKILL:
                process.die("exit code -9")
            case signal.SIGSTOP:
                process.stop()
            case signal.SIGCONT:
                process.go_on()

    def answer_takes_s(self) -> float:
        """How long the next answer takes."""
        pace = self.pace
        took = self.busy * pace.answer_s * math.exp(pace.answer_spread * float(self.rng.standard_normal()))
        return took + pace.straggler_s * (float(self.rng.random()) * pace.straggler_one_in < 1.0)

    def wait(self, seconds: float) -> None:
        """Let a waiting process sleep so long; the system wakes it a little late."""
        if seconds > 0:
            self.time.advance(seconds + self.pace.wake_s * float(self.rng.random()))

    def close(self) -> None:
        """Give back what the machine holds of the real one."""
        self.control.close()


class SimulatedProcess:
    """A :class:`~regime.serving.process.ModelProcess` whose loading and answering take simulated time."""

    def __init__(self, machine: Machine, pid: int, model: Callable[[Context, int], Answer]) -> None:
        self.pid = pid
        self.gone = False
        self._machine = machine
        self._time = machine.time
        self._slept_s = 0.0
        self._answer = disturbed(model, machine.control, self._sleep)
        self._born = self._time.s
        self._ready_at = self._born + machine.pace.load_s * machine.load_factor * (0.5 + float(machine.rng.random()))
        self._load_error = machine.load_error
        self._epitaph = ""
        self._stopped_at: float | None = None
        self._due_at = math.inf
        self._dies_at = math.inf
        self._request: Request | None = None
        self._digest = 0
        self._found: Answer | Exception | None = None
        self._block = np.full((1, 1, len(QUANTILE_LEVELS)), np.nan, dtype=np.float32)
        self._bytes = 60 * MB
        self._ended_at: float | None = None

    def started(self, timeout_s: float) -> Started | None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        self._require_life()
        if not self._wait_until(self._ready_at, timeout_s):
            return None
        if self._load_error:
            self.die("exit code 1")
            raise StartFailed(self._load_error)
        return Started("simulated-1", "", 0)

    def ask(self, request: Request, contexts: Context) -> None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        self._require_life()
        machine = self._machine
        assert self._request is None, "two requests outstanding"
        self._request, self._digest, self._slept_s = request, digest_of(contexts), 0.0
        machine.asked.append((request.sequence, self._digest))
        try:
            self._found = self._answer(contexts, request.horizon_bars)
        except Exception as error:  # as the real server does: whatever it is, the parent hears of it
            self._found = error
        takes_s = machine.answer_takes_s() + self._slept_s
        self._due_at = max(self._time.s, self._ready_at) + takes_s
        self._dies_at = self._due_at - takes_s / 2 if machine.dies_answering else math.inf
        self._bytes += machine.leak_bytes

    def answer(self, timeout_s: float) -> Reply | None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        # What was said before death is still in the pipe.
        in_time = self._stopped_at is None and self._due_at <= self._time.s and self._due_at < self._dies_at
        said = self._request is not None and in_time
        if not said:
            self._require_life()
            if self._request is None or not self._wait_until(min(self._due_at, self._dies_at), timeout_s):
                return None
            if self._dies_at < self._due_at:
                self.die("exit code -9")
                self._require_life()
        request, found = self._request, self._found
        assert request is not None and found is not None
        self._request, self._due_at = None, math.inf
        reply = self._reply(request, found)
        self._machine.heard.append(Heard(request.sequence, self._digest, reply, self._block))
        return reply

    def quantiles(self, rows: int, horizon_bars: int) -> NDArray[np.float32]:
        """See :class:`~regime.serving.process.ModelProcess`."""
        assert self._block.shape[:2] == (rows, horizon_bars), self._block.shape
        return self._block.copy()

    def alive(self) -> bool:
        """See :class:`~regime.serving.process.ModelProcess`."""
        return not self.gone

    def silence_s(self) -> float:
        """See :class:`~regime.serving.process.ModelProcess`."""
        stands = [since for since in (self._stopped_at, self._machine.hearts_stand_since) if since is not None]
        last = max(self._born, min(stands)) if stands else self._time.s - self._time.s % HEART_BEAT_S
        return max(0.0, self._time.s - last)

    def resident_bytes(self) -> int:
        """See :class:`~regime.serving.process.ModelProcess`."""
        return self._bytes

    def peak_bytes(self) -> int:
        """See :class:`~regime.serving.process.ModelProcess`."""
        return self._bytes

    def end(self, patience_s: float) -> bool:
        """See :class:`~regime.serving.process.ModelProcess`."""
        if self._ended_at is None:
            self._ended_at = self._time.s
            self.die("exit code -9")
        if patience_s:
            self._machine.wait(max(0.0, self._ended_at + self._machine.unkillable_s - self._time.s))
        return self.ended

    @property
    def ended(self) -> bool:
        """True where the client has put an end to it and the kernel has taken it away."""
        return self._ended_at is not None and self._time.s >= self._ended_at + self._machine.unkillable_s

    def die(self, epitaph: str) -> None:
        """Be gone, from now on."""
        if not self.gone:
            self.gone, self._epitaph = True, epitaph
            if self._due_at > self._time.s or self._stopped_at is not None:
                self._request, self._due_at = None, math.inf

    def stop(self) -> None:
        """SIGSTOP: neither answer nor beat until told to go on."""
        if self._stopped_at is None:
            self._stopped_at = self._time.s

    def go_on(self) -> None:
        """SIGCONT: everything is late by the time that was spent stopped."""
        if self._stopped_at is not None:
            stood_s = self._time.s - self._stopped_at
            if self._ready_at > self._stopped_at:
                self._ready_at += stood_s
            if self._due_at > self._stopped_at:
                self._due_at, self._dies_at = self._due_at + stood_s, self._dies_at + stood_s
            self._stopped_at = None

    def _require_life(self) -> None:
        if self.gone:
            raise ProcessDied(self._epitaph)

    def _wait_until(self, moment: float, timeout_s: float) -> bool:
        """Wait for a moment, at most so long; True where it has come."""
        left_s = moment - self._time.s
        if self._stopped_at is not None and moment > self._stopped_at:
            left_s = math.inf
        if left_s > timeout_s:
            self._machine.wait(timeout_s)
            return False
        self._machine.wait(left_s)
        return True

    def _sleep(self, seconds: float) -> None:
        self._slept_s += seconds

    def _reply(self, request: Request, found: Answer | Exception) -> Reply:
        """What the real server makes of it."""
        if isinstance(found, Exception):
            memory = isinstance(found, MemoryError)
            return Reply(request.sequence, Status.OUT_OF_MEMORY if memory else Status.ERROR, repr(found))
        rows, horizon_bars, _ = found.quantiles.shape
        if (rows, horizon_bars) == (request.rows, request.horizon_bars):
            self._block = found.quantiles
        return Reply(request.sequence, Status.OK, "", rows, horizon_bars, found.digest)
