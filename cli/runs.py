"""``sage runs``: the runs that were made, what each came to, and where two of them part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import AsJson, confirmed

if TYPE_CHECKING:
    from sage.runs import Comparison, Differing, RunSummary

runs = typer.Typer(name="runs", help="The runs that were made.", no_args_is_help=True, rich_markup_mode=None)

RUNS = Path("runs")

_SHOWN = 40


@runs.command("ls")
def list_(
    place: Annotated[Path, typer.Argument(readable=False, metavar="[DIR]", help="Where runs lie.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """List runs with their headline figures, the newest last."""
    with errors_as_exit_codes():
        from sage.runs import find_runs

        found = find_runs(place)
        if as_json:
            typer.echo(json.dumps([_as_dict(run) for run in found], indent=2))
        elif found:
            _show_list(found)
        else:
            typer.echo(f"{place}: holds no runs")


@runs.command()
def show(
    run: Annotated[Path, typer.Argument(readable=False, help="A run's directory.")], as_json: AsJson = False
) -> None:
    """Show a run: its headline figures, and what else lies in its directory."""
    with errors_as_exit_codes():
        from sage.runs import summary_of

        found = summary_of(run)
        names = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
        if as_json:
            typer.echo(json.dumps(_as_dict(found) | {"contents": names}, indent=2))
        else:
            _show_one(found, names)
        if found.problem:
            raise typer.Exit(int(ExitCode.BAD_DATA))


@runs.command()
def compare(
    first: Annotated[Path, typer.Argument(readable=False, help="A run's directory.")],
    second: Annotated[Path, typer.Argument(readable=False, help="Another one of the same kind.")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs: what they were made from, then what they came to, then the first signal or order that differs.

    Exit code 1 if they came to something else; what the clock decides does not count.
    """
    with errors_as_exit_codes():
        from sage.runs import compare as run_compare

        found = run_compare(first, second)
        if as_json:
            typer.echo(json.dumps(_compared(found), indent=2, default=str))
        else:
            _show_comparison(found)
        if not found.is_same:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))


@runs.command()
def rm(
    directories: Annotated[list[Path], typer.Argument(readable=False, metavar="RUN...", help="Directories of runs.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove runs. What is no run's directory stays."""
    with errors_as_exit_codes():
        from sage.runs import remove, summary_of

        found = [summary_of(directory) for directory in directories]
        confirmed(", ".join(f"{run.kind} {run.directory}" for run in found), yes=yes)
        for run in found:
            remove(run.directory)
            typer.echo(f"removed {run.directory}")


def _show_one(found: RunSummary, names: list[str]) -> None:
    from cli.render import result_console, table_of

    rows = [("made", found.created), *((name, _told(value)) for name, value in found.figures.items())]
    rows += [("problem", found.problem)] if found.problem else []
    rows.append(("contents", ", ".join(names)))
    result_console().print(table_of(rows, f"[bold]{found.kind} {found.directory}[/bold]"), highlight=False)


def _show_list(found: list[RunSummary]) -> None:
    from rich.table import Table
    from rich.text import Text

    from cli.render import result_console

    table = Table(box=None)
    for name in ("run", "kind", "made", "headlines"):
        table.add_column(name)
    for run in found:
        told = run.problem or ", ".join(
            f"{_short(name)} {_told(value)}" for name, value in run.figures.items() if value is not None
        )
        table.add_row(*map(Text, (str(run.directory), str(run.kind or "?"), run.created, told)))
    result_console().print(table, highlight=False)


def _short(name: str) -> str:
    """What a headline is called in a list: "coverage.realised" is the coverage, "winner.sharpe" the Sharpe ratio."""
    return name.removesuffix(".probability").removesuffix(".realised").rpartition(".")[2]


def _show_comparison(found: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    from cli.render import difference_line, result_console
    from sage.compare import difference_report

    console = result_console()
    for title, differing in (("made from", found.made_from), ("came to", found.figures)):
        if not differing:
            console.print(f"[bold]{title}[/bold]: the same", highlight=False)
            continue
        table = Table(title=f"[bold]{title}[/bold]", title_justify="left", box=None)
        for name in ("", str(found.first.directory), str(found.second.directory)):
            table.add_column(Text(name))
        for one in differing[:_SHOWN]:
            table.add_row(*map(Text, (one.name, _told(one.first), _told(one.second))))
        console.print(table, highlight=False)
        if len(differing) > _SHOWN:
            console.print(f"... and {len(differing) - _SHOWN:,} more, with --json", highlight=False)
    if found.same_signals:
        console.print("signals, orders, fills and positions: the same", highlight=False)
    moment = found.moment
    if moment is not None:
        told = Text.assemble(("first difference", "bold"), ": ", difference_line(difference_report(moment)))
        console.print(told, soft_wrap=True)


def _as_dict(run: RunSummary) -> dict[str, Any]:
    kind = None if run.kind is None else str(run.kind)
    return {
        "run": str(run.directory), "kind": kind, "created": run.created, "figures": run.figures,
        "problem": run.problem or None,
    }  # fmt: skip


def _compared(found: Comparison) -> dict[str, Any]:
    from sage.compare import difference_report

    def told(differing: list[Differing]) -> list[dict[str, Any]]:
        return [{"name": one.name, "first": one.first, "second": one.second} for one in differing]

    return {
        "first": _as_dict(found.first),
        "second": _as_dict(found.second),
        "made_from": told(found.made_from),
        "figures": told(found.figures),
        "same_signals": found.same_signals,
        "first_difference": None if found.moment is None else difference_report(found.moment),
    }


def _told(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
