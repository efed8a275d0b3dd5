"""Bars as plain arrays, and the sizes they come in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import OptionError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NANOS_PER_SECOND = 1_000_000_000

_UNITS = {"s": ("SECOND", 1), "m": ("MINUTE", 60), "h": ("HOUR", 3600), "d": ("DAY", 86_400)}


@dataclass(frozen=True, order=True)
class BarSize:
    """The length of a time bar, such as 30 minutes, in its largest whole unit."""

    seconds: int

    @classmethod
    def parse(cls, text: str) -> BarSize:
        """Read ``30m``, ``1h``, ``1d`` or ``15s``. Raises OptionError for anything else."""
        match = re.fullmatch(r"\s*([1-9]\d{0,4})\s*([smhdSHD])\s*", text)
        if match is None:
            raise OptionError(f"bar size {text!r} is not understood; write for example 1m, 30m, 1h or 1d")
        size = cls(int(match[1]) * _UNITS[match[2].lower()][1])
        if size.seconds > 86_400 or 86_400 % size.seconds:
            raise OptionError(f"bar size {text!r} does not divide a day; such bars have no fixed grid")
        return size

    @classmethod
    def from_nanos(cls, nanos: int) -> BarSize:
        """The bar size of a spacing in nanoseconds. Raises OptionError where it is no whole divisor of a day."""
        if nanos % NANOS_PER_SECOND:
            raise OptionError(f"a spacing of {nanos} ns is no whole number of seconds")
        return cls.parse(f"{nanos // NANOS_PER_SECOND}s") if nanos < 10**14 else cls.parse("2d")

    @property
    def nanos(self) -> int:
        """Length in nanoseconds."""
        return self.seconds * NANOS_PER_SECOND

    def _parts(self) -> tuple[int, str]:
        letter = next(unit for unit in "dhms" if self.seconds % _UNITS[unit][1] == 0)
        return self.seconds // _UNITS[letter][1], letter

    @property
    def nautilus(self) -> str:
        """NT's spelling, such as ``30-MINUTE``."""
        count, letter = self._parts()
        return f"{count}-{_UNITS[letter][0]}"

    def __str__(self) -> str:
        count, letter = self._parts()
        return f"{count}{letter}"


@dataclass(frozen=True)
class Bars:
    """Bars in time order. All arrays have the same length; times are nanoseconds since the epoch, UTC."""

    ts_close_ns: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.ts_close_ns)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | IntArray) -> Bars:
        return Bars(
            self.ts_close_ns[rows],
            self.open[rows],
            self.high[rows],
            self.low[rows],
            self.close[rows],
            self.volume[rows],
        )

    def columns(self) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Time and the five values, in the order in which everybody writes them."""
        return self.ts_close_ns, self.open, self.high, self.low, self.close, self.volume

    def sha256(self) -> str:
        """Digest of the contents: equal for equal bars, whatever file they came from."""
        digest = hashlib.sha256()
        for column in self.columns():
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def iso(ts_ns: int) -> str:
    """A time stamp for people, UTC."""
    return pd.Timestamp(ts_ns, unit="ns", tz="UTC").isoformat().replace("+00:00", "Z")
