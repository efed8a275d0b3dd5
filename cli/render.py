"""What people see: progress on stderr, tables on stdout."""

from __future__ import annotations

import io
import math
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from data.ingest import IngestResult

GAPS_SHOWN = 10


LINE_EVERY_S = 30.0
"""How often a stage that takes long says how far it is, where no bar can be drawn."""


class LiveProgress:
    """One progress bar per stage, on stderr; on anything but a terminal a line per stage, and a few more in a long one.

    ``line_every_s`` is the time between two such lines.
    """

    def __init__(self, line_every_s: float = LINE_EVERY_S) -> None:
        self._console = Console(stderr=True)
        self._line_every_s = line_every_s
        self._line_at_s = self._stage_at_s = 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<26}", table_column=Column(no_wrap=True, min_width=26)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=11)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=8), compact=True),
            # On a narrow terminal it is the note that gives way.
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            console=self._console,
            refresh_per_second=8,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._finish()
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Finish the stage before and begin another one."""
        self._finish()
        if not self._console.is_terminal:
            self._line(f"{name} ...")
        self._stage_at_s = time.monotonic()
        self._task = self._progress.add_task(name, total=total, note="")

    def advance(self, steps: int, note: str = "") -> None:
        """So many steps more."""
        if self._task is not None:
            self._progress.update(self._task, advance=steps, note=note)
            self._line_if_due()

    def reach(self, name: str, done: int, total: int) -> None:
        """Be at ``done`` of ``total`` in the stage of that name."""
        current = self._progress.tasks[-1] if self._progress.tasks else None
        if current is None or current.description != name:
            self.stage(name, total)
        self._progress.update(self._task, completed=done, total=total)
        self._line_if_due()

    def _line_if_due(self) -> None:
        if self._console.is_terminal or time.monotonic() - self._line_at_s < self._line_every_s:
            return
        task = self._progress.tasks[-1]
        if task.total is not None and task.completed < task.total:
            note = f"  {task.fields['note']}" if task.fields["note"] else ""
            left_s = (
                (time.monotonic() - self._stage_at_s) * (task.total / task.completed - 1.0) if task.completed else 0
            )
            left = f", about {_spoken(left_s)} left" if left_s >= 1.0 else ""
            self._line(f"{task.description}: {task.completed:,.0f} of {task.total:,.0f}{left}{note}")

    def _line(self, text: str) -> None:
        self._line_at_s = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[-1]
            self._progress.update(self._task, completed=task.total)


def _spoken(seconds: float) -> str:
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5_400.0 else f"{seconds / 3_600.0:.1f} h"


def result_console() -> Console:
    """Stdout. Into a file or a pipe lines are not folded, so that a hash or a path stays in one piece, nor padded."""
    console = Console()
    return console if console.is_terminal else _PipeConsole(width=400, file=_Unpadded())  # type: ignore[arg-type]


class _PipeConsole(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever turns errors into exit codes; rich would end the program with 1."""
        raise BrokenPipeError


class _Unpadded(io.TextIOBase):
    """Stdout without the blanks with which tables fill their lines."""

    def write(self, text: str, /) -> int:
        """Write it, less the blanks at the end of each line."""
        sys.stdout.write(re.sub(r" +$", "", text, flags=re.MULTILINE))
        return len(text)

    def flush(self) -> None:
        """Bring it out."""
        sys.stdout.flush()


