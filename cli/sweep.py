"""``sage sweep``: many runs of one question, and what the best of them is worth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import AsJson, data_options

if TYPE_CHECKING:
    from sage.sweep.plan import Plan, SweepConfig
    from sage.sweep.sweep import Swept
    from sage.sweep.workers import Workers

_KEYS_SHOWN = 8
TRAIN_BARS = 1_000
"""Bars before the first window, unless somebody says otherwise."""


def sweep(
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="KEY=1,2,3 lists values, KEY=FROM:TO:COUNT[:log] spaces, KEY=FROM~TO[:log] draws them; repeatable.",
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=0, help="How often drawn values are drawn, for each combination of others.")
    ] = None,
    draw_seed: Annotated[int | None, typer.Option(min=0, help="Seed of what is drawn. Default: 0.")] = None,
    grid: Annotated[
        Path | None, typer.Option(help="TOML file with [set], draws, draw_seed, instruments, periods and [windows].")
    ] = None,
    catalog: Annotated[
        str | None, typer.Option(help="Catalog with the bars: a directory, or an address such as s3://bucket/catalog.")
    ] = None,
    instrument: Annotated[list[str] | None, typer.Option(help="Instrument in the catalog; repeatable.")] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m.")] = None,
    data: Annotated[str | None, typer.Option(help="synthetic or sp500, without a catalog.")] = None,
    period: Annotated[list[str] | None, typer.Option(help="START..END, dates or times, UTC; repeatable.")] = None,
    train_bars: Annotated[
        int | None, typer.Option(help="Windows: bars to learn from before the first of them. Default: 1000.")
    ] = None,
    test_bars: Annotated[int | None, typer.Option(help="Windows: bars of each; with it there are windows.")] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Windows learn from the last --train-bars alone, not from all before.")
    ] = False,
    embargo_bars: Annotated[int | None, typer.Option(help="Bars between windows. Default: the horizon.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file, as for sage backtest: what all runs share.")] = None,
    model: Annotated[str | None, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = None,
    store_dir: Annotated[str | None, typer.Option(help="The forecast store, a directory or an address.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Where it all goes, a directory or an address; runs/<time>-sweep by default.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with an earlier sweep, as it was or with more values: what is done is not run."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one for each core.")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster that is there: auto, or HOST:PORT. Needs sage[ray].")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="The file that counts trials. Default: $SAGE_TRIALS.")] = None,
    heatmap: Annotated[
        str | None, typer.Option(help="KEY,KEY of the report's heat map. Default: the first two.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its size, and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every combination of parameters, instruments, periods and windows, and tell what the best is worth.

    Each run is that of sage backtest, on forecasts made once. The deflated Sharpe ratio counts all trials ever made on
    the instruments, the probability of overfitting comes from cross-validation. Exit code 1: some runs failed.
    """
    with errors_as_exit_codes():
        from cli.render import LiveProgress
        from data.errors import OptionError
        from sage.sweep import report
        from sage.sweep.ledger import Ledger, default_ledger
        from sage.sweep.places import without_secrets
        from sage.sweep.plan import plan_of
        from sage.sweep.results import write_results
        from sage.sweep.sweep import done_before, planned_before
        from sage.sweep.sweep import sweep as run_sweep

        if out is not None and resume is not None:
            raise OptionError("--out and --resume exclude each other: what goes on stays where it is")
        if workers is not None and ray is not None:
            raise OptionError("--workers and --ray exclude each other: a cluster has as many as it has cores")
        if workers is not None and workers < 1:
            raise OptionError(f"--workers {workers}: must be 1 or more")
        of_plan = (sets, draws, draw_seed, grid, catalog, instrument, bar, data, period, train_bars, test_bars,
                   rolling or None, embargo_bars, config, model, store_dir, seed)  # fmt: skip
        if resume is not None and all(given is None for given in of_plan):
            settings = planned_before(resume)
        else:
            base = _settings(config, data_options(data, catalog, bar=bar), model, store_dir, seed)
            windows = {"train_bars": train_bars, "test_bars": test_bars, "rolling": rolling or None,
                       "embargo_bars": embargo_bars}  # fmt: skip
            settings = _with_grid(base, grid, sets or [], (draws, draw_seed), instrument, period, windows)
        if ray is not None:
            settings = dataclasses.replace(settings, backtest=_with_absolute_places(settings.backtest))
        keys = [axis.key for axis in settings.axes]
        heat = report.heat_keys(keys, heatmap)
        if heatmap is not None and heat is not None and not set(heat) <= set(keys):
            raise OptionError(f"--heatmap {heatmap}: must be two of {', '.join(keys) or 'the keys that --set names'}")
        plan = plan_of(settings)
        if dry_run:
            done = done_before(plan, _place(None, resume)) if resume is not None else 0
            _tell_plan(plan, done, as_json=as_json)
            return
        hands = _workers(workers, ray, len(plan.tasks))
        place = _place(out, resume)
        if ray is not None:
            _require_ready(hands, place, plan)
        counted = Ledger(ledger or default_ledger())
        with LiveProgress() as progress:
            found = run_sweep(plan, place, hands, counted, progress)
        write_results(found, place, heat)
        _tell(found, place, as_json=as_json)
        if found.interrupted:
            shown = without_secrets(place)
            kept = f"finished runs are in {shown}" if found.rows else "no run was finished"
            raise KeyboardInterrupt(f"{kept}; to go on: --resume {shown}")
        if found.failed:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _place(out: str | None, resume: str | None) -> str:
    """Where a sweep goes, or goes on."""
    from data.errors import OptionError
    from sage.rundir import choose_directory
    from sage.sweep.places import is_remote, local_path, read_file, without_secrets
    from sage.sweep.sweep import SWEEP_FILE

    place = resume or out
    if place is None or not (is_remote(place) or resume):
        return str(choose_directory(None if place is None else local_path(place), "sweep").absolute())
    there = read_file(place, SWEEP_FILE) is not None
    if resume and not there:
        raise OptionError(f"--resume {without_secrets(resume)}: there is no sweep")
    if there and not resume:
        raise OptionError(f"--out {without_secrets(place)}: there is a sweep already; to go on with it: --resume")
    return place if is_remote(place) else str(local_path(place).absolute())


