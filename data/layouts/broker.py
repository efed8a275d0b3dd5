"""Hourly bars of FX brokers with scaled prices: points in the place of prices, and the clock of the broker's server.

Prices are 100,000 times what they are, 1,000 times where yen are the quote. The server's clock is seven hours ahead of
New York, so that a week begins at midnight: UTC+2 in winter and +3 in summer, changing on New York's days. A file does
not say so, and brokers have changed their clocks: ``--tz`` says otherwise.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from data.errors import AmbiguousSource, DataError
from data.layouts.plain import plain_name
from data.reading import PRICE_FIELDS, Reading, ReadOptions
from data.tables import SourceTable

NAME = "broker-fx"
DESCRIPTION = "FX brokers' CSV with scaled prices and server time (date, open, high, low, close, tick_volume)"

TIME_ZONE = "America/New_York+07:00"

_FIVE = (
    "AUD", "CAD", "CHF", "CNH", "DKK", "EUR", "GBP", "HKD", "MXN", "NOK", "NZD", "PLN", "SEK", "SGD", "TRY", "USD",
    "ZAR",
)  # fmt: skip
_DECIMALS = dict.fromkeys(_FIVE, 5) | {"JPY": 3}
"""Decimals of prices in a currency; of metals, coins and other currencies brokers have different ones."""

_COLUMNS = ("date", *PRICE_FIELDS, "tick_volume")
_POINTS_MIN = 10_000.0
_NOISE = 1e-6


def recognises(table: SourceTable) -> bool:
    """By its columns, and by prices that are whole numbers of points but for float noise."""
    if table.kind not in {"csv", "gzip", "zip"} or tuple(map(plain_name, table.frame.columns)) != _COLUMNS:
        return False
    prices = table.frame.iloc[:1000, 1:5].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    whole = np.abs(prices - np.round(prices)) < _NOISE * prices
    return bool((whole & (prices >= _POINTS_MIN)).mean() > 0.99)


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Points turned into prices, the server's clock into UTC; options say otherwise.

    Raises
    ------
    DataError
        If it has not the columns.
    AmbiguousSource
        If neither option nor file name tells how the prices are scaled.
    """
    named = {plain_name(column): column for column in table.frame.columns}
    missing = [name for name in _COLUMNS if name not in named]
    if missing:
        raise DataError(f"{table.path}: no column {', '.join(missing)}; a broker's file has {', '.join(_COLUMNS)}")
    scale = options.price_scale
    if scale == 1.0:
        pair = re.match(r"([A-Z]{3})([A-Z]{3})(?![A-Z])", table.path.name.upper().replace("_", "").replace("H1", " "))
        if pair is None or pair[1] not in _DECIMALS or pair[2] not in _DECIMALS:
            raise AmbiguousSource(
                f"{table.path}: prices are scaled, such as {table.frame[named['close']].iloc[0]}; say by how much, "
                "--price-scale 1e-5, or 1e-3 for pairs quoted in yen"
            )
        scale = 10.0 ** -_DECIMALS[pair[2]]
    zone = options.tz or TIME_ZONE
    chosen = {"time": named["date"], **{name: named[name] for name in PRICE_FIELDS}, "volume": named["tick_volume"]}
    clock = zone if options.tz else f"{zone} (brokers have changed their clocks; --tz says otherwise)"
    told = f"broker: prices times {scale:g}, times of {clock}, ticks as volume; --layout ohlcv reads them as written"
    return Reading(NAME, chosen, options.stamp or "open", zone, options.time_format, scale, (told,))
