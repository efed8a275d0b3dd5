"""Bars as plain arrays, and the sizes they come in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
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

    @classmethod
    def from_nautilus(cls, spec: str) -> BarSize | None:
        """The size in NT's ``30-MINUTE-LAST-EXTERNAL`` and the like; None for bars that are not of time."""
        step, unit = spec.split("-")[:2]
        try:
            return cls.parse(f"{step}{unit[0].lower()}") if unit in {name for name, _ in _UNITS.values()} else None
        except OptionError:
            return None

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

    def within(self, start_ns: int, end_ns: int) -> Bars:
        """Those that close from one time to another, both included."""
        first, stop = np.searchsorted(self.ts_close_ns, (start_ns, end_ns + 1))
        return self[slice(int(first), int(stop))]

    def columns(self) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Time and the five values, in the order in which everybody writes them."""
        return self.ts_close_ns, self.open, self.high, self.low, self.close, self.volume

    def sha256(self) -> str:
        """Digest of the contents: equal for equal bars, whatever file they came from."""
        return sha256_of((self,))


class BarsDigest:
    """The digest of bars that come in parts: that of all of them, however they are parted."""

    def __init__(self) -> None:
        self._columns = [hashlib.sha256() for _ in range(6)]

    def update(self, bars: Bars) -> None:
        """Take in the next part."""
        for digest, column in zip(self._columns, bars.columns(), strict=True):
            digest.update(np.ascontiguousarray(column).data)

    def hexdigest(self) -> str:
        """Of all parts so far."""
        return hashlib.sha256(b"".join(digest.digest() for digest in self._columns)).hexdigest()


def sha256_of(parts: Iterable[Bars]) -> str:
    """The same of all parts at once."""
    digest = BarsDigest()
    for bars in parts:
        digest.update(bars)
    return digest.hexdigest()


def joined(parts: Sequence[Bars]) -> Bars:
    """Bars one behind the other."""
    if not parts:
        return Bars(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in range(5)))
    return Bars(*(np.concatenate(column) for column in zip(*(part.columns() for part in parts), strict=True)))


def iso(ts_ns: int) -> str:
    """A time stamp for people, UTC."""
    return pd.Timestamp(ts_ns, unit="ns", tz="UTC").isoformat().replace("+00:00", "Z")
