"""``sage evaluate drift``: how often drift and health alarms are false, and how soon true ones come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import errors_as_exit_codes, leave_by
from cli.options import choice, output_file

if TYPE_CHECKING:
    from sage.studies.drift import DriftStudy


def drift(
    kind: Annotated[
        list[str] | None,
        typer.Option(help="independent, autoregressive, garch or switching; again for more. Default: all."),
    ] = None,
    streams: Annotated[int, typer.Option(help="Simulated streams of each kind.")] = 10,
    before: Annotated[int, typer.Option(help="Undisturbed bars of each, before the break.")] = 6_000,
    after: Annotated[int, typer.Option(help="Bars after the break.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Seed of all streams.")] = 7,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint whose forecasts are watched. Default: as shipped.")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, native, torch or stock.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the engine.")] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Keep each finished stream here; a rerun with the same settings goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and pictures to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where a target is missed, 5 where none could be judged.")
    ] = False,
) -> None:
    """Show simulated streams, undisturbed and disturbed, to the monitors of drift and health.

    False-alarm rates with intervals, detection rates and delays: of the stability index (PSI) with critical values by
    block bootstrap, for independent data and by rule of thumb, of ADWIN, and of the model's health.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from regime.model.checkpoint import EMBEDDED
        from regime.model.engines import ENGINE_KINDS, EngineSpec
        from sage.studies import drift_report as report
        from sage.studies.drift import DriftStudyConfig, Kind, study

        choice("--engine", engine, ENGINE_KINDS)
        kinds = {each.name.lower(): each for each in Kind}
        for name in kind or ():
            choice("--kind", name, tuple(kinds))
        output_file("--html", html)
        if threads < 1:
            raise OptionError("--threads must be 1 or more")
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        settings = DriftStudyConfig(
            kinds=tuple(kinds[name] for name in dict.fromkeys(kind or kinds)),
            streams=streams,
            before=before,
            after=after,
            seed=seed,
            model=model or EMBEDDED,
            engine=EngineSpec(kind=engine, threads=threads),  # type: ignore[arg-type]
            out=out,
        )
        try:
            with render.LiveProgress() as progress:
                found = study(settings, progress)
        except KeyboardInterrupt:
            kept = "with --out DIR finished streams are kept" if out is None else f"finished streams are kept in {out}"
            raise KeyboardInterrupt(f"no result was written; {kept}") from None
        if html is not None:
            write_durably(html, report.page(found))
        if as_json:
            typer.echo(json.dumps(report.as_document(found), indent=2))
        else:
            _print(found, html)
        if check:
            leave_by(finding.met for finding in report.findings(found))


def _print(found: DriftStudy, picture: Path | None) -> None:
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.studies import drift_report as report

    console = result_console()
    for section in report.tables(found):
        table = Table(title=f"[bold]{section.heading}[/bold]  {section.text}", title_justify="left", box=None)
        for number, name in enumerate(section.columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in section.rows:
            table.add_row(*row)
        console.print(table, highlight=False)
        console.print()
    lines = [("" if at else "findings", each.told) for at, each in enumerate(report.findings(found))]
    lines.append(("forecasts", found.engine))
    if picture is not None:
        lines.append(("picture", str(picture)))
    console.print(table_of(lines, "[bold]Drift and health[/bold]"), highlight=False)
    console.print(report.EXPLAINED, style="dim", highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
