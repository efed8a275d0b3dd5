"""The table of a sweep: a row for each run, with its place in the plan, how it ended and its headline figures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from regime.files import write_durably
from sage.sweep.plan import Task

TABLE, TRIALS = "runs.parquet", "trials.parquet"
FIGURES = (
    "bars", "total_return", "buy_and_hold_return", "sharpe", "max_drawdown", "turnover_per_year", "costs_paid", "fills",
    "average_exposure", "final_equity", "ruined_at", "determinism_hash",
)  # fmt: skip
SET = "set."
"""Columns of what the axes have set begin so."""


def row_of(task: Task, status: str, error: str, figures: dict[str, Any]) -> dict[str, Any]:
    """One run's row."""
    window = task.window
    coverage = figures.get("coverage") or {}
    return {
        "run": task.number,
        "trial": task.trial,
        "key": task.key,
        "status": status,
        "error": error,
        "instrument": task.instrument,
        "period": str(task.period),
        "window": None if window is None else window.number,
        **{f"{SET}{key}": value for key, value in task.values.items()},
        **{name: figures.get(name) for name in FIGURES},
        "coverage": coverage.get("realised"),
        "seconds": (figures.get("seconds") or {}).get("total"),
    }


def write_table(rows: Iterable[dict[str, Any]], directory: Path) -> None:
    """Write all rows to ``runs.parquet``, whole or not at all, in the order of the plan."""
    ordered = sorted(rows, key=lambda row: int(row["run"]))
    if not ordered:
        return
    _write(pd.DataFrame(ordered), directory / TABLE)


def write_trials(rows: list[dict[str, Any]], directory: Path) -> None:
    """Write ``trials.parquet``, whole or not at all: what is known of each trial over all of its runs."""
    _write(pd.DataFrame(rows), directory / TRIALS)


def earlier_keys(directory: Path) -> set[str]:
    """Keys of the runs that a table holds, however they ended; none where there is no table."""
    try:
        return set(pd.read_parquet(directory / TABLE, columns=["key"])["key"])
    except (OSError, ValueError):
        return set()


def _write(frame: pd.DataFrame, path: Path) -> None:
    for name in frame.columns:
        if name.startswith(SET):
            frame[name] = _of_one_kind(frame[name])
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_durably(path, buffer.getvalue())


def _of_one_kind(column: pd.Series) -> pd.Series:
    """A column of Parquet holds values of one kind: numbers, truths or texts; where they are mixed, all as JSON."""
    kinds = {bool if isinstance(value, bool) else float if isinstance(value, (int, float)) else type(value)
             for value in column if value is not None}  # fmt: skip
    if len(kinds) <= 1 and kinds <= {bool, float, str}:
        return column
    return column.map(lambda value: None if value is None else json.dumps(value, default=str))
