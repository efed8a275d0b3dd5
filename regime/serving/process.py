"""One model process as its client sees it, and the real one: a child that is spawned, asked, watched and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regime.errors import UserCodeRaised
from regime.forecast import Context
from regime.importing import NotUsable
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineSpec
from regime.serving.config import ServingConfig
from regime.serving.protocol import Block, Reply, Request

MB = 10**6

OWN_ENGINE = "own"
"""What the engine of a user's own forecaster is called."""

_KILLED_WITHIN_S = 5.0


class ProcessDied(Exception):
    """The process is gone; the message says with which exit code, and what it said last."""


class StartFailed(Exception):
    """The process could not load the model; the message is its own. A user's own mistake is its cause."""


@dataclass(frozen=True)
class Started:
    """What a process says once it has loaded the model; ``checkpoint_id`` where that is for the model to say."""

    engine: str
    note: str
    context_bars: int
    checkpoint_id: str = ""


class ModelProcess(Protocol):
    """A model process, real or simulated. Only the client talks to it, one thread at a time."""

    pid: int

    def started(self, timeout_s: float) -> Started | None:
        """Wait until the model is loaded; None where it is not yet. Raises ProcessDied or StartFailed."""

    def ask(self, request: Request, contexts: Context) -> None:
        """Send a request. Raises ProcessDied."""

    def answer(self, timeout_s: float) -> Reply | None:
        """Wait for an answer; None where there is none yet. Raises ProcessDied, or ValueError for what is none."""

    def quantiles(self, rows: int, horizon_bars: int) -> NDArray[np.float32]:
        """A copy of the quantiles of the answer that came last, shape (rows, horizon_bars, 9)."""

    def alive(self) -> bool:
        """False where the process is known to have ended."""

    def silence_s(self) -> float:
        """Seconds since its heart last beat."""

    def resident_bytes(self) -> int:
        """Resident memory; 0 where the system does not tell."""

    def peak_bytes(self) -> int:
        """The most resident memory it has had; 0 where the system does not tell."""

    def end(self, patience_s: float) -> bool:
        """Let an idle process end by itself for so long, then kill it. False where it is not gone yet: ask again."""


Launcher = Callable[[Checkpoint, ServingConfig], ModelProcess]
"""Starts a process and returns at once."""


