"""Forecasts in memory: the least recently used leave first, and none outlives its time.

The clock is the caller's, counted in bars: inside a backtest wall-clock time means nothing, and a cache that
read it would make two equal runs differ.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CacheConfig:
    """Bounds of a :class:`ForecastCache`.

    ``max_bytes`` counts the quantiles themselves; Python adds some 300 bytes for each entry. An entry answers on
    the bar it was put and for ``ttl_bars`` bars after it; None keeps it for good.
    """

    max_entries: int = 65_536
    max_bytes: int = 64 * 1024 * 1024
    ttl_bars: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes", "ttl_bars"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} {value}: must not be negative")


class ForecastCache:
    """Quantiles by window, bounded in entries and bytes; each operation takes constant time."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self._entries: OrderedDict[bytes, tuple[int, NDArray[np.float32]]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the quantiles held."""
        return self._bytes

    def get(self, window: bytes, now_bars: int) -> NDArray[np.float32] | None:
        """The quantiles put for a window, or None if there are none or their time is over.

        An entry from a later bar than ``now_bars`` counts as too old: its clock and the caller's disagree.
        """
        entry = self._entries.get(window)
        if entry is None:
            return None
        put_bars, quantiles = entry
        if self.config.ttl_bars is not None and not 0 <= now_bars - put_bars <= self.config.ttl_bars:
            self._drop(window)
            return None
        self._entries.move_to_end(window)
        return quantiles

    def put(self, window: bytes, quantiles: NDArray[np.float32], now_bars: int) -> None:
        """Keep the quantiles of a window as the most recently used, in place of any older ones.

        The array is kept as it is, not copied. One that is larger than the byte bound is not kept.
        """
        if window in self._entries:
            self._drop(window)
        if quantiles.nbytes > self.config.max_bytes:
            return
        self._entries[window] = now_bars, quantiles
        self._bytes += quantiles.nbytes
        while len(self._entries) > self.config.max_entries or self._bytes > self.config.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, window: bytes) -> None:
        self._bytes -= self._entries.pop(window)[1].nbytes
