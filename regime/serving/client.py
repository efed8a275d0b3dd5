"""The trading side of the model process: one request outstanding, never a wait beyond the given time.

A late answer is dropped when it arrives. A process that died, hangs or has fallen silent is replaced, with a back-off
that doubles; while there is none, every forecast fails at once and the chain answers. One that outgrows its memory is
relieved by a successor before it hits the ceiling.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.errors import ForecastFailed, ModelUnavailable
from regime.forecast import Context
from regime.model.checkpoint import Checkpoint
from regime.model.tokens import check_request
from regime.serving import startup
from regime.serving.config import ServingConfig
from regime.serving.process import (
    Launcher,
    ModelProcess,
    ProcessDied,
    StartFailed,
    launch_child,
    memory_limit_bytes,
)
from regime.serving.protocol import (
    MAX_CONTEXT_BARS,
    MAX_HORIZON_BARS,
    MAX_ROWS,
    Reply,
    Request,
    Status,
    require_answer_to,
)
from regime.signal import Reason

LOOK_AT_MEMORY_EVERY = 64
"""Answers between two looks at the process's memory."""

PATIENT_S = 1.0
"""A forecast that may take so long waits for a process that is to be started again; any other fails at once."""

_PATIENCE_S = 2.0
_SECOND_LOOK_S = 0.5
"""A silent process gets this much longer: both processes may just have been stopped and continued together."""


@dataclass
class _Process:
    """A process and what the client knows of it; times are the stopwatch's."""

    process: ModelProcess
    launched_at: float
    ready: bool = False
    asked_at: float | None = None
    silent_since: float | None = None
    answers: int = 0


