"""Traces that ``tests.stress.soak.recorder`` took of real processes; a minute of theirs is an hour here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stress.soak.pieces import Trace
from tests.stress.soak.recorder import PAGE

BARS_BETWEEN_SAMPLES = {"backtests": 200.0}


def recorded(kind: str) -> Trace:
    with np.load(Path(__file__).parent / f"{kind}.npz") as arrays:
        hours = np.cumsum(arrays["milliseconds"], dtype=np.float64) / 60_000.0
        memory = np.cumsum(arrays["pages"], dtype=np.float64) * PAGE / 2**20
        phase = arrays["phase"].astype(np.int64)
    bars = np.arange(len(hours)) * BARS_BETWEEN_SAMPLES.get(kind, 100.0)
    return Trace(hours, bars, memory, phase, np.zeros(len(hours), dtype=np.int64))
