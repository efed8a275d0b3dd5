"""Any table with a time and prices, by the names of its columns, or by their places where it has no header."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable

import pandas as pd

from data.errors import AmbiguousSource, DataError
from data.reading import PRICE_FIELDS, Reading, ReadOptions, Stamp, require_no_commas
from data.tables import SourceTable, open_tables

NAME = "ohlcv"
DESCRIPTION = "any CSV, Feather, Arrow or Parquet file with a time and open, high, low, close, or a close alone"

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

_INSTRUMENT_NAMES = {"symbol", "ticker", "name", "pair", "instrument"}
_NAMES_SHOWN = 6

_CLOSE_STAMPED_NAMES = {"close_time", "closetime", "end_time", "time_close", "time_period_end"}
_OPEN_STAMPED_NAMES = {
    "open_time", "opentime", "start_time", "time_open", "time_period_start", "candle_begin_time",
}  # fmt: skip


def plain_name(name: str) -> str:
    """A column's name without what vendors put around it."""
    return re.sub(r"[^a-z0-9_]+", "_", name.strip().lower()).strip("_") or name


def recognises(table: SourceTable) -> bool:  # noqa: ARG001
    """Takes what the particular layouts leave."""
    return False


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Choose columns, and how they are stamped.

    Raises
    ------
    DataError
        If there is no time, or no close.
    AmbiguousSource
        If several columns may each be the same field; and as rows are read, if they are of several instruments.
    """
    notes: list[str] = []
    chosen = _choose_columns(table, options, notes)
    time_name = plain_name(chosen["time"])
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
    return Reading(
        NAME, chosen, stamp, options.tz, options.time_format, options.price_scale, tuple(notes),
        prepared=_of_one_instrument([name for name in table.frame.columns if name not in chosen.values()]),
    )  # fmt: skip


def _of_one_instrument(unused: list[str]) -> Callable[[SourceTable], pd.DataFrame]:
    """Hands the parts of a file on as they are, and raises AmbiguousSource once they name a second instrument."""
    seen: dict[str, dict[str, None]] = {name: {} for name in unused if plain_name(name) in _INSTRUMENT_NAMES}

    def prepared(rows: SourceTable) -> pd.DataFrame:
        for column, known in seen.items():
            named = (text.strip() for text in rows.frame[column].astype("string").dropna().unique())
            # Files put one behind the other repeat their header.
            known |= dict.fromkeys(text for text in named if text not in {"", column})
            if len(known) > 1:
                shown = ", ".join([*known][:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
                raise AmbiguousSource(
                    f"{rows.path}: the column {column!r} names several instruments ({shown}); bars are of one, so give "
                    "the rows of each a file of their own"
                )
        return rows.frame

    return prepared


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
            if plain_name(column) in synonyms and (column not in taken or plain_name(column) == name)
        ]
        exact = [column for column in found if plain_name(column) == name]
        if name == "time":
            # pandas writes an unnamed time index as a column without a name.
            found = _date_and_time(table, found, chosen) or [c for c in columns[:1] if c in {"", "Unnamed: 0"}]
        elif exact:
            found = exact
        if name == "volume" and not found:
            found = [column for column in columns if "volume" in plain_name(column) and column not in chosen.values()]
        if len(found) > 1:
            raise AmbiguousSource(
                f"{table.path}: the columns {' and '.join(map(repr, found))} may each be the {name}; "
                f"say which with --columns {shlex.quote(f'{name}={found[0]}')}"
            )
        if found:
            chosen[name] = found[0]
        elif name in _BUT_CLOSE and _has_close_alone(table, options):
            continue
        elif name != "volume":
            raise DataError(
                f"{table.path}: no {name} column among {', '.join(map(repr, columns[:20]))}; "
                f"name it with --columns {name}=NAME"
            )
    if "open" not in chosen:
        chosen |= dict.fromkeys(_BUT_CLOSE, chosen["close"])
        notes.append("closes alone: open, high and low are the close")
    if "volume" not in chosen:
        notes.append("no volume column: volume is recorded as 0")
    elif "volume" not in options.columns and _is_blank_throughout(table, chosen["volume"]):
        notes.append(f"the column {chosen['volume']!r} is empty: volume is recorded as 0")
        del chosen["volume"]
    return chosen


def _is_blank_throughout(table: SourceTable, name: str) -> bool:
    """Whether a column is empty in all of the file; where it begins so it is read once more, for this is but a part."""
    if not _is_blank(table.frame[name]):
        return False
    with contextlib.closing(open_tables(table.path)) as parts:
        return all(_is_blank(part.frame[name]) for part in parts)


def _is_blank(column: pd.Series) -> bool:
    def blank(part: pd.Series) -> bool:
        return bool((part.isna() | (part.astype("string").str.strip() == "")).all())

    return blank(column.iloc[:100]) and blank(column)


def _named_column(table: SourceTable, name: str, column: str) -> str:
    columns = list(table.frame.columns)
    if column in columns:
        return column
    same = [candidate for candidate in columns if plain_name(candidate) == plain_name(column)]
    if len(same) == 1:
        return same[0]
    raise DataError(f"{table.path}: --columns {name}={column}: the file has {', '.join(map(repr, columns[:20]))}")


def _date_and_time(table: SourceTable, found: list[str], chosen: dict[str, str]) -> list[str]:
    """Recognise a date column beside one with the time of day, as MetaTrader writes them."""
    if "date" in chosen:
        return [column for column in found if column != chosen["date"]]
    names = {plain_name(column): column for column in found}
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
        require_no_commas(frame.iloc[:1000, index], table.path, str(index))
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


_BUT_CLOSE = ("open", "high", "low")


def _has_close_alone(table: SourceTable, options: ReadOptions) -> bool:
    """Whether none of open, high and low is there, by name or by option, and a close is."""
    named = {plain_name(column) for column in table.frame.columns}
    there = {name for name in PRICE_FIELDS if name in options.columns or named & set(_SYNONYMS[name])}
    return there == {"close"}
