"""An ingest that kills itself after so many seconds: run by test_kills, as a process of its own.

Prints how long the ingest took if it was not killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from data import sifting, tables
from data.ingest import IngestRequest, ingest


def main(source: Path, catalog: Path, after_s: float, held_rows: int) -> None:
    """Ingest; with ``held_rows`` files are long that have more."""
    sifting.HELD_ROWS = held_rows
    tables._BLOCK_BYTES = 100_000
    if after_s > 0.0:
        timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    began = time.perf_counter()
    ingest(IngestRequest([source], catalog, "BTCUSDT.TEST"))
    sys.stdout.write(f"{time.perf_counter() - began}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
