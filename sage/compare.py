"""Where two runs part: the first row, in time, of the tables that the determinism hash covers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import iso

TIME_OF = {"signals": "ts_event", "votes": "ts_ns", "orders": "ts_ns", "fills": "ts_ns", "positions": "opened_ns"}
"""Each table's column of time, nanoseconds since the epoch."""


@dataclass(frozen=True)
class Difference:
    """The first place at which a table of one run is not that of the other.

    ``row`` counts from 0, ``ts_ns`` is that row's time. ``column`` is empty where one of the two has no such row;
    ``first`` and ``second`` are then the row in words, or None.
    """

    table: str
    row: int
    ts_ns: int
    column: str
    first: Any
    second: Any


def difference_report(difference: Difference) -> dict[str, Any]:
    """A difference, plain enough for JSON; ``time`` is its time for people."""
    values = {"first": difference.first, "second": difference.second}
    if difference.column == TIME_OF.get(difference.table):
        values = {name: iso(value) for name, value in values.items()}
    else:
        values = {name: _json(value) for name, value in values.items()}
    return dataclasses.asdict(difference) | {"time": iso(difference.ts_ns)} | values


def first_difference(
    first: Mapping[str, pd.DataFrame],
    second: Mapping[str, pd.DataFrame],
    leaving_out: Mapping[str, tuple[str, ...]] | None = None,
) -> Difference | None:
    """The difference that comes first in time, floats by their exact bits; None where there is none.

    Parameters
    ----------
    first, second
        Tables by name, with equal columns; only names in both are compared.
    leaving_out
        Columns that do not count, by table.
    """
    found = []
    for name, time in TIME_OF.items():
        if name in first and name in second:
            ignored = (leaving_out or {}).get(name, ())
            difference = _between(
                name, time, first[name].drop(columns=[*ignored]), second[name].drop(columns=[*ignored])
            )
            if difference is not None:
                found.append(difference)
    return min(found, key=lambda difference: difference.ts_ns, default=None)


def _between(table: str, time: str, first: pd.DataFrame, second: pd.DataFrame) -> Difference | None:
    rows = min(len(first), len(second))
    differing = {name: _first_unequal(first[name].to_numpy()[:rows], second[name].to_numpy()[:rows]) for name in first}
    row = min((at for at in differing.values() if at is not None), default=None)
    if row is not None:
        # A row that came at another time is another row: its time says more than its first column.
        column = time if differing[time] == row else str(next(name for name, at in differing.items() if at == row))
        stamps = int(first[time].iloc[row]), int(second[time].iloc[row])
        return Difference(
            table, row, min(stamps), column, _plain(first[column].iloc[row]), _plain(second[column].iloc[row])
        )
    if len(first) == len(second):
        return None
    longer = first if len(first) > rows else second
    words = ", ".join(f"{name} {value}" for name, value in longer.iloc[rows].items() if name != time and value != "")
    told = (words, None) if longer is first else (None, words)
    return Difference(table, rows, int(longer[time].iloc[rows]), "", *told)


def _first_unequal(first: NDArray[Any], second: NDArray[Any]) -> int | None:
    if first.dtype == second.dtype == np.float64:
        first, second = first.view(np.int64), second.view(np.int64)
    unequal = np.flatnonzero(first != second)
    return int(unequal[0]) if len(unequal) else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _json(value: Any) -> Any:
    """Floats so that every digit is there; JSON has neither NaN nor infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
