"""Readers of foreign layouts. Each recognises its own files; a file that several claim is an error.

A reader turns a :class:`~data.tables.SourceTable` into :class:`RawBars`: stamps in nanoseconds, five columns of
numbers, and the row each came from. It judges nothing; that is ``data.quality``'s part.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from data.bars import FloatArray, IntArray
from data.errors import AmbiguousSource, DataError, OptionError
from data.tables import SourceTable, open_table
from data.times import parse_times, require_time_zone

Stamp = Literal["open", "close"]

PRICE_FIELDS = ("open", "high", "low", "close")
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
        if self.layout is not None and self.layout not in LAYOUTS:
            raise OptionError(f"--layout {self.layout}: unknown; the layouts are {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class RawBars:
    """One file's rows as read, in file order.

    ``stamp_ns`` is the time as stamped (UTC) and ``wall_ns`` the same on the file's own wall clock; ``stamp`` says
    whether it is the bar's open or close. ``row`` is the row's number in the file, from 1. ``original`` keeps the
    file's own fields, for the report on rejected rows.
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


def read_source(path: Path, options: ReadOptions) -> RawBars:
    """Open, recognise and read one file.

    Raises
    ------
    DataError
        If the file cannot be read or has not the columns of bars.
    AmbiguousSource
        If it fits several layouts, or several columns fit one field.
    """
    table = open_table(path)
    layout = options.layout or _recognise(table)
    return LAYOUTS[layout].read(table, options)


def _recognise(table: SourceTable) -> str:
    candidates = [name for name, layout in LAYOUTS.items() if layout.recognises(table)]
    if len(candidates) > 1:
        raise AmbiguousSource(
            f"{table.path}: fits the layouts {' and '.join(candidates)}; say which with --layout {candidates[0]}"
        )
    # Every table that no particular layout claims is read as a plain one, or refused there with the reason.
    return candidates[0] if candidates else "ohlcv"


# --- Binance klines -----------------------------------------------------------------------------------------

_BINANCE_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip


def _is_binance(table: SourceTable) -> bool:
    frame = table.frame
    if table.kind not in {"csv", "zip", "gzip"} or frame.shape[1] != len(_BINANCE_COLUMNS):
        return False
    if table.has_header:
        names = [re.sub(r"[^a-z]+", "_", name.lower()) for name in frame.columns]
        return names[0] == "open_time" and names[6] == "close_time"
    opened = pd.to_numeric(frame.iloc[:100, 0], errors="coerce")
    closed = pd.to_numeric(frame.iloc[:100, 6], errors="coerce")
    return bool(((closed > opened) & (opened > 1e11)).mean() > 0.5)


def _read_binance(table: SourceTable, options: ReadOptions) -> RawBars:
    if table.frame.shape[1] != len(_BINANCE_COLUMNS):
        raise DataError(f"{table.path}: {table.frame.shape[1]} columns; Binance klines have {len(_BINANCE_COLUMNS)}")
    if options.stamp == "close":
        raise OptionError("--stamp close does not fit Binance klines, which are stamped at their open")
    frame = table.frame.set_axis(list(_BINANCE_COLUMNS), axis=1)
    chosen = {name: name for name in (*PRICE_FIELDS, "volume")}
    return _assemble(table, frame, {"time": "open_time", **chosen}, "binance-kline", "open", options, [])


# --- freqtrade Feather --------------------------------------------------------------------------------------

_FREQTRADE_COLUMNS = ("date", *PRICE_FIELDS, "volume")


def _is_freqtrade(table: SourceTable) -> bool:
    return table.kind == "feather" and tuple(table.frame.columns) == _FREQTRADE_COLUMNS


def _read_freqtrade(table: SourceTable, options: ReadOptions) -> RawBars:
    missing = [name for name in _FREQTRADE_COLUMNS if name not in table.frame.columns]
    if missing:
        raise DataError(f"{table.path}: no column {', '.join(missing)}; a freqtrade file has {_FREQTRADE_COLUMNS}")
    if options.stamp == "close":
        raise OptionError("--stamp close does not fit freqtrade files, which are stamped at the open")
    chosen = {"time": "date", **{name: name for name in (*PRICE_FIELDS, "volume")}}
    return _assemble(table, table.frame, chosen, "freqtrade-feather", "open", options, [])


# --- plain tables -------------------------------------------------------------------------------------------

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "time": ("time", "timestamp", "datetime", "date_time", "date", "dt", "ts", "unix", "unix_timestamp", "epoch",
             "open_time", "opentime", "close_time", "closetime", "gmt_time", "local_time", "utc_time", "time_utc",
             "utc", "index", "__index_level_0__", "bar_time", "candle_begin_time", "start_time", "end_time",
             "time_open", "time_close", "time_period_start", "time_period_end", "datetime_utc", "date_utc", "t"),
    "open": ("open", "o", "open_price", "opening", "price_open", "first"),
    "high": ("high", "h", "high_price", "max", "price_high"),
    "low": ("low", "l", "low_price", "min", "price_low"),
    "close": ("close", "c", "close_price", "closing", "price_close", "last", "close_last"),
    "volume": ("volume", "vol", "v", "tick_volume", "tickvol", "tickvolume", "base_volume", "volume_traded",
               "basevolume", "total_volume", "amount", "qty", "quantity"),
}  # fmt: skip

