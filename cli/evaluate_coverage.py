"""``sage evaluate coverage``: do intervals hold what they promise, and where do they not?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import choice, output_file

if TYPE_CHECKING:
    from sage.studies.coverage import Coverage


def coverage(
    catalog: Annotated[Path | None, typer.Option(help="Catalog directory, as made by sage ingest.")] = None,
    data: Annotated[str, typer.Option(help="Without a catalog: synthetic, sp500, or none but breaks.")] = "none",
    instrument: Annotated[
        list[str] | None, typer.Option(help="Instrument in the catalog, SYMBOL.VENUE; again for more. Default: all.")
    ] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m. Default: all held.")] = None,
    start: Annotated[str | None, typer.Option(help="First date or time, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date or time, UTC, inclusive.")] = None,
    breaks: Annotated[int, typer.Option(help="Simulated breaks each way, of each of six kinds; 0 for none.")] = 70,
    close_only: Annotated[
        bool, typer.Option("--close-only", help="Highs and lows of simulated bars tell nothing beside the close.")
    ] = False,
    bars: Annotated[int, typer.Option(help="The newest of each series that are judged, at most.")] = 10_000,
    warm_up: Annotated[int, typer.Option(help="Bars that the detector sees before, and no others.")] = 1_000,
    model: Annotated[str, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = "embedded",
    engine: Annotated[
        str, typer.Option(help="auto (native where it can be compiled, else torch), native, torch or stock.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the native engine.")] = 2,
    config: Annotated[
        Path | None, typer.Option(help="TOML file as for sage backtest; its table [regime] counts.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated breaks, and of the simulated market.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="Keep each finished series here; a rerun with the same settings goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and pictures to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where a target is missed, 5 where none could be judged.")
    ] = False,
) -> None:
    """Hold the detector's 90 % intervals against what came, bar by bar.

    Overall, by third of volatility, by hour of the day, by bar ahead, and in the first 60 bars after simulated breaks
    of volatility, with the Winkler score beside a static quantile of EWMA-normalised returns.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from regime.model.engines import ENGINE_KINDS, EngineSpec
        from sage.config import BacktestConfig, load_config, validate
        from sage.studies import coverage_report as report
        from sage.studies.coverage import CoverageConfig, cover
        from sage.studies.coverage_breaks import BreakConfig

        choice("--engine", engine, ENGINE_KINDS)
        output_file("--html", html)
        if catalog is not None and data != "none":
            raise OptionError(f"--catalog and --data {data} exclude each other")
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        base = load_config(config) if config is not None else BacktestConfig()
        validate(base)
        settings = CoverageConfig(
            source=data,
            catalog=catalog,
            instruments=tuple(instrument or ()),
            bar=bar,
            start=start,
            end=end,
            model=model,
            engine=EngineSpec(kind=engine, threads=threads),  # type: ignore[arg-type]
            regime=base.regime,
            bars=bars,
            warm_up_bars=warm_up,
            breaks=BreakConfig(number=breaks, close_only=close_only),
            seed=seed,
            out=out,
        )
        try:
            with render.LiveProgress() as progress:
                found = cover(settings, progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished series are kept" if out is None else f"finished series are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        if html is not None:
            write_durably(html, report.page(found))
        findings = report.findings(found)
        if as_json:
            typer.echo(json.dumps(report.as_document(found), indent=2))
        else:
            _print(found, [finding.told for finding in findings], html)
        if check:
            leave_by(finding.met for finding in findings)


def _print(found: Coverage, findings: list[str], picture: Path | None) -> None:
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.studies.coverage_report import BREAK_COLUMNS, SAID, SERIES_COLUMNS, break_rows, series_rows

    console = result_console()
    for columns, rows in (
        (SERIES_COLUMNS, series_rows(found.series)),
        (BREAK_COLUMNS, break_rows(found.breaks)),
    ):
        if not rows:
            continue
        table = Table(box=None)
        for number, name in enumerate(columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)
        console.print()
    lines = [("" if number else "findings", line) for number, line in enumerate(findings)]
    if found.reused:
        lines.append(("from --out", f"{found.reused} finished earlier"))
    if picture is not None:
        lines.append(("picture", str(picture)))
    console.print(table_of(lines, "[bold]Coverage[/bold]"), highlight=False)
    console.print(SAID, style="dim", highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
