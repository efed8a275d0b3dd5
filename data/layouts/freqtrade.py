"""freqtrade's candles in Feather."""

from __future__ import annotations

from data.errors import DataError, OptionError
from data.reading import PRICE_FIELDS, Reading, ReadOptions
from data.tables import SourceTable

NAME = "freqtrade-feather"
DESCRIPTION = "freqtrade's Feather candles"

_COLUMNS = ("date", *PRICE_FIELDS, "volume")


def recognises(table: SourceTable) -> bool:
    """By the columns and their order."""
    return table.kind == "feather" and tuple(table.frame.columns) == _COLUMNS


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Stamped at the open. Raises DataError or OptionError for what does not fit."""
    missing = [name for name in _COLUMNS if name not in table.frame.columns]
    if missing:
        raise DataError(f"{table.path}: no column {', '.join(missing)}; a freqtrade file has {_COLUMNS}")
    if options.stamp == "close":
        raise OptionError("--stamp close does not fit freqtrade files, which are stamped at the open")
    chosen = {"time": "date", **{name: name for name in (*PRICE_FIELDS, "volume")}}
    return Reading(NAME, chosen, "open", options.tz, options.time_format, options.price_scale)
