"""Bars as a series of log returns, and the bars at which a forecast can be made and judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.bars import Bars
from regime.config import RegimeConfig
from regime.season import slot_of
from regime.window import BarInput, BarWindow

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """The bars that the detector's own window accepts; every array has shape (bars,).

    ``returns`` are log returns, NaN at the first bar of a run: one begins after a gap beyond ``max_gap_bars`` plus
    the time for which the market may be closed. ``shown`` are those that the model sees, without the season of the
    day, and ``outlook``, shape (bars, horizon_bars), gives it back to what it forecasts. ``usable`` counts the bars
    of the run so far, and ``ready`` says whether the model may be asked.
    """

    ts_ns: IntArray
    returns: FloatArray
    shown: FloatArray
    outlook: FloatArray
    usable: IntArray
    ready: NDArray[np.bool_]

    @classmethod
    def of(cls, bars: Bars, regime: RegimeConfig, bar_seconds: int) -> Series:
        """Drive the window over all bars."""
        window = BarWindow(regime, bar_seconds)
        rows: list[tuple[int, float, float, int, bool]] = []
        outlook: list[FloatArray] = []
        for values in zip(*(column.tolist() for column in bars.columns()), strict=True):
            if window.accept(BarInput(*values)) is not None:
                continue
            change = shown = math.nan
            if not window.restarted_now:
                change, shown = float(window.returns.view(1)[0]), float(window.shown.view(1)[0])
            rows.append((values[0], change, shown, window.usable_bars, window.model_ready))
            outlook.append(window.outlook())
        columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
        return cls(
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=np.float64),
            np.array(columns[2], dtype=np.float64),
            np.array(outlook).reshape(len(rows), regime.horizon_bars),
            np.array(columns[3], dtype=np.int64),
            np.array(columns[4], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.ts_ns)

    @property
    def in_run(self) -> NDArray[np.bool_]:
        """Where the return is known."""
        return np.isfinite(self.returns)

    @property
    def known(self) -> IntArray:
        """Returns known at each bar, its own included."""
        return np.cumsum(self.in_run)

    def origins(self, warm_up_bars: int, horizon_bars: int, newest: int) -> tuple[IntArray, int]:
        """Bars at which a forecast is made, the ``newest`` of them, and how many in between are left out.

        A bar is left out where the horizon runs into a gap that ends the run, or where the window is too short or
        still since the last one.
        """
        last = len(self) - horizon_bars
        if last <= 0:
            return np.array([], dtype=np.int64), 0
        whole = self.usable[horizon_bars:] == self.usable[:last] + horizon_bars
        fit = np.flatnonzero(whole & self.ready[:last] & (self.known[:last] >= warm_up_bars))[-newest:]
        left_out = int(last - fit[0] - len(fit)) if len(fit) else 0
        return fit.astype(np.int64), left_out

    def contexts(self, origins: IntArray, context_bars: int, *, seasonal: bool = True) -> NDArray[np.float32]:
        """What the model is shown at each origin: shape (rows, context_bars), oldest first, NaN before the run.

        Without ``seasonal``, the returns as they are.
        """
        padded = np.concatenate([np.full(context_bars, np.nan), self.shown if seasonal else self.returns])
        shown = np.lib.stride_tricks.sliding_window_view(padded, context_bars)[origins + 1].astype(np.float32)
        age = np.arange(context_bars)[::-1]
        shown[age[None, :] >= (self.usable[origins] - 1)[:, None]] = np.nan
        return shown

    def outcomes(self, origins: IntArray, horizon_bars: int) -> FloatArray:
        """The log returns that followed, shape (rows, horizon_bars)."""
        return np.asarray(self.returns[origins[:, None] + np.arange(1, horizon_bars + 1)])


def season_slots(ts_ns: IntArray, bar_seconds: int) -> IntArray:
    """Each bar's place in the day, shape (bars,); see :func:`regime.season.slot_of`."""
    before = [None, *ts_ns.tolist()[:-1]]
    return np.array(
        [slot_of(ts, last, bar_seconds) for ts, last in zip(ts_ns.tolist(), before, strict=True)], dtype=np.int64
    )