def table_of(rows: Iterable[tuple[str, str]], title: str) -> Table:
    """Names and values in two columns."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        # As text: a file name may hold what rich takes for markup.
        table.add_row(Text(name), Text(value))
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def backtest_summary(figures: dict[str, Any], directory: Path) -> None:
    """The figures of a run, and where the rest is."""
    from sage.results import forecasts_from
    from sage.tearsheet import interval_told, volume_told

    coverage, latency, accuracy = figures["coverage"], figures["latency_ms"], figures["regime_accuracy"]
    sharpe = figures["sharpe"]
    rows = [
        ("data", f"{figures['data']}, {figures['bar']} bars of {figures['instrument']}"),
        ("bars, signals", f"{figures['bars']:,} / {figures['signals']:,}  ({figures['rejected_bars']} bars rejected)"),
        ("levels", "  ".join(f"{name} {count:,}" for name, count in figures["levels"].items() if count)),
        ("warm-up bars", f"{figures['warm_up_bars']:,}"),
        (
            "total return",
            f"{_percent(figures['total_return'])}  (buy and hold {_percent(figures['buy_and_hold_return'])})",
        ),
        (
            "Sharpe",
            "–"
            if sharpe is None
            else f"{sharpe:.2f}  ({interval_told(figures['sharpe_interval'])}; {figures['sharpe_basis']})",
        ),
        ("max drawdown", _percent(figures["max_drawdown"])),
        ("orders, fills", f"{figures['orders']:,} / {figures['fills']:,}  ({figures['rejected_orders']} rejected)"),
        *_cost_rows(figures),
        ("order size", volume_told(figures)),
        ("coverage", f"{_percent(coverage['realised'])} of {_percent(coverage['nominal'])} nominal"),
    ]
    if figures["ensemble"] is not None:
        rows.append(("ensemble", _ensemble_line(figures["ensemble"])))
    if accuracy is not None:
        direction, volatility = _percent(accuracy["direction"]), _percent(accuracy["volatility"])
        rows.append(("regime accuracy", f"direction {direction}, volatility {volatility}  (balanced)"))
    if latency["p50"] is not None:
        quantiles = f"p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f}, max {latency['max']:.2f} ms"
        rows.append(("latency", f"{quantiles}  ({forecasts_from(latency['source'])})"))
    if figures["forecasts"] == "ahead":
        computed, reused = figures["forecasts_computed"], figures["forecasts_reused"]
        rows.append(("forecasts", f"{computed:,} computed, {reused:,} from the store  ({figures['engine']})"))
    if figures["partial"] is not None:
        seen, last = figures["partial"]["bars_seen"], figures["partial"]["last_bar"]
        rows.insert(0, ("PARTIAL", f"your code raised at bar {seen:,} of {figures['bars']:,}, {last}: all up to there"))
    if figures["ruined_at"] is not None:
        rows.insert(0, ("RUINED", f"no equity was left at {figures['ruined_at']}; it counts as nothing from there on"))
    rows += [("note", note) for note in figures["notes"]]
    seconds = figures["seconds"]
    rows += [
        ("speed", f"{figures['bars_per_second']:,.0f} bars/s, {seconds['total']:.1f} s in all"),
        ("hash", str(figures["determinism_hash"]) + ("" if figures["reproducible"] else "  (depends on the machine)")),
        ("report", str(directory / "report.html")),
    ]
    after_levels = 1 + next(row for row, (name, _) in enumerate(rows) if name == "levels")
    if figures["alerts"]:
        raised = ", ".join(f"{name} {count}" for name, count in figures["alerts"].items())
        rows.insert(after_levels, ("alerts", raised))
    if figures["fault_reasons"]:
        faults = ", ".join(f"{reason} {count}" for reason, count in figures["fault_reasons"].items())
        rows.insert(after_levels, ("faults", faults))
    console = result_console()
    console.print(table_of(rows, "[bold]SAGE backtest[/bold]"), highlight=False)
    console.print("Built with technology from NXAI", style="dim", highlight=False)


def lookahead_summary(report: dict[str, Any]) -> None:
    """What the check for look-ahead found, and how closely it looked."""
    finding = report["finding"]
    compared = f"{report['signals']:,} signals and {report['steps']:,} steps of orders before the last of them"
    rows = [
        ("compared", f"{report['runs']:,} runs with other futures, from {len(report['cuts'])} bars on: {compared}"),
        (
            "resolution",
            f"a peek of one bar must show in the signal of each of these bars, and at {report['probed']:,} of the "
            f"{report['decisions']:,} bars with an order",
        ),
    ]
    if report["verdict"] == "clean":
        rows.append(("verdict", "no look-ahead found: all came out the same to the bit"))
    elif finding is None:
        rows = [("verdict", f"undecided: {report['why']}")]
    else:
        ahead = finding["bars_ahead"]
        other = f"{finding['altered_to']} after bar {finding['altered_after_bar']:,}"
        rows += [
            ("verdict", f"LOOK-AHEAD at bar {finding['bar']:,}, {finding['time']}"),
            ("what", difference_line(finding["difference"])),
            (
                "where",
                f"the future is {other}: it knows of what happens {ahead:,} bar{'s' * (ahead > 1)} later, or more",
            ),
        ]
    rows += [("note", note) for note in report["notes"]]
    result_console().print(table_of(rows, "[bold]Look-ahead[/bold]"), highlight=False)


def _ensemble_line(ensemble: dict[str, Any]) -> str:
    """Mean weights of the alphas, the largest first."""
    alphas = sorted(ensemble["alphas"].items(), key=lambda item: -item[1]["mean_weight"])
    weights = "  ".join(f"{name} {alpha['mean_weight']:.2f}" for name, alpha in alphas)
    return f"{weights}  (mean {ensemble['weights']} weights)"


def replay_summary(report: dict[str, Any], directory: Path) -> None:
    """Whether a replay gave what was recorded, and where it first did not."""
    rows = [
        ("run", str(directory)),
        ("bars", f"{report['bars']:,}, of which {report['signals']:,} got a signal"),
        ("hash", report["recorded_hash"]),
    ]
    if report["same"]:
        rows.append(("verdict", "the same hash"))
    else:
        # Where no value differs, the kinds of number do, as between versions of pandas.
        told = difference_line(report["difference"]) if report["difference"] else "in no value, but in kinds of number"
        rows += [("hash now", report["hash"]), ("first difference", told)]
    console = result_console()
    console.print(table_of(rows, "[bold]SAGE replay[/bold]"), highlight=False)


def difference_line(difference: dict[str, Any]) -> str:
    """Where two runs part, in one line."""
    where = f"{difference['table']}, row {difference['row']:,}, {difference['time']}"
    first, second = ("nothing" if value is None else value for value in (difference["first"], difference["second"]))
    return f"{where}: {difference['column'] or 'row'} was {first}, and is {second}"


def _cost_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What was paid for what, what has no model, and what other costs would have left."""
    paid = (f"{name} {line['paid']:,.2f}" for name, line in figures["costs"].items() if line["paid"] is not None)
    turnover = f"turnover {figures['turnover']:.1f} x equity, {figures['turnover_per_year']:.1f} x a year"
    multiples = figures["at_cost_multiples"].items()
    return [
        ("costs paid", f"{figures['costs_paid']:,.2f}  ({', '.join(paid)}; {turnover})"),
        ("not modelled", ", ".join(figures["not_modelled"])),
        ("return at costs", ", ".join(f"{name} x: {_percent(at['total_return'])}" for name, at in multiples)
                            + "  (the same trades)"),
        ("break-even cost", figures["break_even"]),
    ]  # fmt: skip


