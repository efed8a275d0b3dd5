"""The table of a sweep: a row for each run, with its place in the plan, how it ended and its headline figures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sage.sweep.plan import Task

TABLE = "runs.parquet"
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
        **{f"{SET}{key}": _plain(value) for key, value in task.values.items()},
        **{name: figures.get(name) for name in FIGURES},
        "coverage": coverage.get("realised"),
        "seconds": (figures.get("seconds") or {}).get("total"),
    }


def write_table(rows: Iterable[dict[str, Any]], directory: Path) -> None:
    """Write all rows to ``runs.parquet``, whole or not at all, in the order of the plan."""
    ordered = sorted(rows, key=lambda row: int(row["run"]))
    if not ordered:
        return
    frame = pd.DataFrame(ordered)
    partial = directory / f".{TABLE}.partial"
    frame.to_parquet(partial, index=False)
    os.replace(partial, directory / TABLE)


def _plain(value: Any) -> Any:
    """A column holds values of one kind; lists and tables become text."""
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