_CLOSE_STAMPED_NAMES = {"close_time", "closetime", "end_time", "time_close", "time_period_end"}
_OPEN_STAMPED_NAMES = {
    "open_time", "opentime", "start_time", "time_open", "time_period_start", "candle_begin_time",
}  # fmt: skip


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", name.strip().lower()).strip("_") or name


def _read_plain(table: SourceTable, options: ReadOptions) -> RawBars:
    notes: list[str] = []
    frame = table.frame
    chosen = _choose_columns(table, options, notes)
    time_name = _plain_name(chosen["time"])
    if options.stamp is not None:
        stamp: Stamp = options.stamp
    elif time_name in _CLOSE_STAMPED_NAMES:
        stamp = "close"
        notes.append(f"stamped at the close, by the name of the column {chosen['time']!r}")
    elif time_name in _OPEN_STAMPED_NAMES:
        stamp = "open"
        notes.append(f"stamped at the open, by the name of the column {chosen['time']!r}")
    else:
        stamp = "open"
        notes.append("stamps taken as the bar's OPEN, which can never show the future; --stamp close says otherwise")
    return _assemble(table, frame, chosen, "ohlcv", stamp, options, notes)


def _choose_columns(table: SourceTable, options: ReadOptions, notes: list[str]) -> dict[str, str]:
    """Map each field to one column of the file, by the options first and by name second."""
    columns = list(table.frame.columns)
    chosen = {name: _named_column(table, name, column) for name, column in options.columns.items()}
    if not table.has_header and not set(PRICE_FIELDS) <= set(chosen):
        return _positional_columns(table, notes) | chosen
    for name, synonyms in _SYNONYMS.items():
        if name in chosen:
            continue
        taken = set(chosen.values())
        found = [
            column
            for column in columns
            # Named outright, a column may serve twice: a close-only file can stand for all four prices.
            if _plain_name(column) in synonyms and (column not in taken or _plain_name(column) == name)
        ]
        exact = [column for column in found if _plain_name(column) == name]
        if name == "time":
            # pandas writes an unnamed time index as a column without a name.
            found = _date_and_time(table, found, chosen) or [c for c in columns[:1] if c in {"", "Unnamed: 0"}]
        elif exact:
            found = exact
        if name == "volume" and not found:
            found = [column for column in columns if "volume" in _plain_name(column) and column not in chosen.values()]
        if len(found) > 1:
            raise AmbiguousSource(
                f"{table.path}: the columns {' and '.join(map(repr, found))} may each be the {name}; "
                f"say which with --columns {shlex.quote(f'{name}={found[0]}')}"
            )
        if found:
            chosen[name] = found[0]
        elif name != "volume":
            raise DataError(
                f"{table.path}: no {name} column among {', '.join(map(repr, columns[:20]))}; "
                f"name it with --columns {name}=NAME"
            )
    if "volume" not in chosen:
        notes.append("no volume column: volume is recorded as 0")
    elif "volume" not in options.columns and _is_blank(table.frame[chosen["volume"]]):
        notes.append(f"the column {chosen['volume']!r} is empty: volume is recorded as 0")
        del chosen["volume"]
    return chosen


def _is_blank(column: pd.Series) -> bool:
    def blank(part: pd.Series) -> bool:
        return bool((part.isna() | (part.astype("string").str.strip() == "")).all())

    return blank(column.iloc[:100]) and blank(column)


def _named_column(table: SourceTable, name: str, column: str) -> str:
    columns = list(table.frame.columns)
    if column in columns:
        return column
    same = [candidate for candidate in columns if _plain_name(candidate) == _plain_name(column)]
    if len(same) == 1:
        return same[0]
    raise DataError(f"{table.path}: --columns {name}={column}: the file has {', '.join(map(repr, columns[:20]))}")


def _date_and_time(table: SourceTable, found: list[str], chosen: dict[str, str]) -> list[str]:
    """Recognise a date column beside one with the time of day, as MetaTrader writes them."""
    if "date" in chosen:
        return [column for column in found if column != chosen["date"]]
    names = {_plain_name(column): column for column in found}
    if {"date", "time"} <= set(names):
        of_day = table.frame[names["time"]].iloc[:100].astype("string").str.fullmatch(r"\d{1,2}:?\d{2}(:?\d{2})?")
        if bool(of_day.mean() > 0.5):
            chosen["date"] = names["date"]
            return [names["time"]]
    return found


