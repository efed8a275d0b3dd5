"""``sage model evaluate``: do the forecasts hold their own against GJR-GARCH?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import choice, output_file

if TYPE_CHECKING:
    from sage.evaluation.study import Evaluation

TASK_NAMES = {"one_step": "next bar", "horizon": "whole horizon"}


def evaluate(
    data: Annotated[
        str | None, typer.Option(help="synthetic (default) or sp500; a catalog has options of its own.")
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog directory, as made by sage ingest.")] = None,
    instrument: Annotated[
        list[str] | None, typer.Option(help="Instrument in the catalog, SYMBOL.VENUE; again for more. Default: all.")
    ] = None,
    bar: Annotated[str | None, typer.Option(help="Bar size in the catalog, such as 30m. Default: all held.")] = None,
    start: Annotated[str | None, typer.Option(help="First date or time, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date or time, UTC, inclusive.")] = None,
    model: Annotated[str, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = "embedded",
    engine: Annotated[
        str, typer.Option(help="auto (native where it can be compiled, else torch), native, torch or stock.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the native engine.")] = 2,
    forecasts: Annotated[int, typer.Option(help="The newest of each instrument count, so many at most.")] = 9_000,
    context: Annotated[int, typer.Option(help="Bars that the model looks at.")] = 512,
    horizon: Annotated[int, typer.Option(help="Bars to forecast.")] = 16,
    warm_up: Annotated[int, typer.Option(help="Bars before the baselines' first forecast.")] = 2_000,
    window: Annotated[int, typer.Option(help="Bars that a baseline is fitted to.")] = 4_000,
    refit: Annotated[int, typer.Option(help="Fit again after so many bars.")] = 1_500,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap, and of the simulated market.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="Keep each finished instrument here; a rerun with the same settings goes on.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and pictures to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where a target is missed.")] = False,
) -> None:
    """Evaluate a model's forecasts, walking forward, beside GJR-GARCH-t, EWMA and historical quantiles.

    Each forecast rests on bars before it alone. Differences come with block bootstrap errors and Diebold-Mariano
    p-values. An evaluation is not a check: the exit code is 0 unless something failed, or --check asks for more.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from regime.model.engines import ENGINE_KINDS, EngineSpec
        from sage.evaluation import study
        from sage.evaluation.report import as_document, as_html
        from sage.evaluation.settings import EvaluationConfig

        choice("--engine", engine, ENGINE_KINDS)
        if catalog is not None and data is not None:
            raise OptionError(f"--catalog and --data {data} exclude each other")
        output_file("--html", html)
        if out is not None and out.exists() and not out.is_dir():
            raise OptionError(f"--out {out}: is a file, not a directory")
        config = EvaluationConfig(
            source=data or "synthetic",
            catalog=catalog,
            instruments=tuple(instrument or ()),
            bar=bar,
            start=start,
            end=end,
            model=model,
            engine=EngineSpec(kind=engine, threads=threads),  # type: ignore[arg-type]
            forecasts=forecasts,
            context_bars=context,
            horizon_bars=horizon,
            warm_up_bars=warm_up,
            window_bars=window,
            refit_bars=refit,
            seed=seed,
            out=out,
        )
        try:
            with render.LiveProgress() as progress:
                evaluation = study.evaluate(config, progress)
        except KeyboardInterrupt:
            if out is None:
                kept = "no result was written; with --out DIR finished instruments are kept"
            else:
                kept = f"finished instruments are kept in {out}: the same command goes on from there"
            raise KeyboardInterrupt(kept) from None
        document = as_document(evaluation)
        content = json.dumps(document, indent=2)
        if out is not None:
            write_durably(out / "evaluation.json", content + "\n")
        if html is not None:
            write_durably(html, as_html(evaluation))
        if as_json:
            typer.echo(content)
        else:
            summary(evaluation, document, html)
        if check and not evaluation.verdict.met:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))


def summary(evaluation: Evaluation, document: dict[str, Any], picture: Path | None) -> None:
    """One table per instrument, then what they say together."""
    from rich.table import Table

    from cli.render import result_console, table_of
    from sage.evaluation.report import counted, forecasts_told

    console = result_console()
    for result in document["results"]:
        table = Table(
            title=f"[bold]{result['instrument']} {result['bar']}[/bold], "
            f"{forecasts_told(result['forecasts'], document['forecasts_at_most'])}, "
            f"{result['first']} to {result['last']}",
            title_justify="left",
            box=None,
        )
        table.add_column("", no_wrap=True)
        for name in ("pinball bp", "CRPS bp", "coverage", "QLIKE", "model beside it", "± SE", "DM p", "QLIKE DM p", ""):
            table.add_column(name, justify="right", no_wrap=True)
        for task, task_name in TASK_NAMES.items():
            table.add_row(f"[dim]{task_name}[/dim]")
            for name, forecaster in result["forecasters"].items():
                table.add_row(name, *_cells(forecaster[task]))
        console.print(table, highlight=False)
        if result["left_out"]:
            left_out = counted(result["left_out"], "bar")
            console.print(f"  {left_out} left out: a gap in the horizon", style="dim", highlight=False)
        console.print()
    verdict = document["verdict"]
    rows = [("model", f"{document['model']} ({document['checkpoint']}), {document['engine']}")]
    for baseline, means in verdict["mean_difference"].items():
        told = ", ".join(f"{name} {_percent(means[task])}" for task, name in TASK_NAMES.items())
        rows.append((f"beside {baseline}", f"{told}  (mean over instruments)"))
    rows += [
        ("broken baseline", f"{text}: loses to historical quantiles, does not count") for text in verdict["broken"]
    ]
    if verdict["kept_fits"]:
        rows.append(("refits failed", f"{verdict['kept_fits']:,} of {verdict['refits']:,} kept earlier parameters"))
    rows += [("skipped", text) for text in document["skipped"]]
    if evaluation.reused:
        told = f"{evaluation.reused} of {counted(len(evaluation.results), 'instrument')}, finished earlier"
        rows.append(("from --out", told))
    if picture is not None:
        rows.append(("picture", str(picture)))
    rows += [("verdict" if at == 0 else "", text) for at, text in enumerate(verdict["lines"])]
    console.print(table_of(rows, "[bold]Verdict[/bold]"), highlight=False)
    console.print(
        "Losses: less is better; negative differences favour the model. CRPS is estimated as twice the mean pinball "
        "loss of nine quantiles, and so leaves out the outer tails.",
        style="dim",
        highlight=False,
    )
    console.print("Built with technology from NXAI", style="dim", highlight=False)


def _cells(score: dict[str, Any]) -> list[str]:
    cells = [f"{1e4 * score[name]:.4f}" for name in ("pinball", "crps")]
    cells += [f"{score['coverage']:.2%}", f"{score['qlike']:.4f}"]
    if "difference" not in score:
        return cells
    cells += [f"{score['difference']:+.2%}", f"{score['standard_error']:.2%}"]
    cells += [f"{score[name]:.3f}" for name in ("p_value", "qlike_p_value")]
    return [*cells, "broken" if score["broken"] else ""]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"
