"""A foreign table turned into bars: which column is what, how times and prices are written, and what comes of it.

It judges nothing; that is ``data.quality``'s part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from data.bars import FloatArray, IntArray
from data.errors import DataError, OptionError
from data.tables import SourceTable
from data.times import parse_times, require_time_zone

Stamp = Literal["open", "close"]

PRICE_FIELDS = ("open", "high", "low", "close")
_SAMPLE_ROWS = 1_000
FIELDS = ("time", "date", *PRICE_FIELDS, "volume")


@dataclass(frozen=True)
class ReadOptions:
    """How to read a plain table; None leaves the choice to detection.

    ``columns`` maps any of ``time date open high low close volume`` to a column name, or to its position from 0
    in a file without header. ``date`` is for files with date and time of day in two columns.
    """

    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    stamp: Stamp | None = None
    tz: str | None = None
    time_format: str | None = None
    price_scale: float = 1.0

    def __post_init__(self) -> None:
        unknown = set(self.columns) - set(FIELDS)
        if unknown:
            raise OptionError(f"--columns: {', '.join(sorted(unknown))} is unknown; the fields are {', '.join(FIELDS)}")
        if not (np.isfinite(self.price_scale) and self.price_scale > 0):
            raise OptionError(f"--price-scale {self.price_scale}: must be a positive number")
        if self.tz is not None:
            require_time_zone(self.tz)


@dataclass(frozen=True)
class RawBars:
    """Rows of one file as read, in file order; a long file comes in several parts.

    ``stamp_ns`` is the time as stamped (UTC) and ``wall_ns`` the same on the file's own wall clock; ``stamp`` says
    whether it is the bar's open or close. ``row`` is the row's number in the file, from 1. ``original`` keeps the
    file's own fields, for the report on rejected rows. ``time_form`` says how times were read,
    ``time_sample`` are the first of them as they were written, ``zone`` is that of the file's clock, where it is known
    and not UTC; ``share`` is how much of the file has been read with these rows.
    """

    path: Path
    layout: str
    stamp: Stamp
    stamp_ns: IntArray
    wall_ns: IntArray
    values: dict[str, FloatArray]
    row: IntArray
    original: pd.DataFrame
    broken_rows: list[tuple[int, str]]
    notes: list[str]
    time_form: str = ""
    time_sample: pd.Series = field(default_factory=lambda: pd.Series(dtype=object))
    zone: str | None = None
    share: float = 1.0


def together(parts: list[RawBars]) -> RawBars:
    """Consecutive parts of one file as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return dataclasses.replace(
        first,
        stamp_ns=np.concatenate([part.stamp_ns for part in parts]),
        wall_ns=np.concatenate([part.wall_ns for part in parts]),
        values={name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        row=np.concatenate([part.row for part in parts]),
        original=pd.concat([part.original for part in parts], ignore_index=True),
        broken_rows=[row for part in parts for row in part.broken_rows],
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        share=parts[-1].share,
    )


@dataclass(frozen=True)
class Reading:
    """How one file is to be read.

    ``columns`` maps fields to columns of the table; without ``volume`` there is none. ``tz`` and ``time_format`` are as
    in the options. Prices are multiplied by ``price_scale``. ``prepared`` turns the table into one that has these
    columns, where it does not.
    """

    layout: str
    columns: Mapping[str, str]
    stamp: Stamp
    tz: str | None = None
    time_format: str | None = None
    price_scale: float = 1.0
    notes: tuple[str, ...] = ()
    prepared: Callable[[SourceTable], pd.DataFrame] | None = None


def read(table: SourceTable, reading: Reading, before: RawBars | None = None) -> RawBars:
    """Read rows as it is told; ``before`` are earlier rows of the same file, whose times are written alike.

    Raises
    ------
    DataError
        Where its columns hold no times or no numbers.
    """
    chosen = reading.columns
    frame = table.frame if reading.prepared is None else reading.prepared(table)
    stamps = frame[chosen["time"]]
    label = f"column {chosen['time']!r}"
    if "date" in chosen:
        stamps = frame[chosen["date"]].astype("string").str.strip() + " " + stamps.astype("string").str.strip()
        label = f"columns {chosen['date']!r} and {chosen['time']!r}"
    form = None if before is None else before.time_form
    sample = stamps.iloc[:_SAMPLE_ROWS] if before is None else before.time_sample
    # The last rows of a file may be few, or no bars at all: how times are written is told by its beginning.
    lead = len(sample) if before is not None and len(stamps) < len(sample) else 0
    written = pd.concat([sample, stamps]) if lead else stamps
    times = parse_times(written, f"{table.path}, {label}", reading.tz, reading.time_format, form).since(lead)
    first = before is None
    values = {name: _numbers(frame[chosen[name]], table.path, chosen[name], first) for name in PRICE_FIELDS}
    if reading.price_scale != 1.0:
        for name in PRICE_FIELDS:
            values[name] = values[name] * reading.price_scale
    values["volume"] = (
        _numbers(frame[chosen["volume"]], table.path, chosen["volume"], first)
        if "volume" in chosen
        else np.zeros(len(frame))
    )
    return RawBars(
        path=table.path,
        layout=reading.layout,
        stamp=reading.stamp,
        stamp_ns=times.utc_ns,
        wall_ns=times.wall_ns,
        values=values,
        row=frame.index.to_numpy(dtype=np.int64),
        original=table.frame,
        broken_rows=table.broken_rows,
        notes=[f"time: {times.description}", *reading.notes],
        time_form=times.description,
        time_sample=sample,
        zone=times.zone,
        share=table.share,
    )


def _numbers(column: pd.Series, path: Path, name: str, first: bool) -> FloatArray:
    """A column as float64, NaN where a cell is no number. Raises DataError where most of the first cells are none."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        # Arrow parses text to the nearest float64, and much faster than pandas, but gives up at the first bad cell.
        text = pa.array(column, type=pa.string())
        try:
            cast = text.cast(pa.float64())
        except pa.ArrowInvalid:
            cast = pyarrow.compute.utf8_trim_whitespace(text).cast(pa.float64())
        return np.asarray(cast.to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowException, TypeError):
        numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    require_no_commas(column, path, name)
    if not first:
        return numbers
    # Empty cells tell nothing: a column may begin with many of them.
    filled = (column.notna() & (column.astype("string").str.strip() != "")).to_numpy(dtype=bool, na_value=False)
    strange = filled & np.isnan(numbers)
    if strange.sum() * 2 > filled.sum():
        example = str(column[strange].iloc[0])[:60]
        raise DataError(
            f"{path}: column {name!r} holds {example!r} and the like, not numbers; name the columns with --columns"
        )
    return numbers


def require_no_commas(column: pd.Series, path: Path, name: str) -> None:
    """Raise DataError where numbers have commas, be it in a few rows: the others are those that happen to need none."""
    text = column.astype("string")
    commas = text[text.str.contains(r"\d,\d", na=False)]
    if len(commas):
        raise DataError(
            f"{path}: column {name!r} holds {commas.iloc[0]!r}; "
            "write numbers with a decimal point and without thousands separators"
        )
