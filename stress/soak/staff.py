"""The processes of a soak as the one that watches sees them: started, spoken to, missed and ended."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from stress.load import interrupts_ignored
from stress.soak.config import SoakConfig
from stress.soak.messages import Begin, Failed, Ready
from stress.soak.worker import KINDS

PATIENCE_S = 10.0
START_PATIENCE_S = 180.0


class WorkerDied(Exception):
    """A worker has ended without a word; ``exit_code`` is negative for a signal."""

    def __init__(self, role: str, exit_code: int | None) -> None:
        told = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
        super().__init__(f"the {role} process died: {told}")
        self.role = role
        self.exit_code = exit_code


class WorkerFailed(Exception):
    """A worker has raised what is SAGE's own fault; ``trace`` is its traceback."""

    def __init__(self, role: str, failed: Failed) -> None:
        super().__init__(f"the {role} process failed: {failed.error}")
        self.trace = failed.trace
        self.add_note(f"In that process:\n{failed.trace}")


class Worker:
    """One worker process. What it says is taken in by a thread, so that it never waits for us.

    Parameters
    ----------
    role
        ``trading``, ``fresh`` or ``control``.
    target
        What it runs; gets the pipe and the configuration.
    config
        The soak's.
    begin
        What it begins with.
    inbox
        Where its messages go, each with the worker; None is put for its end.
    """

    def __init__(
        self,
        role: str,
        target: Callable[[Connection, SoakConfig], None],
        config: SoakConfig,
        begin: Begin,
        inbox: queue.SimpleQueue[tuple[Worker, Any]],
    ) -> None:
        self.role = role
        self.generation = begin.generation
        self.heard_at = self.began_at = time.monotonic()
        self._inbox = inbox
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: those may have no children, and the model process is one.
        self._process = context.Process(target=target, args=(theirs, config), name=f"sage-{role}", daemon=False)
        with interrupts_ignored():
            self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0
        self._exit_code: int | None = None
        self._ended = False
        self._reader = threading.Thread(target=self._read, name=f"sage-{role}-reader", daemon=True)
        self._reader.start()
        self.tell(begin)

    @property
    def exit_code(self) -> int | None:
        """Of a process that has ended."""
        if not self._ended:
            self._process.join(timeout=1.0)
            self._exit_code = self._process.exitcode
        return self._exit_code

    def tell(self, message: object) -> None:
        """Say something to it; that it is gone is heard through the inbox."""
        try:
            self._pipe.send(message)
        except OSError:
            return

    def end(self, patience_s: float = PATIENCE_S) -> None:
        """Let it end by itself for so long, then kill it. Safe to call twice."""
        if self._ended:
            return
        try:
            self.tell(None)
            self._process.join(timeout=patience_s)
        finally:
            # Whoever is told to stop while waiting leaves no process behind either.
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._exit_code = self._process.exitcode
            self._ended = True
            self._reader.join(timeout=1.0)
            self._pipe.close()
            self._process.close()

    def kill(self) -> None:
        """End it at once: it hangs, or what it does is not wanted any more."""
        if not self._ended:
            self._process.kill()
            self.end(0.0)

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                self._inbox.put((self, None))
                return
            self.heard_at = time.monotonic()
            self._inbox.put((self, message))


def raise_if_failed(worker: Worker, message: object) -> None:
    """Raise what a message says has gone wrong.

    Raises
    ------
    WorkerDied
        If there is no message but its end.
    WorkerFailed
        If it failed by SAGE's own fault.
    OptionError, DataError, ModelUnavailable, UserCodeRaised
        As it has told.
    """
    if message is None:
        raise WorkerDied(worker.role, worker.exit_code)
    if isinstance(message, Failed):
        cls = KINDS.get(message.kind)
        if cls is None:
            raise WorkerFailed(worker.role, message)
        raise cls(message.error, message.trace) if message.kind == "user" else cls(message.error)


def await_ready(worker: Worker, inbox: queue.SimpleQueue[tuple[Worker, Any]]) -> Ready:
    """Wait until a worker that was just started is ready; what others say meanwhile is left in the inbox.

    Raises as :func:`raise_if_failed`.
    """
    until = time.monotonic() + START_PATIENCE_S
    others: list[tuple[Worker, Any]] = []
    try:
        while True:
            try:
                speaker, message = inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                worker.kill()
                raise WorkerDied(worker.role, worker.exit_code) from None
            if speaker is not worker:
                others.append((speaker, message))
                continue
            raise_if_failed(worker, message)
            if isinstance(message, Ready):
                return message
    finally:
        for each in others:
            inbox.put(each)
