"""A soak for machines and for people: ``stress.json`` and ``report.html``, from its journal, at any time.

``python -m stress.soak.report DIRECTORY`` writes both anew; the soak itself lets that be done in a process of its own
about once a minute, so that whatever ends it leaves a report that is no older, and drawing costs its memory nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from regime.files import write_durably
from sage.percentiles import EDGES_S
from sage.studies.page import COLOURS, LIMIT, Said, Section, as_html, styled
from stress.soak.journal import parsed, read_journal
from stress.soak.record import Record
from stress.soak.verdict import Assessment, Check, Series, Status, assess

JSON_FILE, HTML_FILE = "stress.json", "report.html"
COLUMNS = (
    "memory of",
    "slope MB/h",
    "95 % interval",
    "per 100,000 bars",
    "grew MB",
    "warm-up MB",
    "samples",
    "smallest leak",
)
POINTS_MAX = 2_000
MARKS_MAX = 500
_ROUNDED_MB = 100.0
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


def as_document(record: Record, assessment: Assessment) -> dict[str, Any]:
    """All figures for JSON."""
    begun = record.begun
    return {
        "status": str(assessment.status),
        "seconds": record.seconds,
        "hours": record.seconds / 3600.0,
        "bars": sum(line["bars"] for line in record.segments),
        "segments": len(record.segments),
        "checks": [_check_values(check) for check in assessment.checks],
        "memory": {
            one.name: {"ours": one.ours, **dataclasses.asdict(one.growth), "verdict": one.growth.verdict.value}
            for one in assessment.series
        },
        "counts": {name: record.total(name) for name in ("signals", "rejections", "orders", "model_restarts",
                                                         "model_recycled", "breaker_openings")},
        "levels": record.counts("levels"),
        "reasons": record.counts("reasons"),
        "forecast_failures": record.counts("forecast_failures"),
        "latency_ms": {str(number): line["latency"] for number, line in record.totals.items()},
        "faults": sum(bool(line["faults"]) for line in record.segments),
        "events": record.events,
        "alerts": record.alerts,
        "notes": record.notes,
        "minutes": len(record.minutes),
        "configuration": begun.get("config"),
        "limits": begun.get("limits"),
        "versions": begun.get("versions"),
    }  # fmt: skip


def _check_values(check: Check) -> dict[str, Any]:
    return {"name": check.name, "status": str(check.status), "told": check.told, **check.figures}


def growth_rows(assessment: Assessment) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each process."""
    rows = []
    for one in assessment.series:
        growth, slope, bars = one.growth, one.growth.per_hour, one.growth.per_100k_bars
        smallest = growth.smallest_leak_mb_per_hour
        rows.append(
            [
                one.name if one.ours else f"{one.name}, not ours",
                "–" if slope is None else _mb(slope.estimate),
                "–" if slope is None else f"{_mb(slope.lower)} to {_mb(slope.upper)}",
                "–" if bars is None else f"{_mb(bars.estimate)} ({_mb(bars.lower)} to {_mb(bars.upper)})",
                _mb(growth.growth_mb),
                _mb(growth.warm_up_mb),
                f"{growth.samples:,}",
                "none of any size" if smallest is None else f"{smallest:,.{1 if smallest < _ROUNDED_MB else 0}f} MB/h",
            ]
        )
    return rows


def _mb(value: float) -> str:
    """Megabytes with a sign, and no more digits than mean something."""
    return f"{value:+,.2f}" if abs(value) < _ROUNDED_MB else f"{value:+,.0f}"


