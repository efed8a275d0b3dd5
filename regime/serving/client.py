"""The trading side of the model process: one request outstanding, never a wait beyond the given time.

A late answer is dropped when it arrives. A process that died, or has been silent for longer than the hang limit,
is replaced, with a back-off that doubles; while there is none, every forecast fails at once and the chain answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from regime.errors import ForecastFailed, ModelUnavailable
from regime.forecast import Context
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineSpec
from regime.model.tokens import check_request
from regime.serving.protocol import MAX_CONTEXT_BARS, MAX_HORIZON_BARS, MAX_ROWS, Block, Reply, Request, Status
from regime.signal import Reason


@dataclass(frozen=True)
class ServingConfig:
    """The model process: its engine, and how long it may take to start, be silent, and stay away."""

    engine: EngineSpec = field(default_factory=EngineSpec)

    start_timeout_s: float = 120.0
    hang_limit_s: float = 30.0
    back_off_s: float = 1.0
    back_off_max_s: float = 60.0


@dataclass
class _Process:
    """A model process that was started; ``ready`` once it has said so."""

    popen: subprocess.Popen[bytes]
    pipe: Connection
    errors: IO[bytes]
    ready: bool = False
    asked_at: float | None = None


class ModelClient:
    """A :class:`~regime.forecast.Forecaster` whose model runs in a process of its own.

    Use as a context manager; leaving it ends the process.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ServingConfig | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.checkpoint = checkpoint
        self._config = config or ServingConfig()
        self._stopwatch = stopwatch
        self._block = Block.create()
        self._process: _Process | None = None
        self._sequence = 0
        self._failures_in_a_row = 0
        self._start_again_at = 0.0
        self._lock = threading.Lock()
        self.engine = ""
        self.engine_note = ""
        self.context_bars = 0
        self._starts = 0
        self.peak_rss_bytes = 0

    @property
    def checkpoint_id(self) -> str:
        """First 16 hex digits of the weights' sha256."""
        return self.checkpoint.id

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with self._lock:
            if self._process is None:
                self._spawn()

    def start(self) -> None:
        """Start the process, unless launched already, and wait until it has loaded the checkpoint.

        Raises
        ------
        ModelUnavailable
            With the process's own words, if it cannot.
        """
        with self._lock:
            if self._process is None:
                self._spawn()
            try:
                self._await_ready(self._stopwatch() + self._config.start_timeout_s)
            except ForecastFailed as error:
                if error.reason is Reason.MODEL_UNAVAILABLE:
                    raise ModelUnavailable(error.detail) from error
                raise ModelUnavailable(f"the model process did not start: {error}") from error

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:
        """Forecast a batch; see :class:`~regime.forecast.Forecaster`."""
        try:
            check_request(contexts, horizon_bars, MAX_HORIZON_BARS)
        except ValueError as error:
            raise ForecastFailed(Reason.MODEL_ERROR, str(error)) from error
        rows, context_bars = contexts.shape
        if rows > MAX_ROWS or context_bars > MAX_CONTEXT_BARS:
            raise ForecastFailed(Reason.WRONG_SHAPE, f"{rows} rows of {context_bars} bars, horizon {horizon_bars}")
        with self._lock:
            until = self._stopwatch() + timeout_s
            process = self._running(until)
            self._drop_late_answer(process, until)
            self._sequence += 1
            request = Request(self._sequence, rows, context_bars, horizon_bars)
            self._block.contexts(rows, context_bars)[:] = contexts
            try:
                process.pipe.send_bytes(request.pack())
            except OSError as error:
                raise self._died() from error
            process.asked_at = self._stopwatch()
            reply = self._receive(process, until)
            if reply.sequence != request.sequence:
                raise ForecastFailed(Reason.STALE_ANSWER, f"answer {reply.sequence} to request {request.sequence}")
            if reply.status is Status.OUT_OF_MEMORY:
                raise ForecastFailed(Reason.OUT_OF_MEMORY, reply.text)
            if reply.status is not Status.OK:
                raise ForecastFailed(Reason.MODEL_ERROR, reply.text)
            self._failures_in_a_row = 0
            return self._block.answers(rows, horizon_bars).copy()

    def close(self) -> None:
        """End the process and give its memory back; safe to call twice. The client cannot be used afterwards."""
        with self._lock:
            self._end()
            self._block.close()

    def notes(self, context_bars: int) -> list[str]:
        """What people should know of a model that is asked with contexts of this length, once it has started."""
        found = [self.engine_note] if self.engine_note else []
        if 0 < self.context_bars < context_bars:
            found.append(f"the model looks at the last {self.context_bars} of the {context_bars} bars of a context")
        return found

    @property
    def restarts(self) -> int:
        """How often the process was replaced."""
        return max(0, self._starts - 1)

    @property
    def pid(self) -> int | None:
        """Process id of the model process, if there is one."""
        return self._process.popen.pid if self._process is not None else None

    def _running(self, until: float) -> _Process:
        if self._process is None:
            if self._stopwatch() < self._start_again_at:
                raise ForecastFailed(Reason.MODEL_UNAVAILABLE, "waiting to be started again")
            self._spawn()
        self._await_ready(until)
        assert self._process is not None
        return self._process

    def _spawn(self) -> None:
        ours, theirs = Pipe()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        spec: dict[str, Any] = {
            "pipe": theirs.fileno(),
            "block": self._block.descriptor,
            "parent": os.getpid(),
            "name": self.checkpoint.name,
            "weights": str(self.checkpoint.weights),
            "sha256": self.checkpoint.sha256,
            "hyper_parameters": self.checkpoint.hyper_parameters,
            "engine": dataclasses.asdict(self._config.engine),
        }
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "regime.serving.server", json.dumps(spec)],
            pass_fds=(theirs.fileno(), self._block.descriptor),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=os.environ | _environment(self._config.engine),
        )
        theirs.close()
        self._process = _Process(popen, ours, errors)
        self._starts += 1

    def _await_ready(self, until: float) -> None:
        process = self._process
        assert process is not None
        if process.ready:
            return
        try:
            if not process.pipe.poll(max(0.0, until - self._stopwatch())):
                raise ForecastFailed(Reason.TIMEOUT, "the model process is still starting")
            message = json.loads(process.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died() from error
        if "error" in message:
            self._end()
            self._back_off()
            raise ForecastFailed(Reason.MODEL_UNAVAILABLE, message["error"])
        self.engine, self.engine_note = message["engine"], message["note"]
        self.context_bars = message["context_bars"]
        process.ready = True

    def _drop_late_answer(self, process: _Process, until: float) -> None:
        """Wait for the answer that an earlier forecast gave up on; nothing else may be asked before."""
        if process.asked_at is not None:
            self._receive(process, until)

    def _receive(self, process: _Process, until: float) -> Reply:
        try:
            if not process.pipe.poll(max(0.0, until - self._stopwatch())):
                self._replace_if_hung(process)
                raise ForecastFailed(Reason.TIMEOUT)
            reply = Reply.unpack(process.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died() from error
        process.asked_at = None
        return reply

    def _replace_if_hung(self, process: _Process) -> None:
        """A process that has been silent for the hang limit will not speak again."""
        if process.asked_at is not None and self._stopwatch() - process.asked_at >= self._config.hang_limit_s:
            self._end()
            self._back_off()

    def _died(self) -> ForecastFailed:
        process = self._process
        assert process is not None
        # The pipe closes a moment before the exit code is known.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(timeout=0.001)
        code, said = process.popen.returncode, _last_line(process.errors)
        self._end()
        self._back_off()
        return ForecastFailed(Reason.MODEL_DIED, f"exit code {code}" + (f", {said}" if said else ""))

    def _back_off(self) -> None:
        wait_s = self._config.back_off_s * 2**self._failures_in_a_row
        self._start_again_at = self._stopwatch() + min(wait_s, self._config.back_off_max_s)
        self._failures_in_a_row += 1

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self.peak_rss_bytes = max(self.peak_rss_bytes, _peak_rss_bytes(process.popen.pid))
        process.pipe.close()
        try:
            # An idle server ends by itself when the pipe closes; a busy or hung one is not waited for.
            process.popen.wait(timeout=0.0 if process.asked_at is not None or not process.ready else 2.0)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
        process.errors.close()


def _environment(engine: EngineSpec) -> dict[str, str]:
    """What must be set before torch loads.

    With OpenMP's spin-waiting, one busy neighbour core makes a forecast several times slower; and one thread,
    because waking a second one for each of a forecast's many small steps costs more than it saves. The stock engine
    is left as it comes, for it is there to be compared with.
    """
    if engine.kind == "stock":
        return {}
    return {
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,garbage_collection_threshold:0.6,expandable_segments:True",
    }


def _peak_rss_bytes(pid: int) -> int:
    """Largest resident memory a live process has had; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError), Path(f"/proc/{pid}/status").open() as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _last_line(stream: IO[bytes]) -> str:
    stream.seek(0)
    lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
