"""``sage inject-fault``: what happens when the model, its weights, its data or its machine fail?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import choice, output_file

_COLOURS = {"passed": "green", "failed": "bold red", "not placed": "bold red", "skipped": "dim"}


def inject_fault(
    faults: Annotated[list[str] | None, typer.Argument(help="Faults to provoke; see --list.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List every fault there is.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Provoke every fault at every place.")] = False,
    where: Annotated[
        str | None, typer.Option(help="warm-up, flat, position or half-open (the breaker). Default: each of them.")
    ] = None,
    at: Annotated[int | None, typer.Option(help="Begin at this bar instead, counted from 1.")] = None,
    for_bars: Annotated[int | None, typer.Option("--for", help="Last so many bars. Default: the fault's own.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Answer each bar within this time; 50 by default.")] = None,
    model: Annotated[str | None, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, native, torch or stock; auto by default.")] = None,
    bars: Annotated[int | None, typer.Option(help="Length of each run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market and of the faults.")] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Run to the end, and say what each fault cost in equity.")
    ] = False,
    schedules: Annotated[
        int | None, typer.Option(help="Instead: so many random schedules of faults on a simulated machine.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Instead: this schedule, such as model.hang@120+40.")] = None,
    real: Annotated[
        int | None, typer.Option(help="Instead: so many random schedules against a real model process.")
    ] = None,
    kills: Annotated[
        int | None,
        typer.Option(help="Instead: kill the model process so often, each time after 20 answers at level 0."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the matrix and every bar's level to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Provoke faults in a real run, with a real model process, and judge what answered, what was lost and what it cost.

    Exit code 1 if anything is not as the table of levels demands, or a fault could not be placed. Schedules of several
    faults are judged by the invariants instead.
    """
    with errors_as_exit_codes():
        from data.errors import OptionError
        from regime.model.engines import ENGINE_KINDS
        from sage.config import with_values
        from stress.campaign import placements, run_campaign
        from stress.cases import InjectConfig
        from stress.inject_report import as_document, as_html, catalogue

        if show_list:
            _show_list(catalogue(), as_json=as_json)
            return
        instead = kills is not None or schedules is not None or schedule is not None or real is not None
        given = {"a fault": faults, "--all": everything, "--where": where, "--at": at, "--for": for_bars,
                 "--baseline": baseline, "--bars": bars, "--html": html, "--engine": engine,
                 "--deadline-ms": deadline_ms if kills is None else None,
                 "--model": model if kills is None and real is None else None}  # fmt: skip
        stray = [name for name, value in given.items() if value not in (None, False, [])]
        if instead and stray:
            raise OptionError(
                f"{stray[0]} has no meaning for schedules or kills: they say themselves what happens when, and to what"
            )
        if kills is not None:
            from cli import inject_deaths

            if schedules is not None or schedule is not None or real is not None:
                raise OptionError("--kills and schedules are runs of their own: give one of them")
            inject_deaths.run(
                kills, seed=7 if seed is None else seed, model=model, deadline_ms=deadline_ms, as_json=as_json
            )
            return
        if instead:
            from cli import inject_chaos

            inject_chaos.run(
                schedules=schedules, seed=1 if seed is None else seed, schedule=schedule, real=real, model=model,
                as_json=as_json,
            )  # fmt: skip
            return
        if everything == bool(faults):
            both = "--all and names of faults exclude each other"
            raise OptionError(both if everything else "name the faults to provoke, or give --all; --list lists them")
        kind = choice("--engine", engine, ENGINE_KINDS)
        output_file("--html", html)
        config = with_values(InjectConfig(baseline=baseline), engine=kind, deadline_ms=deadline_ms, model=model,
                             bars=bars, seed=seed)  # fmt: skip
        campaign = _run(faults or [], placements(where, at, for_bars), config, run_campaign)
        document = as_document(campaign)
        if html is not None:
            from regime.files import write_durably

            write_durably(html, as_html(campaign))
        if as_json:
            typer.echo(json.dumps(document, indent=2, allow_nan=False))
        else:
            _show(document, config.deadline_ms, html)
        if document["problems"]:
            raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _run(faults: list[str], where: Any, config: Any, run_campaign: Any) -> Any:
    from cli import render

    with render.LiveProgress() as progress:
        return run_campaign(list(dict.fromkeys(faults)), where, config, progress)


