"""Forecasts made ahead of a run, in batches, and looked up by the window they were made for.

A forecast depends on its window alone, and a window on past bars alone: the contexts are cut by the same
:class:`~regime.window.BarWindow` that the detector uses, bar after bar.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.errors import ForecastFailed, StoreError
from regime.forecast import Context, Forecaster, window_key
from regime.serving.store import ForecastStore
from regime.window import BarInput, BarWindow

BATCH_ROWS = 128
"""Every batch has this many rows, the last one padded, and is computed whole if one of its rows is missing: where an
engine's rounding depends on the shape of a batch, a row then has one answer, whatever else is asked or kept."""


KEEP_ROWS = 1024
"""Forecasts go to the store so many at a time: few files to open again, and not much lost to a kill."""


class AheadForecasts:
    """The forecasts of a run: those that a store keeps, and those that it could not take.

    ``made`` counts the forecasts computed for this run, ``error`` says why the store takes no more, if it does not.
    """

    def __init__(self, checkpoint_id: str, store: ForecastStore | None) -> None:
        self.checkpoint_id = checkpoint_id
        self.made = 0
        self.error = ""
        self._store = store
        self._own: dict[bytes, NDArray[np.float32]] = {}
        self._unkept: list[bytes] = []

    def __len__(self) -> int:
        return len(self._own) + (len(self._store) if self._store is not None else 0)

    def __contains__(self, window: bytes) -> bool:
        return window in self._own or (self._store is not None and window in self._store)

    def get(self, window: bytes) -> NDArray[np.float32] | None:
        """The quantiles for a window, shape (horizon_bars, 9), or None."""
        own = self._own.get(window)
        if own is None and self._store is not None:
            return self._store.get(window)
        return own

    def put_many(self, windows: list[bytes], quantiles: NDArray[np.float32]) -> None:
        """Take in forecasts of shape (len(windows), horizon_bars, 9); they reach the store some at a time."""
        self.made += len(windows)
        self._own.update(zip(windows, map(np.ascontiguousarray, quantiles), strict=True))
        self._unkept += windows
        if len(self._unkept) >= KEEP_ROWS:
            self.keep()

    def keep(self) -> None:
        """Write what was taken in since the last time, as long as the store can be written."""
        unkept, self._unkept = self._unkept, []
        if self._store is None or self.error or not unkept:
            return
        try:
            self._store.put_many(unkept, np.stack([self._own[window] for window in unkept]))
        except StoreError as error:
            # A full disk costs the next run its time, not this one its forecasts.
            self.error = str(error)
            return
        for window in unkept:
            if window in self._store:
                self._own.pop(window, None)


@dataclass(frozen=True)
class Share:
    """One of ``parts`` shares of the forecasts that some bars need, from 0: whoever makes them shares the work."""

    part: int = 0
    parts: int = 1

    def rows(self, bars: int) -> tuple[int, int]:
        """First and last context, not included, of this share of so many bars'; cut where a batch ends."""
        batches = -(-bars // BATCH_ROWS)
        first, stop = (batches * part // self.parts * BATCH_ROWS for part in (self.part, self.part + 1))
        return first, stop


ALL = Share()


def contexts(bars: Sequence[BarInput], config: RegimeConfig, bar_seconds: int, share: Share = ALL) -> Iterator[Context]:
    """The contexts that a detector will ask for on these bars, in order; each shape (context_bars,)."""
    window = BarWindow(config, bar_seconds)
    ready = (window for bar in bars if window.accept(bar) is None and window.model_ready)
    for ready_window in itertools.islice(ready, *share.rows(len(bars))):
        yield ready_window.context()


def missing_windows(
    bars: Sequence[BarInput], config: RegimeConfig, bar_seconds: int, known: AheadForecasts, share: Share = ALL
) -> tuple[int, int]:
    """How many of the forecasts that a detector will ask for are missing, and how many there are in all."""
    missing = total = 0
    for context in contexts(bars, config, bar_seconds, share):
        total += 1
        # Read, not only looked up: a damaged part shows now, while what it held can still be made ahead.
        missing += known.get(window_key(context)) is None
    return missing, total


def forecast_ahead(
    bars: Sequence[BarInput],
    config: RegimeConfig,
    bar_seconds: int,
    forecaster: Forecaster,
    known: AheadForecasts,
    on_progress: Callable[[int], None] | None = None,
    share: Share = ALL,
) -> None:
    """Add what is missing of these bars' forecasts, in batches. Windows whose batch fails are left out.

    They are kept as they come: what interrupts the run costs the last ``KEEP_ROWS`` at most, and those only if the
    process is killed. ``on_progress`` is called with the number of windows just done.
    """
    batch: list[Context] = []

    def flush() -> None:
        rows = len(batch)
        # Two bars may have the same window, as in a market that repeats itself.
        keys = {window_key(context): row for row, context in enumerate(batch)}
        missing = {key: row for key, row in keys.items() if key not in known}
        if missing:
            padded = np.stack(batch + [batch[-1]] * (BATCH_ROWS - rows))
            try:
                quantiles = forecaster.forecast(padded, config.horizon_bars, config.hang_limit_s)
                known.put_many(list(missing), quantiles[list(missing.values())])
            except ForecastFailed:
                # The detector meets these windows again and asks the model itself; a lasting failure shows there.
                pass
        if on_progress is not None:
            on_progress(rows)
        batch.clear()

    try:
        for context in contexts(bars, config, bar_seconds, share):
            batch.append(context)
            if len(batch) == BATCH_ROWS:
                flush()
        if batch:
            flush()
    finally:
        known.keep()
