"""Background load: processes that keep a core busy each, and end with whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Looks up now and then, so that nothing is left spinning when its parent is killed.
_SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(100_000): pass\n"


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started within let Ctrl-C pass, which goes to all of a terminal: who started them decides.

    In a thread other than the main one nothing can be done about it, and nothing is.
    """
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep ``count`` cores busy, as far as the scheduler lets them, while the context lasts."""
    with interrupts_ignored():
        spinning = [subprocess.Popen([sys.executable, "-S", "-c", _SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