def _settings(
    config: Path | None, data: dict[str, Any], model: str | None, store_dir: str | None, seed: int | None
) -> Any:
    from sage.config import BacktestConfig, load_config, with_values

    base = load_config(config) if config is not None else BacktestConfig()
    return with_values(
        base,
        data=with_values(base.data, **data),
        model=with_values(base.model, name=model, store_dir=store_dir),
        seed=seed,
    )


def _with_grid(
    base: Any, grid: Path | None, sets: list[str], drawn: tuple[int | None, int | None],
    instruments: list[str] | None, periods: list[str] | None, windows: dict[str, Any],
) -> SweepConfig:  # fmt: skip
    """The sweep out of its file and its options, which come first."""
    from data.errors import OptionError
    from sage.sweep.axes import parse_axis
    from sage.sweep.file import load_sweep, parse_period
    from sage.sweep.plan import SweepConfig
    from sage.sweep.windows import WindowConfig

    found = load_sweep(grid, base) if grid is not None else SweepConfig(base)
    own = tuple(map(parse_axis, sets))
    kept = tuple(axis for axis in found.axes if axis.key not in {one.key for one in own})
    chosen = {name: value for name, value in windows.items() if value is not None}
    if found.windows is None and chosen and "test_bars" not in chosen:
        raise OptionError(
            "--train-bars, --rolling and --embargo-bars are of windows: say how long each is with --test-bars"
        )
    if found.windows is None and chosen:
        found = dataclasses.replace(found, windows=WindowConfig(**({"train_bars": TRAIN_BARS} | chosen)))
    elif found.windows is not None:
        found = dataclasses.replace(found, windows=dataclasses.replace(found.windows, **chosen))
    found = dataclasses.replace(
        found,
        axes=(*kept, *own),
        draws=found.draws if drawn[0] is None else drawn[0],
        seed=found.seed if drawn[1] is None else drawn[1],
        instruments=tuple(instruments) if instruments else found.instruments,
        periods=tuple(map(parse_period, periods)) if periods else found.periods,
    )
    if not found.axes and found.windows is None and max(len(found.instruments), len(found.periods)) < 2:
        raise OptionError(
            "nothing to vary: name values with --set KEY=1,2,3, or several of --instrument or --period, or windows "
            "with --test-bars; a run alone is that of sage backtest"
        )
    return found


def _with_absolute_places(base: Any) -> Any:
    """Places that other machines find under the same names: not under this one's working or home directory."""
    from regime.serving.store import default_root
    from sage.config import with_values
    from sage.sweep.places import is_remote, local_path

    def absolute(place: str) -> str:
        return place if is_remote(place) else str(local_path(place).absolute())

    data, model = base.data, base.model
    return with_values(
        base,
        data=with_values(data, catalog=None if data.catalog is None else absolute(data.catalog)),
        model=with_values(model, store_dir=absolute(model.store_dir or str(default_root()))),
    )