def _positional_columns(table: SourceTable, notes: list[str]) -> dict[str, str]:
    """A file without header: time first, then open, high, low, close, if the values bear that out."""
    frame = table.frame
    of_day = frame.shape[1] > 5 and bool(
        frame.iloc[:100, 1].astype("string").str.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?").mean() > 0.5
    )
    start = 2 if of_day else 1
    if frame.shape[1] < start + 4:
        raise DataError(f"{table.path}: {frame.shape[1]} columns without header; bars need a time and four prices")
    for index in range(start, start + 4):
        _require_no_commas(frame.iloc[:1000, index], table.path, str(index))
    prices = frame.iloc[:1000, start : start + 4].apply(pd.to_numeric, errors="coerce")
    opened, high, low, close = (prices.iloc[:, index] for index in range(4))
    fits = (high >= opened) & (high >= close) & (low <= opened) & (low <= close)
    if float(fits.mean()) < 0.9:
        raise AmbiguousSource(
            f"{table.path}: no header, and columns {start} to {start + 3} are not open, high, low, close in this "
            "order. Any column may be any: name them by position, --columns time=0,open=1,high=2,low=3,close=4,volume=5"
        )
    if frame.shape[1] > start + 5:
        raise AmbiguousSource(
            f"{table.path}: no header, and any of the columns {start + 4} to {frame.shape[1] - 1} may be the volume; "
            f"say which with --columns time=0,open=1,high=2,low=3,close=4,volume={start + 4}"
        )
    notes.append("no header: columns taken in the order time, open, high, low, close, volume")
    chosen = {"time": str(start - 1)} | {name: str(start + index) for index, name in enumerate(PRICE_FIELDS)}
    if of_day:
        chosen["date"] = "0"
    if frame.shape[1] > start + 4:
        chosen["volume"] = str(start + 4)
    else:
        notes.append("no volume column: volume is recorded as 0")
    return chosen


# --- shared -------------------------------------------------------------------------------------------------


def _assemble(
    table: SourceTable,
    frame: pd.DataFrame,
    chosen: Mapping[str, str],
    layout: str,
    stamp: Stamp,
    options: ReadOptions,
    notes: list[str],
) -> RawBars:
    stamps = frame[chosen["time"]]
    label = f"column {chosen['time']!r}"
    if "date" in chosen:
        stamps = frame[chosen["date"]].astype("string").str.strip() + " " + stamps.astype("string").str.strip()
        label = f"columns {chosen['date']!r} and {chosen['time']!r}"
    times = parse_times(stamps, f"{table.path}, {label}", options.tz, options.time_format)
    values = {name: _numbers(frame[chosen[name]], table.path, chosen[name]) for name in PRICE_FIELDS}
    if options.price_scale != 1.0:
        for name in PRICE_FIELDS:
            values[name] = values[name] * options.price_scale
    values["volume"] = (
        _numbers(frame[chosen["volume"]], table.path, chosen["volume"]) if "volume" in chosen else np.zeros(len(frame))
    )
    return RawBars(
        path=table.path,
        layout=layout,
        stamp=stamp,
        stamp_ns=times.utc_ns,
        wall_ns=times.wall_ns,
        values=values,
        row=frame.index.to_numpy(dtype=np.int64),
        original=table.frame,
        broken_rows=table.broken_rows,
        notes=[f"time: {times.description}", *notes],
    )


def _numbers(column: pd.Series, path: Path, name: str) -> FloatArray:
    """A column as float64, NaN where a cell is no number. Raises DataError where most cells are none."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        # Arrow parses text to the nearest float64, and much faster than pandas, but gives up at the first bad cell.
        text = pyarrow.compute.utf8_trim_whitespace(pa.array(column, type=pa.string()))
        return np.asarray(text.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowException, TypeError):
        numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    _require_no_commas(column, path, name)
    if np.isnan(numbers).mean() > 0.5:
        example = column[np.isnan(numbers)].iloc[0]
        raise DataError(
            f"{path}: column {name!r} holds {example!r} and the like, not numbers; name the columns with --columns"
        )
    return numbers


def _require_no_commas(column: pd.Series, path: Path, name: str) -> None:
    """Raise DataError where numbers have commas, be it in a few rows: the others are those that happen to need none."""
    text = column.astype("string")
    commas = text[text.str.contains(r"\d,\d", na=False)]
    if len(commas):
        raise DataError(
            f"{path}: column {name!r} holds {commas.iloc[0]!r}; "
            "write numbers with a decimal point and without thousands separators"
        )


def _claims_nothing(table: SourceTable) -> bool:  # noqa: ARG001
    """The plain layout takes what the particular ones leave."""
    return False


@dataclass(frozen=True)
class Layout:
    """A foreign layout: how to know it, and how to read it."""

    recognises: Callable[[SourceTable], bool]
    read: Callable[[SourceTable, ReadOptions], RawBars]
    description: str


LAYOUTS: dict[str, Layout] = {
    "binance-kline": Layout(_is_binance, _read_binance, "Binance kline CSV or zip, with or without header"),
    "freqtrade-feather": Layout(_is_freqtrade, _read_freqtrade, "freqtrade's Feather candles"),
    "ohlcv": Layout(_claims_nothing, _read_plain, "any CSV, Feather or Parquet with a time and OHLC(V)"),
}
