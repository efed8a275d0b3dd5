"""One picture of a run's vitals: lines of text, always as many and never wider than the terminal."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from cli.pen import LABEL, Curve, Pen
from regime.alerts import Alert, Severity
from sage.processes import ProcessSample
from sage.vitals import LatencyFigures, Vitals

ROWS_MIN, ROWS_MAX = 22, 38
"""Lines of the plain picture and of one with everything; a terminal of 24 has two left for what is said at the end."""

_STALLED_S = 3.0
_UNCOVERED = 0.03
"""So far from nominal, coverage of a thousand outcomes is not what chance would make it."""

_TIGHT_MEMORY = 0.85
_MB = 1e6


@dataclass(frozen=True)
class Stage:
    """What the run is about now: so many of ``total`` steps done."""

    name: str = "starting"
    done: float = 0.0
    total: float = 1.0


@dataclass
class Picture:
    """What is to be seen.

    ``silent_s`` is how long ago the newest bar came. ``changes`` are the alerts that came and went, newest first;
    those that are on now are in the vitals.
    """

    title: str
    vitals: Vitals = field(default_factory=Vitals)
    stage: Stage = field(default_factory=Stage)
    elapsed_s: float = 0.0
    silent_s: float = 0.0
    memory: Curve = field(default_factory=Curve)
    equity: Curve = field(default_factory=Curve)
    speed: Curve = field(default_factory=Curve)
    p99: Curve = field(default_factory=Curve)
    changes: Sequence[Alert] = ()


def frame(picture: Picture, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
    """The picture in lines of at most ``width`` columns, as many as ``height`` allows up to ROWS_MAX."""
    vitals = picture.vitals
    pen = Pen(width, ascii_only=ascii_only)
    lines = [
        pen.ends(Text(picture.title, "bold"), Text(f"{clock(picture.elapsed_s)} elapsed", "dim")),
        _bar(picture, pen),
        pen.rule(),
        pen.line("bars", _bars(picture)),
        pen.line("levels %", _shares(vitals.levels, vitals.signals, pen)),
        pen.line("reasons", _counted(vitals.reasons)),
        pen.line("now", _level_now(vitals, pen)),
        pen.line("model", _model(vitals)),
        pen.line("", _failures(vitals)),
        *_latency(vitals, pen),
        *_memory(picture, pen),
        pen.line("coverage", _coverage(vitals, pen)),
        pen.line("forecasts", _soundness(vitals, pen)),
        pen.line("equity", _equity(vitals, pen)),
        pen.rule(),
    ]
    spare = min(height, ROWS_MAX) - ROWS_MIN
    if spare >= 4:
        lines[-1:-1] = _curves(picture, pen)
        spare -= 3
    if spare >= 8:
        lines[-1:-1] = _processes(vitals, 6, pen)
    lines += _alerts(picture, max(ROWS_MIN, min(height, ROWS_MAX)) - len(lines), pen)
    lines = [line if line.plain.isprintable() else Text(printable(line.plain)) for line in lines]
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
        line.no_wrap = True
    return lines[: max(1, height)]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def seconds_left(vitals: Vitals) -> float | None:
    """How long the run will go on at its present speed; None where nobody can tell."""
    if vitals.seconds_total is not None:
        return max(0.0, vitals.seconds_total - vitals.elapsed_s)
    if vitals.bars_total is None or vitals.bars_per_s <= 0:
        return None
    return max(0, vitals.bars_total - vitals.bars) / vitals.bars_per_s


def under_way(vitals: Vitals) -> bool:
    """Whether bars have come, and more are to come."""
    if vitals.seconds_total is not None:
        return vitals.bars > 0 and vitals.elapsed_s < vitals.seconds_total
    return vitals.bars > 0 and (vitals.bars_total is None or vitals.bars < vitals.bars_total)


def plain_line(picture: Picture) -> str:
    """The most important figures in one line, where there is no terminal."""
    vitals = picture.vitals
    total = f" of {vitals.bars_total:,}" if vitals.bars_total is not None else ""
    left = seconds_left(vitals)
    full = vitals.levels.get("FULL", 0) / vitals.signals if vitals.signals else None
    parts = [
        f"{vitals.bars:,}{total} bars, {vitals.bars_per_s:,.0f}/s",
        f"{clock(left)} left" if left is not None and under_way(vitals) else "",
        f"FULL {_percent(full, '-')}, now {vitals.level}",
        f"p99 {_ms(_p99_now(vitals), '–')} ms",
        f"breaker {vitals.breaker}" if vitals.breaker != "closed" else "",
        f"coverage {_percent(vitals.coverage, '-')}",
        f"memory {sum(map(resident, vitals.machine.processes)) / _MB:,.0f} MB" if vitals.machine is not None else "",
        f"equity {vitals.equity:,.2f}, drawdown {_percent(vitals.drawdown, '-')}",
        f"no bar for {picture.silent_s:.0f} s" if under_way(vitals) and picture.silent_s > _STALLED_S else "",
    ]
    return "; ".join(part for part in parts if part)


def alert_line(alert: Alert) -> str:
    """An alert that came, and why; or went."""
    if not alert.raised:
        return printable(f"{alert.severity} cleared {alert.name}")
    return printable(f"{alert.severity} raised {alert.name}: {alert.detail}")


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def resident(process: ProcessSample) -> int:
    """Bytes that a process takes, its share of what it shares with others where the system tells."""
    return process.rss_bytes if process.pss_bytes is None else process.pss_bytes


def _bar(picture: Picture, pen: Pen) -> Text:
    """How far the run is or, before and after its bars, the stage."""
    vitals, stage = picture.vitals, picture.stage
    share = stage.done / stage.total if stage.total else 0.0
    rest = f"{stage.done:,.0f} of {stage.total:,.0f}" if stage.total > 1 else ""
    name = stage.name
    if under_way(vitals):
        name = "trading"
        left = seconds_left(vitals)
        rest = f"{clock(left)} left" if left is not None else ""
        if vitals.seconds_total is not None:
            share = vitals.elapsed_s / vitals.seconds_total
        elif vitals.bars_total is not None:
            share = vitals.bars / vitals.bars_total
    tail = f" {100 * min(1.0, share):3.0f} %  {rest:<18}"
    head = f"{name:<26} "
    return Text.assemble(head, pen.bar(share, max(4, pen.width - len(head) - len(tail))), tail)


def _bars(picture: Picture) -> Text:
    vitals = picture.vitals
    total = f" of {vitals.bars_total:,}" if vitals.bars_total is not None else ""
    text = Text(f"{vitals.bars:,}{total}   {vitals.bars_per_s:,.0f}/s   {vitals.rejections:,} rejected")
    if vitals.queue_bars:
        text.append(f"   {vitals.queue_bars:,} waiting")
    if under_way(vitals) and picture.silent_s > _STALLED_S:
        text.append(f"   none for {picture.silent_s:.0f} s", "bold yellow")
    return text


def _shares(counts: Mapping[str, int], whole: int, pen: Pen) -> Text:
    text = Text()
    for name, count in counts.items():
        text.append(f"{name} ", "dim").append(f"{100 * count / max(1, whole):.1f}  ", _LEVEL_STYLES.get(name, ""))
    return text if counts else Text(pen.dash)


_LEVEL_STYLES = {"FULL": "green", "BASIC": "", "EMERGENCY": "red"}


def _counted(counts: Mapping[str, int]) -> Text:
    """The most frequent first; what does not fit is cut off."""
    most = Counter(counts).most_common(6)
    return Text("  ".join(f"{name} {count:,}" for name, count in most) or "none")


def _level_now(vitals: Vitals, pen: Pen) -> Text:
    text = Text.assemble((vitals.level or pen.dash, "green" if vitals.level == "FULL" else "yellow"))
    if vitals.degraded_bars:
        text.append(f" for a fault, {vitals.degraded_bars:,} bars in a row", "yellow")
    return text.append(f"   bar of {_time(vitals.ts_ns)}" if vitals.ts_ns else "", "dim")


def _model(vitals: Vitals) -> Text:
    text = Text.assemble("breaker ", (vitals.breaker, "green" if vitals.breaker == "closed" else "bold red"))
    text.append(f" (openings {vitals.breaker_openings:,})   restarts ")
    text.append(f"{vitals.model_restarts:,}", "yellow" if vitals.model_restarts else "")
    return text.append(f"   recycled {vitals.model_recycled:,}")


def _failures(vitals: Vitals) -> Text:
    return Text.assemble("forecasts that failed: ", _counted(vitals.forecast_failures))


_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def _latency(vitals: Vitals, pen: Pen) -> list[Text]:
    head = Text("ms     ") + Text("".join(f"{name:>9}" for name in _PERCENTILES), "dim")
    head.append(f"   p99 target {vitals.target_ms:g}", "dim")
    return [
        pen.line("latency", head),
        pen.line("", Text.assemble("minute ", _percentiles(vitals.latency_minute, vitals.target_ms, pen))),
        pen.line("", Text.assemble("in all ", _percentiles(vitals.latency, vitals.target_ms, pen))),
    ]


def _percentiles(found: LatencyFigures, target_ms: float, pen: Pen) -> Text:
    text = Text()
    for name, value in zip(_PERCENTILES, (found.p50, found.p90, found.p99, found.p999, found.max), strict=True):
        late = name == "p99" and value is not None and value > target_ms
        judged = name == "p99" and value is not None
        text.append(f"{_ms(value, pen.dash):>9}", ("bold red" if late else "green") if judged else "")
    return text.append(f"   {found.answers:,} answers", "dim")


def _memory(picture: Picture, pen: Pen) -> list[Text]:
    machine = picture.vitals.machine
    told = lambda value: f"{value / _MB:,.0f}"  # noqa: E731
    if machine is None:
        return [pen.line("memory", Text(pen.dash)), pen.line("", Text())]
    by_role: dict[str, int] = defaultdict(int)
    for process in machine.processes:
        by_role[process.role] += resident(process)
    roles = "  ".join(f"{role} {told(used)}" for role, used in by_role.items())
    share = machine.used_bytes / machine.limit_bytes if machine.limit_bytes else 0.0
    limit = f"   {100 * share:.0f} % of {told(machine.limit_bytes)} MB in use"
    now = Text(f"now {told(sum(by_role.values()))} MB", "bold")
    return [
        pen.curve("memory", picture.memory, told, now),
        pen.line("", Text.assemble(roles, (limit, "bold red" if share > _TIGHT_MEMORY else "dim"))),
    ]


def _coverage(vitals: Vitals, pen: Pen) -> Text:
    off = vitals.coverage is not None and abs(vitals.coverage - vitals.nominal_coverage) > _UNCOVERED
    text = Text.assemble((_percent(vitals.coverage, pen.dash), "yellow" if off else ""))
    return text.append(f" of late, nominal {_percent(vitals.nominal_coverage, pen.dash)}", "dim")


def _soundness(vitals: Vitals, pen: Pen) -> Text:
    """What health and drift monitors found, as far as they have seen enough to find anything."""
    if not vitals.bars:
        return Text(pen.dash)
    health = ("worse than a baseline", "bold red") if vitals.unhealthy else ("healthy", "green")
    drift = (", ".join(vitals.drifted), "yellow") if vitals.drifted else ("none", "green")
    return Text.assemble(health, "   drift ", drift)


def _equity(vitals: Vitals, pen: Pen) -> Text:
    if not vitals.bars:
        return Text(pen.dash)
    text = Text(f"{vitals.equity:,.2f}   ").append(f"drawdown {_percent(vitals.drawdown, pen.dash)}   ")
    return text.append(f"exposure {vitals.exposure:+.2f}   ").append(f"{vitals.orders:,} orders")


def _curves(picture: Picture, pen: Pen) -> list[Text]:
    return [
        pen.curve("", picture.equity, lambda value: f"{value:,.0f}"),
        pen.curve("bars/s", picture.speed, lambda value: f"{value:,.0f}"),
        pen.curve("p99 ms", picture.p99, lambda value: f"{value:,.3g}"),
    ]


def _processes(vitals: Vitals, rows: int, pen: Pen) -> list[Text]:
    """The largest ones, in exactly so many rows."""
    head = f"{'role':<12}{'pid':>8}{'MB':>9}{'CPU s':>10}{'threads':>9}{'files':>7}"
    found = [pen.line("processes", Text(head, "dim"))]
    processes: Iterable[ProcessSample] = vitals.machine.processes if vitals.machine is not None else ()
    for one in sorted(processes, key=resident, reverse=True)[: rows - 1]:
        told = f"{one.role:<12}{one.pid:>8}{resident(one) / _MB:>9,.0f}{one.cpu_s:>10,.1f}{one.threads:>9}"
        found.append(pen.line("", Text(f"{told}{one.open_files:>7}")))
    return found + [Text() for _ in range(rows - len(found))]


def _alerts(picture: Picture, rows: int, pen: Pen) -> list[Text]:
    """Those that are on, then the last that went, in exactly so many rows."""
    on = sorted(picture.vitals.alerts, key=lambda alert: (alert.severity is not Severity.HIGH, -alert.ts_ns))
    gone = [alert for alert in picture.changes if not alert.raised]
    lines = [_alert(alert, pen) for alert in [*on, *gone]] or [pen.line("alerts", Text("none", "green"))]
    if len(lines) > rows > 0:
        lines[rows - 1 :] = [pen.line("", Text(f"and {len(lines) - rows + 1} more", "dim"))]
    return lines[:rows] + [Text() for _ in range(rows - len(lines))]


def _alert(alert: Alert, pen: Pen) -> Text:
    when = _time(alert.ts_ns)
    if not alert.raised:
        return pen.line("cleared", Text(f"{when}  {alert.name}: {alert.detail}", "dim"))
    style = "bold red" if alert.severity is Severity.HIGH else "yellow"
    return Text.assemble((f"{alert.severity:<{LABEL}}", style), (f"{when}  ", "dim"), f"{alert.name}: {alert.detail}")


def _time(ts_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ts_ns / 1e9))


def _p99_now(vitals: Vitals) -> float | None:
    """The last full minute's, or the run's while there is none."""
    return vitals.latency_minute.p99 if vitals.latency_minute.p99 is not None else vitals.latency.p99


def _ms(value: float | None, none: str) -> str:
    if value is None:
        return none
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _percent(value: float | None, none: str) -> str:
    return none if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