def _show_list(faults: list[dict[str, Any]], *, as_json: bool) -> None:
    from cli import render

    if as_json:
        typer.echo(json.dumps(faults, indent=2))
        return
    table = Table(title="[bold]SAGE faults[/bold]", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("fault", "what happens", "must answer", "bars", "needs"):
        table.add_column(name, overflow="fold", no_wrap=name == "fault")
    for fault in faults:
        lasts = "" if fault["lasts_bars"] is None else str(fault["lasts_bars"])
        cells = (fault["fault"], fault["does"], fault["expected"], lasts, ", ".join(fault["needs"]))
        table.add_row(*map(Text, cells))
    render.result_console().print(table, highlight=False)


def _show(document: dict[str, Any], deadline_ms: float, html: Path | None) -> None:
    """One row for each fault, the worst of its places; then what is wrong, and the sum."""
    from cli import render
    from stress.inject_report import by_fault

    places = list(dict.fromkeys(case["place"] for case in document["cases"]))
    table = Table(title="[bold]SAGE faults[/bold]", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("fault", "must answer", "answered", "reasons", *places):
        table.add_column(name, overflow="fold", no_wrap=name == "fault")
    for name in ("worst ms", "bars lost", "orders degraded", "level 0 after"):
        table.add_column(name, justify="right", no_wrap=True)
    compared = any(case["cost"] is not None for case in document["cases"])
    if compared:
        table.add_column("cost", justify="right", no_wrap=True)
    for row in by_fault(document):
        answered = row["levels"] | ({"rejected": row["rejected"]} if row["rejected"] else {})
        levels = "  ".join(f"{name} {count}" for name, count in answered.items())
        cells = [Text(row["fault"]), Text(row["expected"]), Text(levels), Text(", ".join(row["reasons"]))]
        cells += [_verdict(row["cases"].get(place)) for place in places]
        back = "–" if row["bars_to_full"] is None else str(row["bars_to_full"])
        figures = [f"{row['worst_ms']:.1f}", str(row["bars_lost"]), str(row["orders_degraded"]), back]
        if compared:
            costs = [case["cost"] for case in row["cases"].values() if case["cost"] is not None]
            figures.append(f"{max(costs):,.2f}" if costs else "–")
        table.add_row(*cells, *figures)
    counts = document["counts"]
    levels = ", ".join(document["levels_reached"])
    rows = [(("problem"), problem) for problem in document["problems"]]
    skipped = dict.fromkeys(
        f"{case['fault']}: {case['why']}" for case in document["cases"] if case["verdict"] == "skipped"
    )
    rows += [("skipped", text) for text in skipped]
    strays = sum(case["stray_timeouts"] for case in document["cases"])
    if strays:
        rows.append(
            ("note", f"{strays} answers were late because the machine was busy, which no fault is to blame for")
        )
    late = [case for case in document["cases"] if case["worst_ms"] is not None and case["worst_ms"] > deadline_ms]
    if late:
        worst = max(late, key=lambda case: case["worst_ms"])
        rows.append(
            (
                "late",
                f"{len(late)} cases had an answer after the deadline of {deadline_ms:g} ms by this machine's clock, at "
                f"worst {worst['worst_ms']:.1f} ms ({worst['fault']}, {worst['place']}); the wall clock is judged by "
                "make bench-deadline, not here",
            )
        )
    rows += [
        ("levels reached", f"{levels} (those of warm-up aside)"),
        ("cases", ", ".join(f"{count} {name}" for name, count in counts.items()) + f"; {document['seconds']:.0f} s"),
    ]
    if html is not None:
        rows.append(("picture", str(html)))
    console = render.result_console()
    console.print(table, highlight=False)
    console.print(render.table_of(rows, ""), highlight=False)


def _verdict(case: dict[str, Any] | None) -> Text:
    if case is None:
        return Text("")
    verdict = case["verdict"]
    return Text(verdict, style=_COLOURS[verdict])
