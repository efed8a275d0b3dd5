"""``sage evaluate ladder``: what every level costs in accuracy, coverage and money."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import output_file

if TYPE_CHECKING:
    from sage.studies.ladder_report import Group


def ladder(
    seeds: Annotated[int, typer.Option(help="Simulated markets; 0 for none.")] = 10,
    bars: Annotated[int, typer.Option(help="Bars of each; of an instrument the newest ones.")] = 4_000,
    catalog: Annotated[Path | None, typer.Option(help="Catalog directory, as made by sage ingest.")] = None,
    instrument: Annotated[
        list[str] | None, typer.Option(help="Instrument in the catalog, SYMBOL.VENUE; again for more. Default: all.")
    ] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m. Default: all held.")] = None,
    start: Annotated[str | None, typer.Option(help="First date or time, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date or time, UTC, inclusive.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first market, and of the bootstrap. Default: 7.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file for every run, as for sage backtest.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep each finished run here; a rerun with the same settings goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and a picture to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where a level does what it must not.")] = False,
) -> None:
    """Run the same backtest with each level pinned, and tell what every level costs.

    On simulated markets, whose regimes are known, and on a catalog's instruments: accuracy, coverage, Sharpe with
    intervals, return, drawdown, turnover and costs by level, beside buy and hold.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from sage.config import BacktestConfig, load_config, with_values
        from sage.studies import ladder_report as report
        from sage.studies.ladder import LadderConfig, climb

        output_file("--html", html)
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        base = load_config(config) if config is not None else BacktestConfig()
        settings = LadderConfig(
            base=with_values(base, seed=seed),
            seeds=seeds,
            bars=bars,
            catalog=catalog,
            instruments=tuple(instrument or ()),
            bar=bar,
            start=start,
            end=end,
            out=out,
        )
        try:
            with render.LiveProgress() as progress:
                climbed = climb(settings, progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished runs are kept" if out is None else f"finished runs are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        document = report.as_document(climbed)
        content = json.dumps(document, indent=2)
        if html is not None:
            write_durably(html, report.page(climbed))
        found = report.groups(climbed)
        findings = report.findings(climbed, found)
        if as_json:
            typer.echo(content)
        else:
            _print(found, [finding.told for finding in findings], html)
        if check:
            leave_by(finding.met for finding in findings)


def _print(found: list[Group], findings: list[str], picture: Path | None) -> None:
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.studies.ladder_report import COLUMNS, SAID, rows

    console = result_console()
    for group in found:
        table = Table(title=f"[bold]{group.name}[/bold]  {group.said}", title_justify="left", box=None)
        for number, name in enumerate(COLUMNS):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows(group):
            table.add_row(*row)
        console.print(table, highlight=False)
        console.print()
    lines = [("" if number else "findings", line) for number, line in enumerate(findings)]
    if picture is not None:
        lines.append(("picture", str(picture)))
    console.print(table_of(lines, "[bold]Degradation ladder[/bold]"), highlight=False)
    console.print(SAID, style="dim", highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