def page(record: Record, assessment: Assessment) -> str:
    """The report as HTML."""
    findings = [
        Said({Status.PASSED: True, Status.FAILED: False, Status.UNDECIDED: None}[check.status],
             f"{check.status}: {check.name}: {check.told}")
        for check in assessment.checks
    ]  # fmt: skip
    bars = sum(line["bars"] for line in record.segments)
    subtitle = (
        f"{assessment.status}. {record.seconds / 3600.0:.2f} hours, {bars:,} bars in {len(record.segments):,} "
        f"segments; {record.begun.get('told', '')}"
    )
    levels, reasons = record.counts("levels"), record.counts("reasons")
    sections = [
        Section("Over time", _TIMES, chart=_timeline(record, assessment.series)),
        Section("Growth", _GROWTH, COLUMNS, growth_rows(assessment)),
    ]
    if levels:
        rows = [[name, f"{count:,}"] for name, count in levels.items()]
        sections.append(Section("Levels", "", ("level", "signals"), rows))
    if reasons:
        rows = [[name, f"{count:,}"] for name, count in reasons.items()]
        sections.append(Section("Why below FULL", _REASONS, ("reason", "signals"), rows))
    if record.events:
        rows = [
            [f"{line['at_s']:,.0f} s {line['event']}", line.get("detail", "")] for line in record.events[-MARKS_MAX:]
        ]
        sections.append(Section("Events", "", ("when", "what"), rows))
    if record.alerts:
        rows = [
            [f"{line['at_s']:,.0f} s {line['severity']} {line['alert']} {line['state']}", line["detail"]]
            for line in record.alerts[-MARKS_MAX:]
        ]
        sections.append(Section("Alerts", "", ("when", "why"), rows))
    if record.notes:
        sections.append(Section("Notes", "", ("",), [[note] for note in record.notes]))
    return as_html("SAGE soak", subtitle, findings, sections)


_TIMES = (
    "Memory of each process as it was sampled at equal bar counts of the segments, with the fitted slope after "
    "warm-up; share of each minute's answers by latency; what went wrong, on purpose or not."
)
_REASONS = "A signal below FULL may have several, one for each level that did not answer; each counts once a signal."
_GROWTH = (
    "Slopes are fitted to samples at equal bar counts within segments, and within one process's life; intervals are "
    "95 %, by block bootstrap. The trading process is told beyond a control that runs NautilusTrader alone over the "
    "same bars and orders. A leak as large as the smallest one would have been found in four runs of five."
)


def _timeline(record: Record, series: Sequence[Series]) -> go.Figure:
    figure = make_subplots(
        rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.42, 0.24, 0.14, 0.20]
    )
    _draw_memory(figure, series)
    _draw_latency(figure, record)
    _draw_speed(figure, record)
    _draw_marks(figure, record)
    figure.update_yaxes(title_text="MB", row=1, col=1)
    figure.update_yaxes(
        title_text="latency, ms",
        type="log",
        tickvals=_TICKS_MS,
        ticktext=[f"{tick:,}" for tick in _TICKS_MS],
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text="bars/s", rangemode="tozero", row=3, col=1)
    figure.update_xaxes(title_text="hours", row=4, col=1)
    # From the beginning to the end, however short: lonely points would have an hour around them.
    figure.update_xaxes(range=[0.0, 1.02 * max(record.seconds, 1.0) / 3600.0])
    styled(figure, height=900)
    figure.update_layout(legend={"itemsizing": "constant"})
    return figure


def _draw_memory(figure: go.Figure, series: Sequence[Series]) -> None:
    for one, colour in zip(series, COLOURS, strict=False):
        trace = one.trace
        rows = _thinned(len(trace.hours))
        figure.add_scatter(
            x=trace.hours[rows], y=trace.megabytes[rows], mode="markers", name=one.name,
            marker={"size": 3, "color": colour, "opacity": 0.5}, row=1, col=1,
        )  # fmt: skip
        slope = one.growth.per_hour
        if slope is None or not len(rows):
            continue
        begins = trace.hours[-1] - one.growth.hours
        counted = trace.hours >= begins
        centre = float(np.median(trace.megabytes[counted])), float(np.median(trace.hours[counted]))
        ends = np.array([begins, trace.hours[-1]])
        figure.add_scatter(
            x=ends, y=centre[0] + slope.estimate * (ends - centre[1]), mode="lines", showlegend=False,
            line={"color": colour, "width": 2}, row=1, col=1, hovertext=f"{slope.estimate:+.2f} MB/h",
        )  # fmt: skip


