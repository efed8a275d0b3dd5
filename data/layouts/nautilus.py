"""Bars as NautilusTrader's own catalogs hold them, written by 128-bit or 64-bit builds."""

from __future__ import annotations

import pandas as pd

from data.errors import DataError, OptionError
from data.fixed import FIXED_DECIMALS, decoded, is_known
from data.reading import PRICE_FIELDS, Reading, ReadOptions
from data.tables import SourceTable

NAME = "nautilus"
DESCRIPTION = "bars in a NautilusTrader catalog"

_DECIMALS = {str(count) for count in range(max(FIXED_DECIMALS.values()) + 1)}


def recognises(table: SourceTable) -> bool:
    """By the bar type in the file's metadata."""
    return table.kind == "parquet" and "bar_type" in table.metadata


def reading(table: SourceTable, options: ReadOptions) -> Reading:
    """Stamped at the close: ``ts_init``, when a bar is known; ``ts_event`` may be its open.

    Raises
    ------
    DataError
        If it is no such file, or of a version that wrote values otherwise.
    OptionError
        For a stamp at the open.
    """
    if options.stamp == "open":
        raise OptionError("--stamp open does not fit NautilusTrader's bars, which are stamped at their close")
    fields = (*PRICE_FIELDS, "volume")
    missing = [name for name in (*fields, "ts_init") if name not in table.frame.columns]
    if missing or "bar_type" not in table.metadata:
        raise DataError(f"{table.path}: no bars of NautilusTrader's: no {', '.join(missing) or 'bar type'}")
    of_price, of_size = (_told_decimals(table, name) for name in ("price_precision", "size_precision"))
    decimals = {**dict.fromkeys(PRICE_FIELDS, of_price), "volume": of_size}

    typed = table.typed
    kinds = [] if typed is None else [typed.schema.field(name).type for name in fields]
    if not all(is_known(kind) for kind in kinds):
        raise DataError(f"{table.path}: written by a version of NautilusTrader that is not known here")

    def prepared(rows: SourceTable) -> pd.DataFrame:
        assert rows.typed is not None
        if any(rows.typed.column(name).null_count for name in (*fields, "ts_init")):
            raise DataError(f"{rows.path}: empty values, which NautilusTrader never writes; fetch it again")
        values = {name: decoded(rows.typed.column(name), decimals[name]) for name in fields}
        # Nanoseconds, which is not to be guessed from how large they are.
        return rows.frame.assign(ts_init=pd.to_datetime(rows.frame["ts_init"], errors="coerce"), **values)

    chosen = {"time": "ts_init", **{name: name for name in fields}}
    notes = (f"NautilusTrader's bars of {table.metadata['bar_type']}",)
    return Reading(NAME, chosen, "close", "UTC", None, options.price_scale, notes, prepared)


def _told_decimals(table: SourceTable, name: str) -> int:
    told = table.metadata.get(name, "nothing")
    if told not in _DECIMALS:
        raise DataError(f"{table.path}: says that its {name} is {told}, as NautilusTrader never does; fetch it again")
    return int(told)
