"""``sage evaluate ensemble``: do the weights find the alphas that work?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import output_file


def ensemble(
    markets: Annotated[int, typer.Option(help="Simulated markets of each kind.")] = 100,
    bars: Annotated[int, typer.Option(help="Bars of each.")] = 8_000,
    alphas: Annotated[int, typer.Option(help="Alphas on each.")] = 5,
    correlation: Annotated[
        float, typer.Option(help="Of a good alpha's vote with the mean of the eight bars after its fill.")
    ] = 0.10,
    phase_bars: Annotated[
        tuple[int, int], typer.Option(help="Shortest and longest phase in which an alternating alpha is good, or bad.")
    ] = (750, 2_500),
    floor: Annotated[float | None, typer.Option(help="Floor of the weights. Default: the backtest's.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory of the weights, bars. Default: the backtest's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the markets.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="Keep each finished market here; a rerun with the same settings goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and a picture to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where a target is missed, 5 where none could be judged.")
    ] = False,
) -> None:
    """Hold the ensemble's weights against equal ones on simulated markets with alphas of known worth.

    Alphas that are good and bad in turn, that know nothing, that are good in one volatility state alone, and that are
    all equally good. The weights are those of the backtest.
    """
    with errors_as_exit_codes():
        from cli import render
        from cli.render import result_console, table_of
        from data.errors import OptionError
        from regime.files import write_durably
        from sage.config import with_values
        from sage.studies import ensemble_report as report
        from sage.studies.ensemble import SAID, EnsembleStudyConfig, study
        from sage.weights import WeightsConfig

        output_file("--html", html)
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        config = EnsembleStudyConfig(
            markets=markets,
            bars=bars,
            alphas=alphas,
            correlation=correlation,
            phase_bars=phase_bars,
            seed=seed,
            weights=with_values(WeightsConfig(), floor=floor, memory_bars=memory),
            out=out,
        )
        try:
            with render.LiveProgress() as progress:
                found = study(config, progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished markets are kept" if out is None else f"finished markets are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        if html is not None:
            write_durably(html, report.page(found))
        findings = report.findings(found)
        if as_json:
            typer.echo(json.dumps(report.as_document(found), indent=2))
        else:
            from rich.table import Table

            console = result_console()
            table = Table(title="[bold]The ensemble's weights[/bold]", title_justify="left", box=None)
            for number, name in enumerate(report.COLUMNS):
                table.add_column(name, justify="right" if number else "left", no_wrap=True)
            for row in report.rows(found):
                table.add_row(*row)
            console.print(table, highlight=False)
            lines = [(str(kind), text) for kind, text in SAID.items()]
            lines += [("" if number else "findings", finding.told) for number, finding in enumerate(findings)]
            if html is not None:
                lines.append(("picture", str(html)))
            console.print(table_of(lines, ""), highlight=False)
            console.print(report.EXPLAINED, style="dim", highlight=False)
        if check:
            leave_by(finding.met for finding in findings)