def _thinned(length: int) -> NDArray[np.int64]:
    """Indices of what is drawn of so many points."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, POINTS_MAX)).astype(np.int64))


def _draw_latency(figure: go.Figure, record: Record) -> None:
    """The heat map: a column a minute, a row for each bucket between the smallest and the largest that are used."""
    counted = [line for line in record.minutes if any(line["latency"]["buckets"])]
    if counted:
        table = np.array([line["latency"]["buckets"] for line in counted], dtype=np.float64)
        shares = np.diff(table, axis=1, prepend=0.0)
        shares /= np.maximum(1.0, shares.sum(axis=1, keepdims=True))
        used = np.flatnonzero(shares.any(axis=0))
        first, last = max(0, used[0] - 1), min(len(EDGES_S), used[-1] + 1)
        figure.add_heatmap(
            # Edges: a minute is as wide as a minute, whether others are beside it or not.
            x=[(counted[0]["at_s"] - 60.0) / 3600.0, *(line["at_s"] / 3600.0 for line in counted)],
            y=[1e3 * edge for edge in EDGES_S[first:last]],
            z=shares[:, first:last].T, colorscale="Blues", showscale=False, row=2, col=1, name="share",
        )  # fmt: skip
        figure.add_scatter(
            x=[line["at_s"] / 3600.0 for line in counted], y=[line["latency"]["p99"] for line in counted],
            mode="lines+markers", name="p99", line={"color": COLOURS[1], "width": 2}, row=2, col=1,
        )  # fmt: skip
    else:
        # By the page, for axes without a point are not drawn.
        centre = float(np.mean(figure.layout.yaxis2.domain))
        figure.add_annotation(
            text="latency is told by the minute, and none with an answer in it is over yet",
            xref="paper",
            yref="paper",
            x=0.5,
            y=centre,
            showarrow=False,
        )
    figure.add_hline(
        y=record.begun["limits"]["target_ms"], line={"color": LIMIT, "dash": "dot", "width": 1.5}, row=2, col=1
    )


def _draw_speed(figure: go.Figure, record: Record) -> None:
    segments = record.segments
    rows = _thinned(len(segments))
    figure.add_scatter(
        x=[segments[row]["at_s"] / 3600.0 for row in rows],
        y=[segments[row]["bars"] / max(1e-9, segments[row]["seconds"]) for row in rows],
        mode="lines", name="bars/s", line={"color": COLOURS[2]}, row=3, col=1,
    )  # fmt: skip


def _draw_marks(figure: go.Figure, record: Record) -> None:
    """Events and faults, each kind in its lane."""
    marks = [(line["at_s"] / 3600.0, line["event"], line.get("detail", "")) for line in record.events]
    marks += [
        (line["at_s"] / 3600.0, f"alert {line['alert']}", line["detail"])
        for line in record.alerts
        if line["state"] == "raised"
    ]
    for line in record.segments:
        if line["faults"]:
            marks.append(((line["at_s"] - line["seconds"]) / 3600.0, "faults", line["faults"]))
        if line["violations"]:
            marks.append((line["at_s"] / 3600.0, "violation", line["violations"][0]))
    marks = marks[-MARKS_MAX:]
    figure.add_scatter(
        x=[mark[0] for mark in marks], y=[mark[1] for mark in marks], hovertext=[mark[2] for mark in marks],
        mode="markers", marker={"symbol": "line-ns-open", "size": 12, "color": LIMIT}, showlegend=False, row=4, col=1,
    )  # fmt: skip


def write(directory: Path, raw: bytes) -> tuple[Record, Assessment]:
    """Write both files from the lines of a journal. Raises OSError."""
    record = Record.of(parsed(raw))
    assessment = assess(record)
    write_durably(directory / JSON_FILE, json.dumps(as_document(record, assessment), indent=2) + "\n")
    write_durably(directory / HTML_FILE, page(record, assessment))
    return record, assessment


def main(directory: str, nice: str = "0") -> None:
    """Write the report of a soak's directory anew, out of the way of whoever trades."""
    os.nice(int(nice))
    write(Path(directory), read_journal(Path(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
