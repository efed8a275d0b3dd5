"""The model process: loads one checkpoint, answers one request at a time, ends with its parent.

Started by :class:`~regime.serving.process.ChildProcess` as ``python -m regime.serving.server``; the checkpoint comes
as JSON on the command line, the pipe and the memory block as inherited file descriptors.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regime.errors import ModelUnavailable, UserCodeRaised
from regime.forecast import Context
from regime.importing import NotUsable
from regime.model.checkpoint import Checkpoint, sha256_of
from regime.model.engines import EngineSpec, load_engine
from regime.model.weights import load_weights
from regime.serving.protocol import HEART_BEAT_S, Block, Reply, Request, Status, digest_of

_PR_SET_PDEATHSIG = 1
_ROOM_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Answer:
    """Quantiles, shape (rows, horizon_bars, 9), and the digest of the contexts they are of."""

    quantiles: NDArray[np.float32]
    digest: int


AnswerFunction = Callable[[Context, int], Answer]
"""Contexts and a horizon in, an answer out; raises what it likes."""

LoadFunction = Callable[[dict[str, Any]], tuple[AnswerFunction, dict[str, Any]]]
"""What this process was told in; what answers, and what to say of it, out."""


def main(
    arguments: list[str],
    disturb: Callable[[AnswerFunction], AnswerFunction] | None = None,
    load: LoadFunction | None = None,
) -> int:
    """Serve until the parent closes the pipe or is gone. A rig may put ``disturb`` in the model's way.

    ``load`` gets what is to answer; the checkpoint, unless something else is asked for.
    """
    spec = json.loads(arguments[0])
    _die_with_parent(spec["parent"])
    pipe = Connection(spec["pipe"])
    block = Block(spec["block"])
    threading.Thread(target=_beat, args=(block, spec["parent"]), daemon=True).start()
    _limit_memory(spec["memory_limit_bytes"])
    started = time.perf_counter()
    try:
        forecast, said = (load or _load_checkpoint)(spec)
    except (ModelUnavailable, MemoryError, NotUsable, UserCodeRaised) as error:
        pipe.send_bytes(json.dumps(_refusal(error)).encode())
        return 1
    pipe.send_bytes(json.dumps(said | {"load_s": time.perf_counter() - started}).encode())
    answer = forecast if disturb is None else disturb(forecast)
    while True:
        try:
            request = Request.unpack(pipe.recv_bytes())
            pipe.send_bytes(_serve(request, block, answer).pack())
        except (EOFError, OSError):
            return 0


def checkpoint_of(spec: dict[str, Any]) -> Checkpoint:
    """What the parent named. Raises ModelUnavailable if its file has changed since."""
    checkpoint = Checkpoint(spec["name"], Path(spec["weights"]), spec["sha256"], spec["hyper_parameters"])
    _require_recorded_weights(checkpoint)
    return checkpoint


def _load_checkpoint(spec: dict[str, Any]) -> tuple[AnswerFunction, dict[str, Any]]:
    _require_room(Path(spec["weights"]))
    model, choice = load_engine(load_weights(checkpoint_of(spec)), EngineSpec(**spec["engine"]))

    def forecast(contexts: Context, horizon_bars: int) -> Answer:
        return Answer(model.forecast(contexts, horizon_bars), digest_of(contexts))

    return forecast, {"engine": choice.name, "note": choice.note, "context_bars": model.architecture.context_bars}


def _refusal(error: Exception) -> dict[str, str]:
    """Why there will be no answers; ``kind`` and ``trace`` tell the user's mistakes from other things."""
    words = str(error) or "not enough memory to load the model"
    return {"error": words, "kind": type(error).__name__, "trace": getattr(error, "trace", "")}


def _serve(request: Request, block: Block, answer: AnswerFunction) -> Reply:
    try:
        found = answer(block.contexts(request.rows, request.context_bars), request.horizon_bars)
        rows, horizon_bars, _ = found.quantiles.shape
        if (rows, horizon_bars) == (request.rows, request.horizon_bars):
            block.answers(rows, horizon_bars)[:] = found.quantiles
        return Reply(request.sequence, Status.OK, "", rows, horizon_bars, found.digest)
    except MemoryError as error:
        return Reply(request.sequence, Status.OUT_OF_MEMORY, str(error))
    except ValueError as error:
        return Reply(request.sequence, Status.ERROR, str(error))
    except Exception as error:  # whatever torch raises is for the parent to record
        return Reply(request.sequence, Status.ERROR, repr(error))


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent is gone: it reaches even a process that is stopped."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _beat(block: Block, parent: int) -> None:
    """Show that this process runs, and end it where the kernel does not when the parent is gone."""
    while os.getppid() == parent:
        block.beat(time.monotonic())
        time.sleep(HEART_BEAT_S)
    os._exit(0)


def _limit_memory(limit_bytes: int) -> None:
    """Private memory beyond the limit is refused, which Python sees as MemoryError."""
    if limit_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _require_room(weights: Path) -> None:
    """Raise MemoryError before a library runs out of memory half-way: one of them then waits for itself for good."""
    with contextlib.suppress(OSError):
        bytearray(_ROOM_BYTES + 4 * weights.stat().st_size)


def _require_recorded_weights(checkpoint: Checkpoint) -> None:
    """A process that is started later must load what the run began with: signals carry that sha256, and no other."""
    found = sha256_of(checkpoint.weights)
    if found != checkpoint.sha256:
        raise ModelUnavailable(
            f"model {checkpoint.name!r}: {checkpoint.weights} has changed: its sha256 was {checkpoint.sha256}, and is "
            f"now {found}; put the file back, or start anew"
        )


def run(
    arguments: list[str],
    disturb: Callable[[AnswerFunction], AnswerFunction] | None = None,
    load: LoadFunction | None = None,
) -> None:
    """Serve as a process of its own. Ctrl-C at the terminal is for the parent, which tells through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main(arguments, disturb, load))


if __name__ == "__main__":
    run(sys.argv[1:])
