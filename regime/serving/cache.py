"""Forecasts made ahead of a run, in batches, and looked up by the window they were made for.

A forecast depends on its window alone, and a window on past bars alone: the contexts are cut by the same
:class:`~regime.window.BarWindow` that the detector uses, bar after bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.errors import ForecastFailed
from regime.forecast import Context, Forecaster, window_key
from regime.window import BarInput, BarWindow

BATCH_ROWS = 128
"""Every batch has this many rows, the last one padded: a row's rounding then never depends on how many others
the data happened to bring along, and cutting the future off changes no digit of the past."""


class ForecastStore:
    """Forecasts in memory, by window."""

    def __init__(self, checkpoint_id: str) -> None:
        self.checkpoint_id = checkpoint_id
        self._forecasts: dict[bytes, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._forecasts)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The quantiles for a window, shape (horizon_bars, 9), or None."""
        return self._forecasts.get(key)

    def put(self, key: bytes, quantiles: NDArray[np.float32]) -> None:
        """Keep the quantiles of a window."""
        self._forecasts[key] = quantiles


def contexts(bars: Iterable[BarInput], config: RegimeConfig, bar_seconds: int) -> Iterator[Context]:
    """The contexts that a detector will ask for on these bars, in order; each shape (context_bars,)."""
    window = BarWindow(config, bar_seconds)
    for bar in bars:
        if window.accept(bar) is None and window.model_ready:
            yield window.context()


def forecast_ahead(
    bars: Iterable[BarInput],
    config: RegimeConfig,
    bar_seconds: int,
    forecaster: Forecaster,
    on_progress: Callable[[int], None] | None = None,
) -> ForecastStore:
    """Forecast every window of these bars, in batches. Windows whose batch fails are left out.

    ``on_progress`` is called with the number of windows just done.
    """
    store = ForecastStore(forecaster.checkpoint_id)
    batch: list[Context] = []

    def flush() -> None:
        rows = len(batch)
        padded = np.stack(batch + [batch[-1]] * (BATCH_ROWS - rows))
        try:
            quantiles = forecaster.forecast(padded, config.horizon_bars, config.hang_limit_s)
        except ForecastFailed:
            # The detector meets these windows again and asks the model itself; a lasting failure shows there.
            quantiles = None
        if quantiles is not None:
            for context, answer in zip(batch, quantiles[:rows], strict=True):
                store.put(window_key(context), np.ascontiguousarray(answer))
        if on_progress is not None:
            on_progress(rows)
        batch.clear()

    for context in contexts(bars, config, bar_seconds):
        batch.append(context)
        if len(batch) == BATCH_ROWS:
            flush()
    if batch:
        flush()
    return store
