"""A latency measurement for machines and for people: one JSON document, one HTML page."""

from __future__ import annotations

import math
import os
from pathlib import Path

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from regime.signal import Level
from sage.percentiles import answers_needed
from stress.latency_records import EngineLatency, LatencyReport

_COLOURS = ("#2456a6", "#e0a63a")
_INK, _GRID, _LIMIT = "#1d2733", "#e8ebef", "#c8473c"
_MAX_POINTS = 5_000


def as_document(report: LatencyReport) -> dict[str, object]:
    """The report for JSON: latencies in milliseconds, None where there were too few answers to tell."""
    config = report.config
    return {
        "verdict": report.verdict,
        "model_in_time": report.judged.model_in_time,
        "slo_ms": config.slo_ms,
        "ratio": report.ratio,
        "model": report.checkpoint.name,
        "checkpoint": report.checkpoint.id,
        "context_bars": config.context_bars,
        "horizon_bars": config.horizon_bars,
        "rate_hz": config.rate_hz,
        "seconds": config.seconds,
        "deadline_ms": config.deadline_ms,
        "background": config.background,
        "cores": os.cpu_count(),
        "source": "model",
        "engines": [_engine_document(engine) for engine in report.engines],
        "fallback_ms": {
            level.name: latencies.summary() | {"answers": len(latencies)}
            for level, latencies in report.fallback.items()
        },
        "single_call_ms": {
            engine.name: 1e3 * float(np.median(engine.calls[1])) for engine in report.engines if 1 in engine.calls
        },
        "batch": {
            "rows": config.batch_rows,
            "ratio": report.batch_ratio,
            "seconds": {engine.name: float(np.median(engine.calls[config.batch_rows])) for engine in report.engines},
        }
        if config.batch_rows
        else None,
        "largest_difference_sd": report.largest_difference_sd,
        "p99_needs_answers": answers_needed(99.0),
    }


def _engine_document(engine: EngineLatency) -> dict[str, object]:
    turns_s = engine.turns_s or 1.0
    return {
        "engine": engine.name,
        "note": engine.note,
        "latency_ms": engine.latency.summary(),
        "model_call_ms": engine.model_call.summary(),
        "answers": len(engine.latency) - engine.unanswered,
        "unanswered": engine.unanswered,
        "over_slo": engine.over_slo,
        "model_share": engine.model_share,
        "missed_deadlines": engine.missed_deadlines,
        "achieved_rate_hz": engine.achieved_rate_hz,
        "levels": {level.name: engine.levels[level] for level in Level if engine.levels[level]},
        "cpu_percent": {"model": 100 * engine.model_cpu_s / turns_s, "trading": 100 * engine.trading_cpu_s / turns_s},
        "rss_mb": {"model": engine.model_rss_bytes / 1e6, "trading": engine.trading_rss_bytes / 1e6},
    }


def as_html(report: LatencyReport) -> str:
    """The report as one HTML page that needs nothing else."""
    document = as_document(report)
    template = jinja2.Environment(autoescape=True).from_string(
        Path(__file__).with_name("latency.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        plotly=get_plotlyjs(),
        report=document,
        charts=[_curve(report).to_json(), _over_time(report).to_json()],
    )


def _curve(report: LatencyReport) -> go.Figure:
    """Latency by percentile, the far end drawn out, as HdrHistogram plots it."""
    figure = go.Figure()
    for engine, colour in zip(report.engines, _COLOURS, strict=False):
        percentiles, latencies = engine.latency.curve()
        beyond = [1.0 / (1.0 - percentile / 100.0) for percentile in percentiles]
        figure.add_scatter(
            x=beyond,
            y=latencies,
            name=engine.name,
            line={"color": colour, "shape": "hv"},
            customdata=percentiles,
            hovertemplate="p%{customdata:.3f}: %{y:.2f} ms<extra></extra>",
        )
    figure.update_xaxes(
        type="log", title="percentile", tickvals=[1, 2, 10, 100, 1000, 10_000, 100_000],
        ticktext=["0", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999"],
    )  # fmt: skip
    return _styled(figure, report)


def _over_time(report: LatencyReport) -> go.Figure:
    """Every answer when it was due: a stall shows as a ramp."""
    figure = go.Figure()
    for engine, colour in zip(report.engines, _COLOURS, strict=False):
        every = max(1, len(engine.samples) // _MAX_POINTS)
        # Thinned by the slowest of each stretch, so that no spike is lost.
        kept = [max(engine.samples[at : at + every], key=lambda s: s[1]) for at in range(0, len(engine.samples), every)]
        figure.add_scatter(
            x=[sample[0] for sample in kept],
            y=[sample[1] for sample in kept],
            name=engine.name,
            mode="markers",
            marker={"color": colour, "size": 4, "opacity": 0.6},
            hovertemplate="%{x:.1f} s: %{y:.2f} ms<extra></extra>",
        )
    figure.update_xaxes(title="seconds into the run")
    return _styled(figure, report)


def _styled(figure: go.Figure, report: LatencyReport) -> go.Figure:
    slo_ms = report.config.slo_ms
    curves = [engine.latency.curve()[1] for engine in report.engines]
    lowest = min([slo_ms, *(curve[0] for curve in curves if curve)])
    highest = max([slo_ms, *(curve[-1] for curve in curves if curve)])
    # Linear where one look should do; logarithmic where engines lie far apart.
    logarithmic = highest > 8 * slo_ms
    figure.add_hline(y=slo_ms, line={"color": _LIMIT, "dash": "dash"})
    # On a logarithmic axis plotly takes a shape's place in milliseconds, but an annotation's and a range's as powers.
    place, ends = (math.log10, (lowest / 1.5, highest * 1.5)) if logarithmic else (float, (0.0, highest * 1.08))
    figure.add_annotation(
        x=1.0, xref="paper", xanchor="right", y=place(slo_ms), yanchor="bottom", showarrow=False,
        text=f"{slo_ms:g} ms", font={"color": _LIMIT},
    )  # fmt: skip
    figure.update_yaxes(
        title="ms from when the bar was due",
        type="log" if logarithmic else "linear",
        range=[place(end) for end in ends],
        gridcolor=_GRID,
    )
    figure.update_xaxes(gridcolor=_GRID)
    figure.update_layout(
        template="none", height=360, margin={"l": 60, "r": 20, "t": 20, "b": 50}, font={"color": _INK, "size": 12},
        legend={"orientation": "h", "y": 1.12}, showlegend=True, paper_bgcolor="#fff",
    )  # fmt: skip
    return figure
