"""Ingests that kill themselves after so many seconds: run by test_kills, as a process of its own.

Each is a copy of this process, which has everything imported, and has started no thread. Printed is a line for each:
how long it took, or minus the signal or status that ended it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

from data import sifting, tables
from data.ingest import IngestRequest, ingest


def main(source: Path, held_rows: int, catalogs: list[Path], after_s: list[float]) -> None:
    """Ingest into one catalog after the other; with ``held_rows`` files are long that have more."""
    sifting.HELD_ROWS = held_rows
    tables._BLOCK_BYTES = 100_000
    for catalog, seconds in zip(catalogs, after_s, strict=True):
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            one(source, catalog, seconds)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{-abs(ended) or time.perf_counter() - began}\n")


def one(source: Path, catalog: Path, after_s: float) -> NoReturn:
    """Ingest, and end the process."""
    if after_s > 0.0:
        timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    try:
        ingest(IngestRequest([source], catalog, "BTCUSDT.TEST"))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), list(map(Path, sys.argv[3::2])), list(map(float, sys.argv[4::2])))
