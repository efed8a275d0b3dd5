"""``sage backtest --walk-forward``: its options, and what is printed of it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sage.config import BacktestConfig


def require_flag(*, walk_forward: bool, **options: object) -> None:
    """Raise OptionError for options of a walk-forward where there is none."""
    from data.errors import OptionError

    stray = [name for name, value in options.items() if value is not None]
    if stray and not walk_forward:
        raise OptionError(f"--{stray[0].replace('_', '-')} goes with --walk-forward")
    if None not in (options["folds"], options["fold_bars"]):
        raise OptionError("--folds and --fold-bars exclude each other: say how many windows, or how long each is")


def run(settings: BacktestConfig, directory: Path, *, as_json: bool) -> None:
    """Walk forward, write the directory and print what came of it."""
    from rich.table import Table

    from cli import render
    from sage import walk_forward_report as report
    from sage.walk_forward import walk_forward

    # What a user's code prints is a message; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr), render.LiveProgress() as progress:
        walked = walk_forward(settings, progress)
        progress.stage("writing the report", 1)
        document = report.write(walked, directory)
    if as_json:
        typer.echo((directory / "walk_forward.json").read_text().rstrip())
        return
    table = Table(title="[bold]SAGE walk-forward[/bold]", title_justify="left", box=None)
    for number, name in enumerate(report.COLUMNS):
        table.add_column(name, justify="right" if number else "left", no_wrap=number < len(report.COLUMNS) - 1)
    for row in report.fold_rows(document):
        table.add_row(*row)
    console = render.result_console()
    console.print(table, highlight=False)
    rows: list[tuple[str, Any]] = [*report.pooled_rows(document), ("report", str(directory / "report.html"))]
    console.print(render.table_of(rows, "[bold]All windows[/bold]"), highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
