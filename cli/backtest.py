"""``sage backtest``: a regime-aware backtest, from one command to one report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import choice, data_options
from cli.version import show_version

if TYPE_CHECKING:
    from sage.collector import Observer
    from sage.config import BacktestConfig
    from sage.progress import Progress


def backtest(
    data: Annotated[
        str | None, typer.Option(help="synthetic (default) or sp500; a catalog has options of its own.")
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog directory, as made by sage ingest.")] = None,
    instrument: Annotated[str | None, typer.Option(help="Instrument in the catalog, SYMBOL.VENUE.")] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m.")] = None,
    start: Annotated[str | None, typer.Option(help="First date or time, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date or time, UTC, inclusive.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/<time>-<instrument> by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market.")] = None,
    model: Annotated[str | None, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = None,
    online: Annotated[bool | None, typer.Option("--online", help="Ask the model bar by bar, not ahead.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto (native where it can be compiled, else torch), native, torch or stock.")
    ] = None,
    store: Annotated[
        bool | None, typer.Option("--store/--no-store", help="Keep forecasts for the next run. Default: on.")
    ] = None,
    store_dir: Annotated[Path | None, typer.Option(help="Where to keep them; see sage store info.")] = None,
    allow_degraded: Annotated[
        bool | None, typer.Option("--allow-degraded", help="Run without a model if there is none.")
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Answer each bar within this time; implies --online.")
    ] = None,
    hang_limit_s: Annotated[
        float | None, typer.Option(help="Without a deadline, give a forecast up after this.")
    ] = None,
    level: Annotated[int | None, typer.Option(min=0, max=5, help="Pin a level: none above it is asked.")] = None,
    allow_short: Annotated[
        bool | None, typer.Option("--allow-short/--no-short", help="Default: on for FX and perpetuals only.")
    ] = None,
    cash: Annotated[float | None, typer.Option(help="Starting cash, in the quote currency.")] = None,
    fee_bps: Annotated[float | None, typer.Option(help="Fee per trade, basis points.")] = None,
    spread_bps: Annotated[
        float | None, typer.Option(help="Full bid-ask spread, basis points. Default: as measured at ingest, else 2.")
    ] = None,
    slippage_bps: Annotated[float | None, typer.Option(help="Slippage per trade, basis points.")] = None,
    funding_bps: Annotated[
        float | None, typer.Option(help="Funding of perpetuals per 8 hours, basis points; longs pay it to shorts.")
    ] = None,
    borrow_bps: Annotated[
        float | None, typer.Option(help="Borrowing for short shares and coins, basis points a year.")
    ] = None,
    participation: Annotated[
        float | None, typer.Option(help="Largest share of a bar's volume for an order; 0: no limit. Default: 0.01.")
    ] = None,
    latency_ms: Annotated[float | None, typer.Option(help="From order to venue; 0 fills at the same close.")] = None,
    strategy: Annotated[str | None, typer.Option(help="A NautilusTrader strategy of your own, MODULE:CLASS.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for your strategy's configuration; repeatable.")
    ] = None,
    forecaster: Annotated[str | None, typer.Option(help="A forecaster of your own in the model's place.")] = None,
    alpha: Annotated[
        list[str] | None, typer.Option(help="An alpha model of your own beside SAGE's; repeatable.")
    ] = None,
    walk: Annotated[
        bool, typer.Option("--walk-forward", help="Trade on successive windows, each after the bars before it.")
    ] = False,
    folds: Annotated[int | None, typer.Option(help="Windows of a walk-forward. Default: 5.")] = None,
    fold_bars: Annotated[int | None, typer.Option(help="Bars of each window, in place of --folds.")] = None,
    train_bars: Annotated[int | None, typer.Option(help="Bars before the first window. Default: 1000.")] = None,
    rolling: Annotated[
        bool | None,
        typer.Option("--rolling", help="Learn from the last --train-bars alone, not from all earlier ones."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; options on the command line win.")] = None,
    check_lookahead: Annotated[
        bool,
        typer.Option("--check-lookahead", help="Run again with other futures: does anything depend on a later bar?"),
    ] = False,
    lookahead_cuts: Annotated[
        int | None, typer.Option(help="Places at which that check alters the future. Default: 8.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Show on stderr how the run is doing while it goes on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback has answered)
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run a backtest in which TiRex turns bars into regimes and the SAGE strategy trades on them.

    Without options it runs on a simulated regime-switching market. The run directory holds the report, all tables
    and everything it takes to run it again.
    """
    with errors_as_exit_codes(without_model="To run without a model: --allow-degraded"), contextlib.ExitStack() as kept:
        import json

        from cli import render, walk_forward
        from data.errors import OptionError
        from regime.signal import Level
        from sage import lookahead, rundir
        from sage.backtest import run_backtest
        from sage.config import BacktestConfig, load_config, with_values
        from sage.model import runs_online

        settings = load_config(config) if config is not None else BacktestConfig()
        settings = with_values(
            settings,
            data=with_values(settings.data, **data_options(data, catalog, instrument, bar, start, end)),
            model=with_values(
                settings.model,
                name=model,
                online=online,
                store=store,
                store_dir=None if store_dir is None else str(store_dir),
                allow_degraded=allow_degraded,
            ),
            serving=_serving_options(settings, engine),
            regime=_regime_options(settings, deadline_ms, hang_limit_s, level),
            sizing=with_values(settings.sizing, allow_short=allow_short),
            costs=with_values(
                settings.costs,
                fee_bps=fee_bps,
                spread_bps=spread_bps,
                slippage_bps=slippage_bps,
                funding_bps_8h=funding_bps,
                borrow_bps_year=borrow_bps,
                participation=participation,
                latency_ms=latency_ms,
            ),
            own=_own_options(settings, strategy, param, forecaster, alpha),
            walk_forward=with_values(
                settings.walk_forward, folds=folds, fold_bars=fold_bars, train_bars=train_bars, rolling=rolling
            ),
            cash=cash,
            seed=seed,
        )
        walk_forward.require_flag(
            walk_forward=walk, folds=folds, fold_bars=fold_bars, train_bars=train_bars, rolling=rolling
        )
        if forecaster is not None and model is not None:
            raise OptionError("--forecaster and --model exclude each other: only one of them can forecast")
        for option, value in (("--model", model), ("--forecaster", forecaster)):
            if value is not None and level is not None and level > Level.BASIC:
                raise OptionError(f"{option} has no use here: with --level {level} no model is asked")
        if settings.model.store_dir is not None and (not settings.model.store or runs_online(settings)):
            raise OptionError(
                "--store-dir has no use here: with --no-store, --online or --deadline-ms no store is read"
            )
        if live and walk:
            raise OptionError("--live shows one backtest; --walk-forward makes many")
        cuts = lookahead.CUTS if lookahead_cuts is None else lookahead_cuts
        if check_lookahead and walk:
            raise OptionError("--check-lookahead and --walk-forward are two questions: ask one at a time")
        if check_lookahead:
            lookahead.require_checkable(settings.regime.deadline_ms, cuts)
        elif lookahead_cuts is not None:
            raise OptionError("--lookahead-cuts goes with --check-lookahead")
        directory = kept.enter_context(rundir.claimed(out, settings.data.instrument or settings.data.source))
        if walk:
            walk_forward.run(settings, directory, as_json=as_json)
            return
        # What a user's code prints is a message; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr), _progress(settings, live=live) as (progress, observer):
            run = run_backtest(settings, progress, observer=observer)
            progress.stage("writing the report", 1)
            figures = rundir.write(run, directory)
            progress.advance(1)
            found = None
            if check_lookahead and run.stopped is None:
                found = lookahead.as_report(lookahead.check_lookahead(run, cuts, progress))
                rundir.write_json(directory / "lookahead.json", found)
        if run.model_error:
            typer.echo(f"sage: no model, degraded from the first bar on: {run.model_error}", err=True)
        if as_json:
            for note in run.notes:
                typer.echo(f"sage: note: {note}", err=True)
            document = json.loads((directory / "summary.json").read_text())
            typer.echo(json.dumps(document if found is None else document | {"lookahead": found}, indent=2))
        else:
            render.backtest_summary(figures, directory)
            if found is not None:
                render.lookahead_summary(found)
        if run.stopped is not None:
            raise run.stopped
        if found is not None and found["verdict"] != lookahead.Verdict.CLEAN:
            undecided = found["verdict"] == lookahead.Verdict.UNDECIDED
            raise typer.Exit(int(ExitCode.UNDECIDED if undecided else ExitCode.CHECK_FAILED))


