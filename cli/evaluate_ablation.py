"""``sage evaluate ablation``: each alpha alone, equal weights, the ensemble, buy and hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import choice, output_file

if TYPE_CHECKING:
    from sage.studies.ablation_report import Group


def ablation(
    seeds: Annotated[int, typer.Option(help="Simulated markets; 0 for none.")] = 5,
    bars: Annotated[int, typer.Option(help="Bars of each; of history the newest ones.")] = 8_000,
    data: Annotated[str | None, typer.Option(help="sp500: S&P 500 daily history too.")] = None,
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
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where the target is missed.")] = False,
) -> None:
    """Run the same backtest with each alpha alone, with equal weights and with the ensemble's, beside buy and hold.

    On simulated markets, the S&P 500 and a catalog's instruments. With --check the exit code is 1 where, over all
    history together, the ensemble's Sharpe ratio is below that of equal weights by its whole 95 % interval.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from sage.config import BacktestConfig, load_config, with_values
        from sage.studies import ablation_report as report
        from sage.studies.ablation import AblationConfig, ablate
        from sage.studies.markets import StudyMarkets

        choice("--data", data, ("sp500",))
        output_file("--html", html)
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        base = with_values(load_config(config) if config is not None else BacktestConfig(), seed=seed)
        markets = StudyMarkets(
            seeds=seeds,
            bars=bars,
            sp500=data == "sp500",
            catalog=catalog,
            instruments=tuple(instrument or ()),
            bar=bar,
            start=start,
            end=end,
            synthetic=with_values(base.data.synthetic, seed=base.seed),
        )
        try:
            with render.LiveProgress() as progress:
                found = ablate(AblationConfig(markets, base, out), progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished runs are kept" if out is None else f"finished runs are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        if html is not None:
            write_durably(html, report.page(found))
        groups = report.groups(found)
        findings = report.findings(groups)
        if as_json:
            typer.echo(json.dumps(report.as_document(found), indent=2))
        else:
            _print(groups, [finding.told for finding in findings], html)
        if check:
            leave_by(finding.met for finding in findings)


def _print(groups: list[Group], findings: list[str], picture: Path | None) -> None:
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.studies.ablation_report import COLUMNS, SAID, rows

    console = result_console()
    for group in groups:
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
    console.print(table_of(lines, "[bold]Ablation[/bold]"), highlight=False)
    console.print(SAID, style="dim", highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
