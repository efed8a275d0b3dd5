"""The part of ``sage inject-fault`` that kills the model process again and again: ``--kills``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from cli.exits import ExitCode

if TYPE_CHECKING:
    from stress.deaths import DeathsReport


def run(kills: int, *, seed: int, model: str | None, deadline_ms: float | None, as_json: bool) -> None:
    """Kill, wait for recovery, and tell what was lost and what grew; exit code 1 where something was or did.

    Raises
    ------
    OptionError
        If the numbers make no sense.
    ModelUnavailable
        If the model does not start at all.
    """
    from cli import render
    from sage.config import with_values
    from stress.deaths import DeathsConfig, as_document, check, kill_repeatedly

    config = with_values(DeathsConfig(kills=kills, seed=seed), model=model, deadline_ms=deadline_ms)
    check(config)
    with render.LiveProgress() as progress:
        report = kill_repeatedly(config, progress)
    document = as_document(report)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(report, document)
    if report.problems:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _show(report: DeathsReport, document: dict[str, Any]) -> None:
    from cli import render

    resident, recovery = document["resident_mb"], document["recovery_bars"]
    rows = [
        ("kills", f"{report.kills:,}, each after {report.config.answers_between} answers at level FULL"),
        ("bars", f"{report.bars:,}, signals {report.signals:,}"),
        ("levels", ", ".join(f"{name} {count:,}" for name, count in document["levels"].items() if count)),
        ("reasons", ", ".join(f"{name} {count:,}" for name, count in document["reasons"].items())),
        (
            "level 0 again",
            f"after {recovery['median']} bars (median), {recovery['max']} at most, at "
            f"{report.config.bars_per_second:g} bars a second",
        ),
    ]
    if resident["first"] is not None:
        rows += [
            (
                "memory",
                f"{resident['first']:.1f} MB after the first, {resident['last']:.1f} MB after the last; growth "
                f"{resident['growth']:+.2f} MB, at most {resident['growth_upper_95']:.2f} (95 %)",
            ),
            ("descriptors", " to ".join(map(str, document["descriptors"]))),
            ("threads", " to ".join(map(str, document["threads"]))),
        ]
    rows += [("problem", problem) for problem in report.problems]
    rows.append(("verdict", "failed" if report.problems else "passed: nothing lost, nothing grew, nothing left"))
    render.result_console().print(render.table_of(rows, "[bold]SAGE deaths[/bold]"), highlight=False)
