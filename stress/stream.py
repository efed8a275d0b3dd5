"""Bars without end, for runs that judge time and memory rather than history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from data.synthetic import SyntheticConfig, simulate
from regime.window import BarInput

_LAP_BARS = 4_000


def endless_bars(seed: int, bar_seconds: int = 3600) -> Iterator[BarInput]:
    """The simulated regime-switching market, lap after lap: each continues the last one's time and price."""
    config = SyntheticConfig(bars=_LAP_BARS, bar_seconds=bar_seconds)
    price, shift_ns, lap = config.start_price, 0, 0
    while True:
        bars = simulate(dataclasses.replace(config, seed=seed + lap, start_price=price)).bars
        for row in zip(*(column.tolist() for column in bars.columns()), strict=True):
            yield BarInput(row[0] + shift_ns, *row[1:])
        price, lap = float(bars.close[-1]), lap + 1
        shift_ns += _LAP_BARS * bar_seconds * 1_000_000_000
