"""Binance's klines: twelve columns, with a header for futures and without one for the spot market."""

from __future__ import annotations

import re

import pandas as pd

from data.errors import DataError, OptionError
from data.reading import PRICE_FIELDS, Reading, ReadOptions
from data.tables import SourceTable

NAME = "binance-kline"
DESCRIPTION = "Binance kline CSV or zip, with or without header"

_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip


def recognises(table: SourceTable) -> bool:
    """By the number of columns, their names, or an open and a close time in the right places."""
    frame = table.frame
    if table.kind not in {"csv", "zip", "gzip"} or frame.shape[1] != len(_COLUMNS):
        return False
    if table.has_header:
        names = [re.sub(r"[^a-z]+", "_", name.lower()) for name in frame.columns]
        return names[0] == "open_time" and names[6] == "close_time"
    opened = pd.to_numeric(frame.iloc[:100, 0], errors="coerce")
    closed = pd.to_numeric(frame.iloc[:100, 6], errors="coerce")
    return bool(((closed > opened) & (opened > 1e11)).mean() > 0.5)


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Epochs in ms or µs, told apart by their size. Raises DataError or OptionError for what does not fit."""
    if table.frame.shape[1] != len(_COLUMNS):
        raise DataError(f"{table.path}: {table.frame.shape[1]} columns; Binance klines have {len(_COLUMNS)}")
    if options.stamp == "close":
        raise OptionError("--stamp close does not fit Binance klines, which are stamped at their open")
    chosen = {"time": "open_time", **{name: name for name in (*PRICE_FIELDS, "volume")}}
    return Reading(
        NAME, chosen, "open", options.tz, options.time_format, options.price_scale,
        prepared=lambda rows: rows.frame.set_axis(list(_COLUMNS), axis=1),
    )  # fmt: skip
