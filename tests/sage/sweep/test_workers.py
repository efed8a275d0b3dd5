"""Workers of this machine begin and end quietly."""

from __future__ import annotations

import signal
import subprocess
import sys

ENDING = """
import atexit, os, signal, sys
from sage.sweep.workers import _begin_worker
atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # runs last: as late as the pool may tell it to end
signal.signal(signal.SIGTERM, lambda *_: print("heard", file=sys.stderr))
_begin_worker(os.getppid())
"""


def test_a_worker_that_is_told_to_end_while_it_does_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