def latency_summary(report: dict[str, Any], picture: Path | None) -> None:
    """Latencies of each engine and of the fallback levels, and whether p99 keeps its promise."""
    names = ("p50", "p90", "p99", "p99.9", "max")
    table = Table(title="[bold]SAGE latency[/bold], ms from when a bar was due", title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    for name in (*names, "model call p50", f"over {report['slo_ms']:g} ms", "answers"):
        table.add_column(name, justify="right", no_wrap=True)

    def told(value: float | None, digits: int = 2) -> str:
        return "–" if value is None else f"{value:,.{digits}f}"

    for engine in report["engines"]:
        late = f"{engine['over_slo']:,}"
        cells = [told(engine["latency_ms"][name]) for name in names] + [told(engine["model_call_ms"]["p50"]), late]
        table.add_row(engine["engine"], *cells, f"{engine['answers']:,}")
    for level, latency in report["fallback_ms"].items():
        cells = [told(latency[name], 3) for name in names]
        table.add_row(f"level {level}, no model", *cells, "", "", f"{latency['answers']:,}")
    rows = [
        ("model", f"{report['model']}, context {report['context_bars']} bars, horizon {report['horizon_bars']}"),
        ("load", f"{report['rate_hz']:g} bars/s for {report['seconds']:g} s, {report['background']} busy processes "
                 f"beside it on {report['cores']} cores"),
    ]  # fmt: skip
    for engine in report["engines"]:
        levels = "  ".join(f"{name} {count:,}" for name, count in engine["levels"].items())
        cpu, rss = engine["cpu_percent"], engine["rss_mb"]
        rows.append((engine["engine"], f"{engine['achieved_rate_hz']:.1f} answers/s, {levels}"))
        rows.append(("", f"CPU: model {cpu['model']:.0f} %, trading {cpu['trading']:.0f} %; memory: model "
                         f"{rss['model']:.0f} MB, trading {rss['trading']:.0f} MB"))  # fmt: skip
        if engine["unanswered"]:
            rows.append(
                (
                    "",
                    f"too slow for this rate: {engine['unanswered']:,} bars were due and never sent; they count above "
                    "with the time that they had waited",
                )
            )
        if report["deadline_ms"]:
            rows.append(("", f"{engine['missed_deadlines']:,} later than the deadline of {report['deadline_ms']:g} ms"))
        if engine["note"]:
            rows.append(("", engine["note"]))
    if report["ratio"]:
        calls = ", ".join(f"{name} {value:,.2f} ms" for name, value in report["single_call_ms"].items())
        rows.append(("a single window", f"{report['ratio']:.1f} times; {calls} (model calls in turns)"))
    if report["batch"]:
        seconds = ", ".join(f"{name} {1e3 * value:,.0f} ms" for name, value in report["batch"]["seconds"].items())
        times = f"{report['batch']['ratio']:.1f} times; " if report["batch"]["ratio"] else ""
        rows.append((f"batch of {report['batch']['rows']}", times + seconds))
    if report["largest_difference_sd"] is not None:
        difference = f"{report['largest_difference_sd']:.1e} standard deviations of the window, at most"
        rows.append(("engines differ by", difference))
    if picture is not None:
        rows.append(("picture", str(picture)))
    needed = report["p99_needs_answers"]
    p99, slo = report["engines"][0]["latency_ms"]["p99"], f"{report['slo_ms']:g} ms"
    share = report["engines"][0]["model_share"]
    missed = (
        f"p99 of {told(p99)} ms MISSES {slo}"
        if report["model_in_time"]
        else f"MISSED: the model was in time for {share:.1%} of the bars only, the fallback levels answered the others"
    )
    verdict = {
        "met": f"p99 of {told(p99)} ms keeps within {slo}",
        "missed": missed,
        "undecided": f"undecided: a p99 needs {needed:,} answers; give more --seconds or a higher --rate",
    }[report["verdict"]]
    rows.append(("verdict", verdict))
    console = result_console()
    console.print(table, highlight=False)
    console.print(table_of(rows, ""), highlight=False)
    if any(value is None for engine in report["engines"] for value in engine["latency_ms"].values()):
        console.print("–: too few answers to tell this percentile", style="dim", highlight=False)


def ingest_summary(result: IngestResult) -> None:
    """What was read, written and rejected."""
    from data.bars import iso

    quality = result.quality
    rejected = ", ".join(f"{count} {reason}" for reason, count in quality.rejected.items()) or "none"
    layouts = ", ".join(sorted(set(result.layouts.values())))
    replaced = [f"{result.bars_before:,} in the same interval"] if result.bars_before else []
    replaced += ["a damaged file"] if result.damaged_before else []
    wrote = {
        "added": f"{result.bars_written:,} bars",
        "unchanged": f"nothing: the catalog holds these {result.bars_before:,} bars already",
        "replaced": f"{result.bars_written:,} bars, REPLACING {' and '.join(replaced)}",
    }[str(result.outcome)]
    rows = [
        ("layout", layouts),
        ("rows read", f"{quality.rows_read:,}"),
        ("written", wrote),
        ("rejected", rejected + (f"  (in {result.rejected_path})" if result.rejected_path else "")),
        ("kind", result.kind),
        ("interval", f"{result.interval}  (bar closes)"),
        ("decimals", f"price {result.price_precision}, size {result.size_precision}"),
        ("gaps", f"{quality.gaps.count:,} with {quality.gaps.missing_bars:,} bars missing"),
    ]
    longest = sorted(quality.gaps.told, key=lambda gap: -gap.missing_bars)[:GAPS_SHOWN]
    rows += [("", f"{gap.missing_bars:,} bars after {iso(gap.after_ns)}") for gap in longest]
    if quality.gaps.count > GAPS_SHOWN:
        rows.append(("", f"... and {quality.gaps.count - GAPS_SHOWN:,} shorter ones, in the report"))
    if result.spreads is not None:
        known = [value for value in result.spreads.by_hour_of_day() if math.isfinite(value)]
        rows.append(
            ("half-spread", f"{min(known):.2f} to {max(known):.2f} bps by hour of the day (UTC), in the report")
        )
    rows += [("note", note) for note in quality.notes]
    rows.append(("report", str(result.report_path)))
    console = result_console()
    console.print(table_of(rows, f"[bold]{result.instrument} {result.bar}: {result.outcome}[/bold]"), highlight=False)
