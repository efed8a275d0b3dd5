"""``sage doctor``: what this machine has and lacks, and how to mend it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import ExitCode, errors_as_exit_codes


def doctor(
    catalog: Annotated[Path | None, typer.Option(readable=False, help="A catalog to look at, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at versions, engine, models, machine, places and extras, and say how to mend what is wrong.

    Exit code 1 if something is in the way.
    """
    with errors_as_exit_codes():
        from rich.table import Table
        from rich.text import Text

        from cli.render import result_console
        from sage.doctor import State, examine

        found = examine(catalog)
        wrong = [finding for finding in found if finding.state is State.WRONG]
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
        else:
            table = Table(box=None, show_header=False)
            mark = {State.FINE: "[green]✓[/green]", State.NOTE: "[yellow]![/yellow]", State.WRONG: "[red]✗[/red]"}
            section = ""
            for finding in found:
                head = finding.section if finding.section != section else ""
                section = finding.section
                table.add_row(f"[bold]{head}[/bold]", mark[finding.state], Text(finding.name), Text(finding.told))
                if finding.mend:
                    table.add_row("", "", "", Text(f"→ {finding.mend}"), style="dim")
            result_console().print(table, highlight=False)
            typer.echo(f"{len(wrong):,} things are in the way" if wrong else "nothing is in the way")
        if wrong:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))
