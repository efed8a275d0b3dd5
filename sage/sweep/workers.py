"""Worker processes on this machine: spawned, recycled, and replaced when they die."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from sage.processes import THREAD_VARIABLES, end_with

Item = TypeVar("Item")
Found = TypeVar("Found")

RUNS_A_WORKER = 40
"""NautilusTrader keeps memory of every engine that a process has made, so that none makes more than these."""


@dataclass(frozen=True)
class Died:
    """A worker ended without an answer: killed, or out of memory."""

    told: str


class Workers(Protocol):
    """Who does the work of a sweep, wherever. At the end of a ``with`` block they are let go."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def count(self) -> int:
        """How many work at once."""

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[tuple[Item, Found | Died]]:
        """Do the work on each item, and give the results as they come; what the work raises is raised here."""


class LocalWorkers:
    """Spawned processes of this machine.

    Parameters
    ----------
    count
        How many.
    runs_a_worker
        After so many pieces of work a process is replaced by a new one.
    """

    def __init__(self, count: int, runs_a_worker: int = RUNS_A_WORKER) -> None:
        self.count = count
        self._runs_a_worker = runs_a_worker
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._pool is not None and self._pool.active:
            # Not stopped: a worker that has just begun would complain of what is gone.
            self._pool.close()
            self._pool.join()
        self._end()

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[tuple[Item, Found | Died]]:
        """Do the work on each item, and give the results as they come.

        No more is handed out than keeps all busy. Leaving early, by an exception or by closing the generator, kills
        what is under way. The processes stay for what comes next: it takes seconds to start one.
        """
        waiting = iter(items)
        under_way: dict[Any, Item] = {}
        try:
            while True:
                while len(under_way) < 2 * self.count and (item := next(waiting, None)) is not None:
                    under_way[self._running().schedule(work, args=[item])] = item
                if not under_way:
                    return
                # With a time limit: a wait without one cannot be interrupted everywhere.
                done, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    yield under_way.pop(future), _result(future)
        finally:
            if under_way:
                self._end()

    def _running(self) -> ProcessPool:
        """The processes; new ones where there are none, or no more."""
        if self._pool is not None and not self._pool.active:
            # Killed while it had nothing to do, a worker takes the pool with it.
            self._end()
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self.count,
                max_tasks=self._runs_a_worker,
                initializer=_begin_worker,
                initargs=[os.getpid()],
                context=multiprocessing.get_context("spawn"),
            )
        return self._pool

    def _end(self) -> None:
        """Kill what is under way."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()


def _result(future: Any) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as broken:
        return Died(f"the worker processes ended: {broken}")
    except ProcessExpired as expired:
        code = expired.exitcode
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"
        return Died(f"its worker process ended with {how}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _begin_worker(parent: int) -> None:
    end_with(parent)
    # The pool tells its workers to end when they may be about to: Python would complain of a handler that is gone.
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_DFL)
    # Results are the parent's to print: what a user's code says is a message.
    os.dup2(2, 1)
    # Runs in parallel: threads of a library's own would only be in each other's way.
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
