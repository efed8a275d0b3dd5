"""``sage replay``: a run again from its directory, held against its hash."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import AsJson


def replay(
    run: Annotated[Path, typer.Argument(help="A run directory, as sage backtest leaves it.", show_default=False)],
    catalog: Annotated[Path | None, typer.Option(help="Where the run's catalog lies now, if it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a backtest again on its recorded signals, without a model, and compare.

    The bars are loaded again and must be the same. Exit code 0: the same hash, in this process and on this machine;
    1: the first difference is named.
    """
    with errors_as_exit_codes():
        import json

        from cli import render
        from sage import replay as replays

        recording = replays.read_recording(run)
        # What a user's code prints is a message; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr), render.LiveProgress() as progress:
            found = replays.replay(recording, progress, catalog)
        for note in found.notes:
            typer.echo(f"sage: note: {note}", err=True)
        report = replays.as_report(found)
        if as_json:
            typer.echo(json.dumps(report, indent=2))
        else:
            render.replay_summary(report, run)
        if not found.same:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))
