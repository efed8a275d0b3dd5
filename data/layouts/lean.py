"""QuantConnect LEAN's zips of equities: no header, prices times 10,000, New York time.

Hours and days are one CSV with ``YYYYMMDD HH:mm``; minutes and seconds are a zip for each day, whose name tells the
date, with milliseconds since midnight.
"""

from __future__ import annotations

import re

import pandas as pd

from data.errors import AmbiguousSource, DataError, OptionError
from data.reading import PRICE_FIELDS, Reading, ReadOptions
from data.tables import SourceTable

NAME = "lean-equity"
DESCRIPTION = "QuantConnect LEAN equity zips: hours, days, and minutes by day"

PRICE_SCALE = 1e-4
TIME_ZONE = "America/New_York"

_COLUMNS = ("time", *PRICE_FIELDS, "volume")
_STAMP = r"\d{8} \d{2}:\d{2}"
_DAY_NAME = r"(\d{8})_(trade|quote)"
_DAY_MS = 86_400_000
_LARGE = r"\d{4,}"
"""Of prices times 10,000, those from ten cents on."""


def recognises(table: SourceTable) -> bool:
    """By the form of its first column, or the name of a day's zip; and by prices that are all whole numbers.

    Raises
    ------
    AmbiguousSource
        If most of these have too few digits to be sure of it: a share of a few cents, or one that has no cents.
    """
    frame = table.frame
    if table.kind != "zip" or table.has_header or frame.shape[1] not in {6, 11}:
        return False
    head = frame.iloc[:100].astype("string")
    of_day = re.fullmatch(_DAY_NAME, table.path.stem) is not None
    if not bool(head[head.columns[0]].str.fullmatch(r"\d{1,8}" if of_day else _STAMP).all()):
        return False
    prices = head.iloc[:, 1:5].stack()
    if not bool(prices.str.fullmatch(r"\d+").all()):
        return False
    if not of_day and prices.str.fullmatch(_LARGE).mean() <= 0.5:
        raise AmbiguousSource(
            f"{table.path}: whole numbers such as {prices.iloc[0]} may be prices, or LEAN's, which are 10,000 times as "
            f"high; say which with --layout ohlcv or --layout {NAME}"
        )
    return True


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Prices divided by 10,000, stamps at the open in New York time; options say otherwise.

    Raises
    ------
    DataError
        If it has not the columns, or holds quotes.
    OptionError
        For a stamp at the close.
    """
    day = re.fullmatch(_DAY_NAME, table.path.stem)
    if day is not None and day[2] == "quote":
        raise DataError(f"{table.path}: LEAN quotes, bid and ask beside each other; give the zip of trades")
    if table.has_header:
        raise DataError(f"{table.path}: names its columns, which LEAN's bars do not")
    if table.frame.shape[1] != len(_COLUMNS):
        raise DataError(f"{table.path}: {table.frame.shape[1]} columns; LEAN's trade bars have {len(_COLUMNS)}")
    if day is not None and pd.isna(pd.to_datetime(day[1], format="%Y%m%d", errors="coerce")):
        raise DataError(f"{table.path}: its name tells no day; LEAN's zips of a day are named YYYYMMDD_trade.zip")
    if options.stamp == "close":
        raise OptionError("--stamp close does not fit LEAN files, which are stamped at the open")
    scale = PRICE_SCALE if options.price_scale == 1.0 else options.price_scale
    zone = options.tz or TIME_ZONE

    def prepared(rows: SourceTable) -> pd.DataFrame:
        named = rows.frame.set_axis(list(_COLUMNS), axis=1)
        if day is None:
            return named
        # Of a wall clock: the day may have an hour more or less behind it.
        milliseconds = pd.to_numeric(named["time"], errors="coerce")
        milliseconds = milliseconds.where((milliseconds >= 0) & (milliseconds < _DAY_MS))
        return named.assign(time=pd.Timestamp(day[1]) + pd.to_timedelta(milliseconds, unit="ms"))

    chosen = {name: name for name in _COLUMNS}
    notes = (f"LEAN: prices times {scale:g}, times of {zone}; --layout ohlcv reads them as they are written",)
    return Reading(NAME, chosen, "open", zone, options.time_format, scale, notes, prepared)
