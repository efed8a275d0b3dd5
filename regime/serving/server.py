"""The model process: loads one checkpoint, answers one request at a time, ends with its parent.

Started by :class:`~regime.serving.client.ModelClient` as ``python -m regime.serving.server``; the checkpoint comes as
JSON on the command line, the pipe and the memory block as inherited file descriptors.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineSpec, load_engine
from regime.model.weights import load_weights
from regime.serving.protocol import Block, Reply, Request, Status


def main(arguments: list[str]) -> int:
    """Serve until the parent closes the pipe or is gone."""
    spec = json.loads(arguments[0])
    pipe = Connection(spec["pipe"])
    block = Block(spec["block"])
    threading.Thread(target=_end_with_parent, args=(spec["parent"],), daemon=True).start()
    checkpoint = Checkpoint(spec["name"], Path(spec["weights"]), spec["sha256"], spec["hyper_parameters"])
    started = time.perf_counter()
    try:
        model, choice = load_engine(load_weights(checkpoint), EngineSpec(**spec["engine"]))
    except (ModelUnavailable, MemoryError) as error:
        pipe.send_bytes(json.dumps({"error": str(error) or "not enough memory to load the model"}).encode())
        return 1
    ready = {
        "engine": choice.name,
        "note": choice.note,
        "context_bars": model.architecture.context_bars,
        "load_s": time.perf_counter() - started,
    }
    pipe.send_bytes(json.dumps(ready).encode())
    while True:
        try:
            request = Request.unpack(pipe.recv_bytes())
        except (EOFError, OSError):
            return 0
        try:
            contexts = block.contexts(request.rows, request.context_bars)
            block.answers(request.rows, request.horizon_bars)[:] = model.forecast(contexts, request.horizon_bars)
            reply = Reply(request.sequence, Status.OK)
        except MemoryError as error:
            reply = Reply(request.sequence, Status.OUT_OF_MEMORY, str(error))
        except ValueError as error:
            reply = Reply(request.sequence, Status.ERROR, str(error))
        except Exception as error:  # whatever torch raises is for the parent to record
            reply = Reply(request.sequence, Status.ERROR, repr(error))
        try:
            pipe.send_bytes(reply.pack())
        except OSError:
            return 0


def _end_with_parent(parent: int) -> None:
    """A closed pipe ends an idle server; this ends one that is in the middle of a forecast."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    # A parent that gives up tells so through the pipe; Ctrl-C at the terminal is the parent's to handle.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main(sys.argv[1:]))
