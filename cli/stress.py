"""``sage stress``: does it leak, drift or stall in hours?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import AsJson, choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cli.dashboard import Dashboard
    from regime.alerts import Alert
    from sage.telemetry import Telemetry, TelemetrySummary
    from sage.vitals import Vitals
    from stress.soak.launch import Outcome
    from stress.soak.record import Record

_PRINTED = (0, 1, 2, 4, 7)
"""Columns of the report's table that a terminal has room for."""

CODES = {"passed": ExitCode.OK, "failed": ExitCode.CHECK_FAILED, "undecided": ExitCode.UNDECIDED}


def stress(
    hours: Annotated[float | None, typer.Option(help="How long; 0.5 is half an hour.")] = None,
    bars: Annotated[int | None, typer.Option(help="Instead: how many bars, to the end of the segment.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where journal, stress.json and report.html go; runs/<time>-stress by default.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with what an earlier soak left here, with the same options.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Bars a second, whether answered or not. Default, and 0: as fast as it goes.")
    ] = None,
    faults: Annotated[str, typer.Option(help="none, light or heavy, from the catalogue of faults.")] = "none",
    background: Annotated[int, typer.Option(help="Busy processes beside it.")] = 0,
    catalog: Annotated[Path | None, typer.Option(help="A catalog's bars, again and again.")] = None,
    instrument: Annotated[str | None, typer.Option(help="Instrument in the catalog, SYMBOL.VENUE.")] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m.")] = None,
    model: Annotated[str | None, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="tirex-35m or compact, with seeded random weights, instead of a model.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, native, torch or stock.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Each bar's deadline, and the target of every minute's p99. Default: 50.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="A NautilusTrader strategy of your own, MODULE:CLASS.")] = None,
    forecaster: Annotated[str | None, typer.Option(help="A forecaster of your own in the model's place.")] = None,
    alpha: Annotated[list[str] | None, typer.Option(help="An alpha model of your own; repeatable.")] = None,
    leak_limit_mb_per_hour: Annotated[float, typer.Option(help="What our own memory may grow by in an hour.")] = 5.0,
    growth_limit_mb: Annotated[float, typer.Option(help="What it may grow by in all.")] = 500.0,
    recycle_mb: Annotated[float, typer.Option(help="A trading process that has this size is replaced.")] = 1000.0,
    segment_bars: Annotated[int | None, typer.Option(help="Bars of one engine run.")] = None,
    plant: Annotated[
        list[str] | None,
        typer.Option(help="Leak on purpose, to see it found: KIND@PROCESS=MB_PER_HOUR; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of bars, faults and random weights.")] = 1,
    alerts: Annotated[Path | None, typer.Option(help="Append alerts to this JSONL file.")] = None,
    webhook_url_env: Annotated[
        str | None, typer.Option(help="Name of the environment variable that holds the webhook's address.")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus metrics on this port of loopback.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file, as for sage backtest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the real system for hours over bars without end, and tell a leak from noise.

    Model process, actor, strategy and engine work for every bar; memory of all processes is compared at equal bar
    counts, NautilusTrader's own growth is measured by a control and told apart. Exit code 0: all promises kept; 1: one
    was broken; 5: the run was too short to tell.
    """
    with errors_as_exit_codes():
        from cli.dashboard import Dashboard
        from data.errors import OptionError
        from sage.config import BacktestConfig, load_config, with_values
        from sage.rundir import choose_directory
        from sage.telemetry import telemetry
        from stress.soak.config import FaultLoad, SoakConfig, check, soak_backtest
        from stress.soak.launch import own_files, planned_length, run_soak
        from stress.soak.plants import Plant
        from stress.soak.worker import endless_market

        if resume is not None and out is not None:
            raise OptionError("--out and --resume exclude each other: what goes on stays where it is")
        if architecture is not None and model is not None:
            raise OptionError("--architecture and --model exclude each other: only one of them can forecast")
        if deadline_ms == 0:
            raise OptionError("--deadline-ms 0: a soak is judged by its deadline; the default is 50")
        if resume is not None and hours is None and bars is None:
            hours, bars = planned_length(resume)
        base = load_config(config) if config is not None else BacktestConfig()
        base = with_values(
            base,
            data=with_values(
                base.data,
                source="catalog" if catalog is not None else None,
                catalog=None if catalog is None else str(catalog),
                instrument=instrument,
                bar=bar,
            ),
            model=with_values(base.model, name=model),
            serving=with_values(
                base.serving,
                engine=with_values(
                    base.serving.engine, kind=choice("--engine", engine, ("auto", "native", "torch", "stock"))
                ),
            ),
            regime=with_values(base.regime, deadline_ms=deadline_ms),
            own=with_values(base.own, strategy=strategy, forecaster=forecaster, alphas=tuple(alpha) if alpha else None),
        )
        settings = SoakConfig(
            hours=hours,
            bars=bars,
            backtest=soak_backtest(base),
            architecture=architecture,
            segment_bars=segment_bars,
            rate=rate or 0.0,
            faults=FaultLoad(choice("--faults", faults, tuple(FaultLoad))),
            background=background,
            seed=seed,
            leak_limit_mb_per_hour=leak_limit_mb_per_hour,
            growth_limit_mb=growth_limit_mb,
            recycle_mb=recycle_mb,
            plants=tuple(map(Plant.parse, plant or ())),
        )
        place = resume or out
        if (
            alerts is not None
            and place is not None
            and alerts.absolute() in (place.absolute(), *own_files(place.absolute()))
        ):
            raise OptionError(f"--alerts {alerts}: the soak itself writes there; choose another name")
        # Everything that can be refused is, before a directory is made.
        check(settings)
        endless_market(settings)
        telling = telemetry(base.watch, alerts=alerts, webhook_url_env=webhook_url_env, metrics_port=metrics_port)
        consumer: Telemetry | None = None
        directory: Path | None = None
        try:
            with telling as consumer:
                directory = resume or choose_directory(out, "stress")
                if consumer.url is not None:
                    typer.echo(f"sage: metrics at {consumer.url}", err=True)
                with Dashboard("SAGE stress") as view, _failures_told(view):
                    found = run_soak(settings, directory, _Audience(view, consumer), resume=resume is not None)
        except Exception:
            if directory is not None and (directory / "stress.json").exists():
                typer.echo(f"sage: what there was before is in {directory}", err=True)
            # What was told to nobody is said also where the soak has no other end.
            for problem in consumer.summary.problems if consumer is not None else ():
                typer.echo(f"sage: {problem}", err=True)
            raise
        _tell(found, consumer.summary, as_json=as_json)
        if found.interrupted:
            again = f"to go on, give the same options and --resume {directory}"
            raise KeyboardInterrupt(f"the report up to here is in {directory}; {again}")
        raise typer.Exit(int(CODES[str(found.assessment.status)]))


@contextlib.contextmanager
def _failures_told(view: Dashboard) -> Iterator[None]:
    """Say on stderr what a webhook does not deliver, while it fails. The alerts themselves are in the view."""
    from sage.webhook import FAILURES

    handler = _Saying(view.say)
    FAILURES.addHandler(handler)
    try:
        yield
    finally:
        FAILURES.removeHandler(handler)


class _Saying(logging.Handler):
    """A line for each record."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self._say(f"sage: {record.getMessage()}")


class _Audience:
    """All who look on: the live view, and whoever alerts and exports."""

    def __init__(self, view: Dashboard, consumer: Telemetry) -> None:
        self._view = view
        self._consumer = consumer

    def stage(self, name: str, total: int) -> None:
        """Something begins that is no bar yet."""
        self._view.stage(name, total)

    def go_on_from(self, before: Vitals) -> None:
        """It goes on with an earlier soak, which had come so far."""
        self._consumer.go_on_from(before)

    def update(self, vitals: Vitals) -> Sequence[Alert]:
        """How things are; gives back the alerts that came or went by it."""
        self._consumer(vitals)
        self._view.update(dataclasses.replace(vitals, alerts=self._consumer.active))
        return self._consumer.newest


def _faults_told(record: Record) -> str:
    """How many segments had faults planted in them."""
    count = sum(bool(line["faults"]) for line in record.segments)
    return f"in {count:,} of {len(record.segments):,} segments, on purpose" if record.begun["faults"] != "none" else ""


def _tell(found: Outcome, told: TelemetrySummary, *, as_json: bool) -> None:
    from cli.render import result_console, table_of
    from stress.soak.report import COLUMNS, HTML_FILE, as_document, growth_rows

    problems = [*found.problems, *told.problems]
    for problem in problems:
        typer.echo(f"sage: {problem}", err=True)
    if as_json:
        document = as_document(found.record, found.assessment) | {
            "directory": str(found.directory), "problems": problems, "telemetry": dataclasses.asdict(told),
        }  # fmt: skip
        typer.echo(json.dumps(document, indent=2))
        return
    from rich.table import Table

    console = result_console()
    record, assessment = found.record, found.assessment
    table = Table(title="[bold]SAGE stress: memory[/bold]", title_justify="left", box=None)
    for number in _PRINTED:
        table.add_column(COLUMNS[number], justify="right" if number else "left", no_wrap=number > 0)
    for row in growth_rows(assessment):
        table.add_row(*(row[number] for number in _PRINTED))
    console.print(table, highlight=False)
    console.print()
    bars = sum(line["bars"] for line in record.segments)
    rows = [
        ("soak", f"{record.seconds / 3600.0:.2f} hours, {bars:,} bars in {len(record.segments):,} segments"),
        ("levels", "  ".join(f"{name} {count:,}" for name, count in record.counts("levels").items())),
        ("below FULL for", "  ".join(f"{name} {count:,}" for name, count in record.counts("reasons").items()) or "–"),
        *([("faults", faults)] if (faults := _faults_told(record)) else []),
        *((f"{check.status}", f"{check.name}: {check.told}") for check in assessment.checks),
        *(("note", note) for note in record.notes),
        *(("alerts" if not number else "", line) for number, line in enumerate(str(told).splitlines())),
        ("verdict", str(assessment.status)),
        ("report", str(found.directory / HTML_FILE) if found.is_written else "could not be written"),
    ]
    console.print(table_of(rows, "[bold]SAGE stress[/bold]"), highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
