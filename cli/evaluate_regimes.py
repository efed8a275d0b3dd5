"""``sage evaluate regimes``: are the volatility regimes as good as they can be, and transitions foretold truly?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import output_file

if TYPE_CHECKING:
    from sage.studies.regimes import RegimeStudy


def regimes(
    seeds: Annotated[int, typer.Option(help="Simulated series of each kind.")] = 20,
    bars: Annotated[
        list[int] | None,
        typer.Option(help="Bars to warm up on, and to be judged on; again for more. Default: 1000 and 2000."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep finished series here; a rerun, with more seeds too, goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and pictures to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where a target is missed, 5 where none could be judged.")
    ] = False,
) -> None:
    """Hold the volatility regimes against a simulated market's true ones, beside peers.

    The market of two states that is in use in the literature on jump models, Gaussian and t(5). Peers: a t-HMM, a
    Gaussian HMM (hmmlearn), each at two cuts, and an online jump model (jumpmodels); the ceiling: a filter that knows
    the simulation's parameters. The transition probability is held against the transitions that came.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from sage.studies import regimes_report as report
        from sage.studies.regimes import RegimeStudyConfig, evaluate
        from sage.studies.regimes_verdict import findings

        output_file("--html", html)
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        lengths = tuple(dict.fromkeys(bars)) if bars else RegimeStudyConfig.lengths
        try:
            with render.LiveProgress() as progress:
                found = evaluate(RegimeStudyConfig(seeds=seeds, lengths=lengths, out=out), progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished series are kept" if out is None else f"finished series are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        if html is not None:
            write_durably(html, report.page(found))
        if as_json:
            typer.echo(json.dumps(report.as_document(found), indent=2))
        else:
            summary(found, html)
        if check:
            leave_by(finding.met for finding in findings(found))


def summary(study: RegimeStudy, picture: Path | None) -> None:
    """One table per cell, the transition probability, then the findings."""
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.studies import regimes_report as report
    from sage.studies.regimes_verdict import findings

    console = result_console()
    parts = [(report.COLUMNS, *table) for table in report.tables(study)]
    parts += [(report.TRANSITION_COLUMNS, *table) for table in report.transition_tables(study)]
    for columns, heading, rows in parts:
        table = Table(title=f"[bold]{heading}[/bold]", title_justify="left", box=None)
        for number, name in enumerate(columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)
        console.print()
    lines = [("findings" if not at else "", finding.told) for at, finding in enumerate(findings(study))]
    if picture is not None:
        lines.append(("picture", str(picture)))
    console.print(table_of(lines, "[bold]Regimes[/bold]"), highlight=False)
    console.print(report.EXPLAINED, style="dim", highlight=False)