class ChildProcess:
    """The real thing: a spawned Python that runs ``module``, asked through a pipe and a block of shared memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ServingConfig,
        module: str = "regime.serving.server",
        extra: Mapping[str, Any] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self._block = Block.create()
        self._pipe, theirs = Pipe()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._spawned = time.monotonic()
        self._ended = False
        spec: dict[str, Any] = {
            "pipe": theirs.fileno(),
            "block": self._block.descriptor,
            "parent": os.getpid(),
            "name": checkpoint.name,
            "weights": str(checkpoint.weights),
            "sha256": checkpoint.sha256,
            "hyper_parameters": checkpoint.hyper_parameters,
            "engine": dataclasses.asdict(config.engine),
            "memory_limit_bytes": memory_limit_bytes(config),
            **(extra or {}),
        }
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module, json.dumps(spec)],
                pass_fds=(theirs.fileno(), self._block.descriptor, *pass_fds),
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=os.environ | _environment(config.engine),
            )
        except BaseException:
            self._give_back()
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid

    def started(self, timeout_s: float) -> Started | None:
        """See :class:`ModelProcess`."""
        try:
            if not self._pipe.poll(max(0.0, timeout_s)):
                return None
            message = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died() from error
        if "error" in message:
            raise StartFailed(message["error"]) from _mistake(message)
        return Started(message["engine"], message["note"], message["context_bars"], message.get("checkpoint_id", ""))

    def ask(self, request: Request, contexts: Context) -> None:
        """See :class:`ModelProcess`."""
        self._block.contexts(request.rows, request.context_bars)[:] = contexts
        try:
            self._pipe.send_bytes(request.pack())
        except OSError as error:
            raise self._died() from error

    def answer(self, timeout_s: float) -> Reply | None:
        """See :class:`ModelProcess`."""
        try:
            if not self._pipe.poll(max(0.0, timeout_s)):
                return None
            raw = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died() from error
        return Reply.unpack(raw)

    def quantiles(self, rows: int, horizon_bars: int) -> NDArray[np.float32]:
        """See :class:`ModelProcess`."""
        return self._block.answers(rows, horizon_bars).copy()

    def alive(self) -> bool:
        """See :class:`ModelProcess`."""
        return self._popen.poll() is None

    def silence_s(self) -> float:
        """See :class:`ModelProcess`. Both processes read the system's monotonic clock."""
        return time.monotonic() - (self._block.last_beat() or self._spawned)

    def resident_bytes(self) -> int:
        """See :class:`ModelProcess`."""
        return _memory(self.pid, "VmRSS:")

    def peak_bytes(self) -> int:
        """See :class:`ModelProcess`."""
        return _memory(self.pid, "VmHWM:")

    def end(self, patience_s: float) -> bool:
        """See :class:`ModelProcess`. Closing the pipe is what tells an idle process to end."""
        if self._ended:
            return True
        self._pipe.close()
        try:
            self._popen.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            # A process that the kernel cannot kill at once must not keep a bar waiting.
            try:
                self._popen.wait(timeout=_KILLED_WITHIN_S if patience_s else 0.0)
            except subprocess.TimeoutExpired:
                return False
        self._give_back()
        return True

    def _give_back(self) -> None:
        self._ended = True
        self._pipe.close()
        self._block.close()
        self._errors.close()

    def _died(self) -> ProcessDied:
        # The pipe closes a moment before the exit code is known.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=0.001)
        said = _last_line(self._errors)
        return ProcessDied(f"exit code {self._popen.returncode}" + (f", {said}" if said else ""))


def launch_child(checkpoint: Checkpoint, config: ServingConfig) -> ModelProcess:
    """The launcher of every ordinary run."""
    return ChildProcess(checkpoint, config)


def launcher_of_own(spec: str, directory: Path, bars: Path) -> Launcher:
    """Launches processes in which a user's own forecaster answers; see :mod:`regime.serving.own`.

    Parameters
    ----------
    spec
        The forecaster, ``package.module:Class``.
    directory
        Where its module is looked for first.
    bars
        A Parquet file of all bars, for a constructor that asks for them; read when a process starts.
    """
    own = {"spec": spec, "directory": str(directory), "bars": str(bars)}

    def launch(checkpoint: Checkpoint, config: ServingConfig) -> ModelProcess:
        extra = {"own": own | {"hang_limit_s": config.hang_limit_s}}
        return ChildProcess(checkpoint, config, "regime.serving.own", extra)

    return launch


def _mistake(message: dict[str, str]) -> Exception | None:
    """The user's mistake that a process has told of, if it was one."""
    match message.get("kind"):
        case "NotUsable":
            return NotUsable(message["error"])
        case "UserCodeRaised":
            return UserCodeRaised(message["error"], message["trace"])
    return None


def memory_limit_bytes(config: ServingConfig) -> int:
    """The ceiling of a model process: as configured, and within a container at most four fifths of what that has.

    0 for none. On CUDA there is none: the driver reserves address space without end.
    """
    if config.engine.device != "cpu" or not config.memory_limit_mb:
        return 0
    wanted = int(config.memory_limit_mb * MB)
    with contextlib.suppress(OSError, ValueError):
        return min(wanted, int(0.8 * int(Path("/sys/fs/cgroup/memory.max").read_text())))
    return wanted


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


def _memory(pid: int, field: str) -> int:
    with contextlib.suppress(OSError, ValueError), Path(f"/proc/{pid}/status").open() as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def _last_line(stream: IO[bytes]) -> str:
    stream.seek(0)
    lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