class ModelClient:
    """A :class:`~regime.forecast.Forecaster` whose model runs in a process of its own.

    Use as a context manager; leaving it ends the process. Safe to call from several threads: they take turns.

    Parameters
    ----------
    checkpoint
        What the process is to load.
    config
        When it is started, replaced and relieved.
    stopwatch
        Measures deadlines and back-off; ``time.perf_counter`` unless simulated.
    launch
        Starts a process; a child of this one unless simulated.

    ``recycled`` counts processes that were relieved as planned, ``lost`` those that died, hung or fell silent.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ServingConfig | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
        launch: Launcher = launch_child,
    ) -> None:
        self.checkpoint = checkpoint
        self.engine = ""
        self.engine_note = ""
        self.context_bars = 0
        self.first_error = ""
        self.peak_rss_bytes = 0
        self.check_ms: float | None = None
        self.recycled = 0
        self.lost = 0
        self._config = config or ServingConfig()
        self._stopwatch = stopwatch
        self._launch = launch
        self._checkpoint_id = ""
        self._lock = threading.Lock()
        self._current: _Process | None = None
        self._successor: _Process | None = None
        self._no_successor_before = -math.inf
        self._dying: list[ModelProcess] = []
        self._sequence = 0
        self._failures_in_a_row = 0
        self._start_again_at = 0.0
        self._untold: ForecastFailed | None = None
        self._starts = 0
        # The kernel kills a child when the thread that started it ends, so one long-lived thread starts them all.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sage-model-starter")
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def checkpoint_id(self) -> str:
        """First 16 hex digits of the weights' sha256; of a user's own forecaster, what it says itself."""
        return self._checkpoint_id or self.checkpoint.id

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with self._lock:
            if self._current is None:
                self._spawn()

    def start(self) -> None:
        """Start the process, unless launched already, wait until it has loaded the checkpoint, and have it checked.

        See :func:`regime.serving.startup.check`; ``check_ms`` tells how long a forecast took in it.

        Raises
        ------
        ModelUnavailable
            With the process's own words, if it cannot.
        """
        try:
            with self._lock:
                if self._current is None:
                    self._spawn()
                self._await_ready(self._stopwatch() + self._config.start_timeout_s)
            self.check_ms = startup.check(self, self._stopwatch, self._config.start_timeout_s)
        except ForecastFailed as error:
            if error.reason is Reason.MODEL_UNAVAILABLE:
                raise ModelUnavailable(error.detail) from error
            raise ModelUnavailable(f"the model process did not start: {error}") from error
        if self._config.watch_s > 0 and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="sage-model-watcher", daemon=True)
            self._watcher.start()

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:
        """Forecast a batch; see :class:`~regime.forecast.Forecaster`."""
        try:
            check_request(contexts, horizon_bars, MAX_HORIZON_BARS)
        except ValueError as error:
            raise ForecastFailed(Reason.MODEL_ERROR, str(error)) from error
        rows, context_bars = contexts.shape
        if rows > MAX_ROWS or context_bars > MAX_CONTEXT_BARS:
            raise ForecastFailed(Reason.WRONG_SHAPE, f"{rows} rows of {context_bars} bars, horizon {horizon_bars}")
        until = self._stopwatch() + timeout_s
        if not self._lock.acquire(timeout=max(0.0, timeout_s)):
            raise ForecastFailed(Reason.TIMEOUT, "another forecast is outstanding")
        try:
            found = self._running(until)
            self._drop_late_answer(found, until)
            self._sequence += 1
            request = Request(self._sequence, rows, context_bars, horizon_bars)
            with self._replaced_on_death():
                found.process.ask(request, contexts)
            found.asked_at = self._stopwatch()
            reply = self._receive(found, until)
            if reply.status is Status.OUT_OF_MEMORY:
                # At its ceiling already: it would refuse for good, and never come to the next look.
                self._relieve_if_large(found)
            if reply.status is Status.ERROR:
                self.first_error = self.first_error or reply.text
            require_answer_to(request, reply, contexts)
            self._failures_in_a_row = 0
            quantiles = found.process.quantiles(rows, horizon_bars)
            found.answers += 1
            if found.answers % LOOK_AT_MEMORY_EVERY == 0:
                self._relieve_if_large(found)
            return quantiles
        finally:
            self._lock.release()

    def tend(self) -> None:
        """Replace what is dead, hung or silent, and let a successor take over: what the watcher does now and then.

        Returns at once where a forecast is under way, which does the same. What it finds is told to the next forecast
        that has to do without a process, so that a death is on record whoever comes upon it first.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._look_after()
            if self._current is None and self._stopwatch() >= self._start_again_at:
                self._spawn()
            elif self._current is not None and not self._current.process.alive():
                self._replace()
                raise ForecastFailed(Reason.MODEL_DIED, "found dead between two forecasts")
        except ForecastFailed as error:
            self._untold = error.with_traceback(None)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process; safe to call twice. The client cannot be used afterwards."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._lock:
            for found in (self._successor, self._current):
                if found is not None:
                    # An idle one ends by itself; a busy or hung one is not waited for.
                    self._end(found, patience_s=_PATIENCE_S if found.ready and found.asked_at is None else 0.0)
            self._successor = self._current = None
            self._dying = [process for process in self._dying if not process.end(_PATIENCE_S)]
        self._starter.shutdown()

    def notes(self, context_bars: int) -> list[str]:
        """What people should know of a model that is asked with contexts of this length, once it has started."""
        found = [self.engine_note] if self.engine_note else []
        if 0 < self.context_bars < context_bars:
            found.append(f"the model looks at the last {self.context_bars} of the {context_bars} bars of a context")
        return found

    @property
    def restarts(self) -> int:
        """How often the process was replaced, planned or not."""
        return max(0, self._starts - 1)

    @property
    def pid(self) -> int | None:
        """Process id of the model process, if there is one."""
        return self._current.process.pid if self._current is not None else None

    @property
    def pids(self) -> list[int]:
        """Process ids of all there are: the one that answers, its successor, and what is still dying."""
        found = [known.process for known in (self._current, self._successor) if known is not None]
        return [process.pid for process in [*found, *self._dying]]

    def _running(self, until: float) -> _Process:
        self._look_after()
        if self._current is None:
            self._wait_to_start_again(until)
            self._spawn()
        self._await_ready(until)
        assert self._current is not None
        return self._current

    def _wait_to_start_again(self, until: float) -> None:
        """Let the back-off pass where the caller has the patience: a backtest's bars do not stand still meanwhile."""
        now = self._stopwatch()
        wait_s = self._start_again_at - now
        if wait_s <= 0:
            return
        if until - now < PATIENT_S or wait_s >= until - now:
            untold, self._untold = self._untold, None
            raise untold or ForecastFailed(Reason.MODEL_UNAVAILABLE, "waiting to be started again")
        time.sleep(wait_s)

    def _spawn(self) -> None:
        try:
            self._current = self._launched()
        except OSError as error:
            self._back_off()
            raise ForecastFailed(Reason.MODEL_UNAVAILABLE, f"the model process cannot be started: {error}") from error

    def _launched(self) -> _Process:
        process = self._starter.submit(self._launch, self.checkpoint, self._config).result()
        self._starts += 1
        return _Process(process, self._stopwatch())

    def _await_ready(self, until: float) -> None:
        found = self._current
        assert found is not None
        if found.ready:
            return
        if not self._get_ready(found, until - self._stopwatch()):
            if self._stopwatch() - found.launched_at >= self._config.start_timeout_s:
                self._replace()
            raise ForecastFailed(Reason.TIMEOUT, "the model process is still starting")

    def _get_ready(self, found: _Process, timeout_s: float) -> bool:
        with self._replaced_on_death():
            try:
                started = found.process.started(timeout_s)
            except StartFailed as error:
                self._replace()
                raise ForecastFailed(Reason.MODEL_UNAVAILABLE, str(error)) from error
        if started is not None:
            self.engine, self.engine_note = started.engine, started.note
            self.context_bars, self._checkpoint_id = started.context_bars, started.checkpoint_id
            found.ready = True
        return found.ready

    def _drop_late_answer(self, found: _Process, until: float) -> None:
        """Wait for the answer that an earlier forecast gave up on; nothing else may be asked before."""
        if found.asked_at is not None:
            self._receive(found, until)

    def _receive(self, found: _Process, until: float) -> Reply:
        reply = self._said_by(found, until - self._stopwatch())
        if reply is None:
            self._replace_if_hung(found)
            raise ForecastFailed(Reason.TIMEOUT)
        return reply

    def _said_by(self, found: _Process, timeout_s: float) -> Reply | None:
        """The answer to what the process was asked last; None where it does not come in time."""
        with self._replaced_on_death():
            try:
                reply = found.process.answer(timeout_s)
            except ValueError as error:
                self._replace()
                raise ForecastFailed(Reason.MODEL_ERROR, f"the model process does not make sense: {error}") from error
        if reply is not None:
            found.asked_at = None
        return reply

    def _look_after(self) -> None:
        """What is due without a forecast: the dying, the hung, and a successor that is ready. Raises ForecastFailed."""
        self._dying = [process for process in self._dying if not process.end(0.0)]
        if self._current is not None:
            self._hear(self._current)
            self._replace_if_hung(self._current)
        successor = self._successor
        if successor is None:
            return
        try:
            ready = self._get_ready_beside(successor)
        except (ProcessDied, StartFailed):
            self._give_up(successor)
            return
        if not ready and self._stopwatch() - successor.launched_at >= self._config.start_timeout_s:
            self._give_up(successor)
            return
        if ready and (self._current is None or self._current.asked_at is None):
            if self._current is not None:
                self._end(self._current)
            self._current, self._successor = successor, None
            self.recycled += 1

    def _give_up(self, successor: _Process) -> None:
        """End a successor that came to nothing; the next one is not tried at once."""
        self._successor = None
        self._no_successor_before = self._stopwatch() + self._config.back_off_max_s
        self._end(successor)

    def _hear(self, found: _Process) -> None:
        """It may have loaded or answered long ago and had nobody to tell: bars are far apart, or a breaker was open."""
        if not found.ready:
            self._get_ready(found, 0.0)
        if found.asked_at is not None:
            self._said_by(found, 0.0)

    def _get_ready_beside(self, successor: _Process) -> bool:
        started = successor.process.started(0.0) if not successor.ready else None
        successor.ready = successor.ready or started is not None
        return successor.ready

    def _replace_if_hung(self, found: _Process) -> None:
        """A process that has not answered for the hang limit, or whose heart stands still, will not speak again."""
        now, config = self._stopwatch(), self._config
        if not found.ready:
            # Loading may keep Python's lock for long, and the heart with it.
            if now - found.launched_at >= config.start_timeout_s:
                self._replace()
            return
        if found.process.silence_s() < config.silence_limit_s:
            found.silent_since = None
        elif found.silent_since is None:
            found.silent_since = now
        silent = found.silent_since is not None and now - found.silent_since >= _SECOND_LOOK_S
        unanswered = found.asked_at is not None and now - found.asked_at >= config.hang_limit_s
        if silent or unanswered:
            self._replace()

    def _relieve_if_large(self, found: _Process) -> None:
        limit = memory_limit_bytes(self._config)
        if self._successor is not None or self._stopwatch() < self._no_successor_before:
            return
        if limit and found.process.resident_bytes() > self._config.recycle_share * limit:
            # Where no second process can be had, the first one serves on, up to its ceiling.
            with contextlib.suppress(OSError):
                self._successor = self._launched()

    @contextlib.contextmanager
    def _replaced_on_death(self) -> Iterator[None]:
        try:
            yield
        except ProcessDied as error:
            self._replace()
            raise ForecastFailed(Reason.MODEL_DIED, str(error)) from error

    def _replace(self) -> None:
        """End the process; the next one starts when the back-off is over, or is there already as a successor."""
        found, self._current = self._current, self._successor
        self._successor = self._untold = None
        if found is not None:
            self.lost += 1
            self._end(found)
        if self._current is None:
            self._back_off()

    def _back_off(self) -> None:
        wait_s = min(self._config.back_off_s * 2.0 ** min(self._failures_in_a_row, 60), self._config.back_off_max_s)
        self._start_again_at = self._stopwatch() + wait_s
        self._failures_in_a_row += 1

    def _end(self, found: _Process, patience_s: float = 0.0) -> None:
        self.peak_rss_bytes = max(self.peak_rss_bytes, found.process.peak_bytes())
        if not found.process.end(patience_s):
            self._dying.append(found.process)

    def _watch(self) -> None:
        while not self._closed.wait(self._config.watch_s):
            self.tend()