def _require_ready(hands: Any, place: str, plan: Plan) -> None:
    """See that all nodes find results, store, catalog and models where this machine does, before any run begins."""
    from regime.model.checkpoint import find_checkpoint
    from sage.sweep.forecasts import jobs_of

    configs = [task.config for task in plan.tasks]
    asking = [job.config for job in jobs_of(plan)]
    stores = {config.model.store_dir for config in asking if config.model.store_dir is not None}
    read = {config.data.catalog for config in configs if config.data.catalog is not None}
    hands.require_shared([place, *sorted(stores)], sorted(read))
    for name in dict.fromkeys(config.model.name for config in asking):
        hands.require_model(find_checkpoint(name))
    for spec in dict.fromkeys(config.serving.engine for config in asking):
        hands.require_alike(spec)


def _workers(count: int | None, ray: str | None, tasks: int) -> Workers:
    import os

    from sage.sweep.workers import LocalWorkers

    if ray is not None:
        from sage.sweep.ray_workers import RayWorkers

        return RayWorkers(ray)
    return LocalWorkers(min(count or len(os.sched_getaffinity(0)), max(1, tasks)))


def _tell_plan(plan: Plan, done: int, *, as_json: bool) -> None:
    from cli.render import result_console, table_of

    config = plan.config
    windows = len({(str(task.period), task.window.number) for task in plan.tasks if task.window is not None})
    points = len({json.dumps(task.values, sort_keys=True, default=str) for task in plan.tasks})
    if as_json:
        document = {
            "runs": len(plan.tasks), "done": done, "trials": plan.trials, "points": points, "windows": windows,
            "bars": plan.bars_to_run,
            "tasks": [{"run": task.number, "trial": task.trial, "key": task.key, "instrument": task.instrument,
                       "period": str(task.period), "window": None if task.window is None else task.window.number,
                       "values": task.values} for task in plan.tasks],
        }  # fmt: skip
        typer.echo(json.dumps(document, indent=2, default=str))
        return
    rows = [(axis.key, _axis_told(axis, config.draws)) for axis in config.axes]
    rows += [
        ("points", f"{points:,} combinations of values"),
        ("instruments", ", ".join(dict.fromkeys(task.instrument for task in plan.tasks))),
        ("periods", ", ".join(dict.fromkeys(str(task.period) for task in plan.tasks))),
        ("windows", f"{windows:,}" if windows else "none: each run trades on all of its bars"),
        ("trials", f"{plan.trials:,} of values and instrument"),
        ("runs", f"{len(plan.tasks):,}, {plan.bars_to_run:,} bars" + (f"; {done:,} done before" if done else "")),
    ]
    result_console().print(table_of(rows, "[bold]SAGE sweep, planned[/bold]"), highlight=False)


def _axis_told(axis: Any, draws: int) -> str:
    if axis.span is not None:
        how = ", in logarithms" if axis.logarithmic else ""
        return f"drawn {draws:,} times from {axis.span[0]:g} to {axis.span[1]:g}{how}"
    shown = ", ".join(map(str, axis.values[:_KEYS_SHOWN]))
    return shown + (f", … ({len(axis.values):,} in all)" if len(axis.values) > _KEYS_SHOWN else "")


def _tell(swept: Swept, place: str, *, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from cli.render import result_console, table_of
    from sage.sweep import report
    from sage.sweep.places import local_path, without_secrets
    from sage.sweep.table import TABLE

    if as_json:
        typer.echo((local_path(place) / report.JSON_FILE).read_text(), nl=False)
        return
    console = result_console()
    columns, rows = report.best_rows(swept, 10)
    if rows:
        table = Table(title="[bold]The best trials[/bold]", title_justify="left", box=None)
        for number, name in enumerate(columns):
            table.add_column(name.rpartition(".")[2], justify="left" if number == 1 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table, highlight=False)
        console.print()
    done = len(swept.rows) - len(swept.failed)
    made = swept.forecasts
    lines = [
        (
            "runs",
            f"{done:,} of {len(swept.plan.tasks):,}" + (f", {swept.reused:,} done before" if swept.reused else ""),
        ),
        ("forecasts", f"{made.needed:,} needed, {made.made:,} made" + (f"; {made.problem}" if made.problem else ""))
        if swept.rows or not swept.interrupted
        else ("forecasts", "interrupted; what was made is in the store"),
        *(("" if number else "findings", finding.told) for number, finding in enumerate(report.findings(swept))),
        *(
            ("" if number else "failed", f"run {row['run']}: {row['error']}")
            for number, row in enumerate(swept.failed[:5])
        ),
        *([("table", f"{without_secrets(place)}/{TABLE}")] if swept.rows else []),
        ("report", f"{without_secrets(place)}/{report.HTML_FILE}"),
    ]
    console.print(table_of(lines, "[bold]SAGE sweep[/bold]"), highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)
