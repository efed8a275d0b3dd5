"""The part of ``sage inject-fault`` that runs schedules of faults: ``--schedules``, ``--schedule``, ``--real``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from cli.exits import ExitCode

if TYPE_CHECKING:
    from sage.progress import Progress
    from stress.chaos_runs import ChaosReport


def run(
    *,
    schedules: int | None = None,
    seed: int = 1,
    schedule: str | None = None,
    real: int | None = None,
    model: str | None = None,
    as_json: bool = False,
) -> None:
    """Run schedules and tell what came of them; leaves with exit code 1 where an invariant was violated.

    Parameters
    ----------
    schedules
        So many random ones on a simulated machine.
    seed
        Of the first of them; the others count up from it.
    schedule
        The text of one schedule to run instead, with ``seed``.
    real
        So many random ones against a real model process; with ``schedule``, run that one against it.
    model
        Whose real process, the shipped one's where None.
    as_json
        Print everything for machines.

    Raises
    ------
    OptionError
        If the options make no sense together, or the schedule does not read.
    ModelUnavailable
        If there is no model for ``real``.
    """
    from cli import render

    with render.LiveProgress() as progress:
        reports = dict(_reports(schedules, seed, schedule, real, model, progress))
    if as_json:
        typer.echo(json.dumps({name: report.document() for name, report in reports.items()}, indent=2))
    else:
        for name, report in reports.items():
            _show(name, report)
    if any(report.violating for report in reports.values()):
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _reports(
    schedules: int | None, seed: int, schedule: str | None, real: int | None, model: str | None, progress: Progress
) -> Iterator[tuple[str, ChaosReport]]:
    from data.errors import OptionError
    from regime.model.checkpoint import EMBEDDED
    from stress import chaos, chaos_runs, real_chaos
    from stress.schedule import parse_schedule

    if schedule is not None and schedules is not None:
        raise OptionError("--schedule runs one schedule, --schedules N random ones: give one of them")
    if schedules is None and schedule is None and real is None:
        raise OptionError("give --schedules N, --schedule TEXT or --real N")
    name = model or EMBEDDED
    if real is not None:
        if schedule is not None:
            real_chaos.check_count(real)
            planned = parse_schedule(schedule, seed, sorted(real_chaos.real_lengths()), real_chaos.BARS)
            yield "real", real_chaos.run_real([planned] * real, progress, name)
        else:
            yield "real", real_chaos.run_real(real_chaos.schedules_of(real, seed), progress, name)
    elif schedule is not None:
        planned = parse_schedule(schedule, seed, sorted(chaos.fault_lengths()), chaos.BARS)
        yield "simulated", chaos_runs.run_one(planned)
    if schedules is not None:
        yield "simulated", chaos_runs.run_schedules(chaos_runs.ChaosConfig(schedules, seed), progress)


def _show(name: str, report: ChaosReport) -> None:
    from cli import render
    from stress.invariants import NAMES

    kinds: Counter[str] = Counter()
    for fault, count in report.faults.items():
        kinds[fault.partition(".")[0]] += count
    rows = [
        ("schedules", f"{report.schedules:,}, {report.bars:,} bars, {report.seconds:,.1f} s"),
        ("faults", ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())) or "none"),
        ("levels", ", ".join(f"{level} {count:,}" for level, count in report.document()["levels"].items())),
        (
            "",
            f"breaker openings {report.breaker_openings:,}, model processes replaced {report.restarts:,}",
        ),
        ("again", f"{report.run_again:,} schedules cut off, and run again here and in another process"),
    ]
    if name == "real":
        rows.pop()
    for invariant, count in sorted(report.violated.items()):
        rows.append((f"invariant {invariant}", f"{NAMES[invariant]}: violated in {count:,} schedules"))
    for verdict in report.found:
        rows += [
            ("VIOLATED", f"--seed {verdict.schedule.seed} --schedule {str(verdict.schedule)!r}"),
            *(("", str(violation)) for violation in verdict.violations[:2]),
        ]
    if report.smallest is not None:
        rows += [
            ("smallest", f"--seed {report.smallest.schedule.seed} --schedule {str(report.smallest.schedule)!r}"),
            *(("", str(violation)) for violation in report.smallest.violations[:2]),
        ]
    rows.append(("verdict", f"{report.violating:,} schedules violate an invariant" if report.violating else "all kept"))
    title = "simulated machine" if name == "simulated" else "real model process"
    console = render.result_console()
    console.print(render.table_of(rows, f"[bold]SAGE chaos, {title}[/bold]"), highlight=False)