@contextlib.contextmanager
def _progress(settings: BacktestConfig, *, live: bool) -> Iterator[tuple[Progress, Observer | None]]:
    """What shows how far the run is and, live, what looks on for it."""
    if not live:
        from cli.render import LiveProgress

        with LiveProgress() as bar:
            yield bar, None
        return
    from cli.dashboard import live_backtest

    title = f"SAGE backtest, {settings.data.instrument or settings.data.source}"
    with live_backtest(title, settings.regime.deadline_ms) as found:
        yield found


def _serving_options(settings: BacktestConfig, engine: str | None) -> Any:
    from regime.model.engines import ENGINE_KINDS
    from sage.config import with_values

    kind = choice("--engine", engine, ENGINE_KINDS)
    return with_values(settings.serving, engine=with_values(settings.serving.engine, kind=kind))


def _regime_options(
    settings: BacktestConfig, deadline_ms: float | None, hang_limit_s: float | None, level: int | None
) -> Any:
    from regime.signal import Level
    from sage.config import with_values

    return with_values(
        settings.regime,
        deadline_ms=deadline_ms,
        hang_limit_s=hang_limit_s,
        pinned_level=None if level is None else Level(level),
    )


def _own_options(
    settings: BacktestConfig,
    strategy: str | None,
    params: list[str] | None,
    forecaster: str | None,
    alphas: list[str] | None,
) -> Any:
    from data.errors import OptionError
    from sage.config import with_values

    given = {}
    for text in params or []:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise OptionError(f"--param {text}: write NAME=VALUE")
        given[name] = value
    return with_values(
        settings.own,
        strategy=strategy,
        forecaster=forecaster,
        alphas=tuple(alphas) if alphas else None,
        params=settings.own.params | given if given else None,
    )
