"""The study of regimes for machines and for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from regime.volatility_states import TRANSITION_BARS
from sage.studies.page import COLOURS, GRID, LIMIT, Finding, Section, as_html, styled
from sage.studies.regimes import CEILING, OURS, RegimeStudy, Row
from sage.studies.regimes_verdict import (
    SHORTFALL_MAX,
    Figures,
    Reliability,
    exclusions,
    figures,
    findings,
    reliability,
    series_of,
)

COLUMNS: tuple[str, ...] = (
    "", "balanced acc.", "± SE", "beside ceiling", "SAGE beside it", "± SE", "changes / 1,000 bars", "x ceiling's",
    "bars a state", "delay bars", "unnoticed",
)  # fmt: skip

TRANSITION_COLUMNS: tuple[str, ...] = (
    "said",
    "bars",
    "followed by a transition",
    "95 % interval",
    "named state changed",
)

EXPLAINED = (
    "Balanced accuracy: the mean of the shares of calm and of turbulent bars that are named right. The ceiling is the "
    "filter that knows the simulation's parameters, cut at the long-run share of turbulence. Differences are paired, "
    "series by series. Delay: bars from a true change until its state is named; one that ends unnoticed counts with "
    "its length. Peers are fitted once, to the first half; the t-HMM is given its degrees of freedom."
)


def as_document(study: RegimeStudy) -> Any:
    """The study for JSON."""
    config = study.config
    return _plain({
        "seeds": config.seeds,
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(study)],
        "cells": [
            {
                "cell": result.cell.name,
                "bars": result.cell.bars,
                "volatilities": result.cell.market.volatilities,
                "degrees_of_freedom": result.cell.market.degrees_of_freedom,
                "series": sum(not row.excluded for row in result.rows),
                "excluded": exclusions(result),
                "methods": msgspec.to_builtins(figures(result)),
            }
            for result in study.cells
        ],
        "transition_bars": TRANSITION_BARS,
        "transition_probability": {
            name: msgspec.to_builtins(reliability(rows)) for name, rows in _transition_parts(study).items()
        },
    })  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON knows no NaN: what a single series cannot tell is null."""
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(study: RegimeStudy) -> list[tuple[str, list[list[str]]]]:
    """A heading and the rows for each cell."""
    found = []
    for result in study.cells:
        used = sum(not row.excluded for row in result.rows)
        left_out = ", ".join(f"{count} {reason}" for reason, count in exclusions(result).items())
        told = f"{result.cell.name}: {used} series" + (f" (left out: {left_out})" if left_out else "")
        found.append((told, [_cells(name, method) for name, method in figures(result).items()]))
    return found


def transition_tables(study: RegimeStudy) -> list[tuple[str, list[list[str]]]]:
    """A heading and the rows of the transition probability, here and on markets of many kinds."""
    return [
        (f"Transition within {TRANSITION_BARS} bars, {name}", _transition_rows(reliability(rows)))
        for name, rows in _transition_parts(study).items()
    ]


def page(study: RegimeStudy) -> str:
    """The study as an HTML page."""
    told: Sequence[Finding] = findings(study)
    sections = [Section("Balanced accuracy beside the ceiling", EXPLAINED, chart=_accuracy_chart(study))]
    sections += [Section(heading, columns=COLUMNS, rows=rows) for heading, rows in tables(study)]
    explained = (
        "What was said, in bins, against how often the hidden state really changed within the next "
        f"{TRANSITION_BARS} bars; intervals from a bootstrap of whole series. On the diagonal it is true."
    )
    sections.append(Section("Reliability of the transition probability", explained, chart=_reliability_chart(study)))
    sections += [Section(heading, columns=TRANSITION_COLUMNS, rows=rows) for heading, rows in transition_tables(study)]
    cell = study.cells[-1].cell.name
    sections.append(Section("One series", f"{cell}; shaded where it is turbulent.", chart=_example_chart(study)))
    subtitle = f"A simulated market of two volatility states, {study.config.seeds} series of each kind"
    return as_html("Are the regimes right?", subtitle, told, sections)


def _transition_parts(study: RegimeStudy) -> dict[str, Sequence[Row]]:
    return {"this simulation": series_of(study), "markets of many kinds": study.mixed}


def _cells(name: str, found: Figures) -> list[str]:
    beside = [""] * 2 if name == OURS else [f"{found.ours_beside:+.4f}", f"{found.ours_beside_error:.4f}"]
    return [
        name,
        f"{found.balanced_accuracy:.4f}",
        f"{found.accuracy_error:.4f}",
        "" if name == CEILING else f"{found.beside_ceiling:+.4f}",
        *beside,
        f"{found.changes_per_1000_bars:.1f}",
        f"{found.changes_ratio:.2f}",
        f"{found.bars_per_state:.0f}",
        f"{found.delay_bars:.1f}",
        f"{found.unnoticed:.0%}",
    ]


def _transition_rows(found: Reliability) -> list[list[str]]:
    return [
        [f"{said:.3f}", f"{bars:,.0f}", f"{share:.3f}", f"{low:.3f} to {high:.3f}", f"{named:.3f}"]
        for bars, said, share, low, high, named in found.bins
    ]


def _accuracy_chart(study: RegimeStudy) -> go.Figure:
    cells = [(result.cell.name, figures(result)) for result in study.cells]
    cells = [(name, found) for name, found in cells if found]
    chart = go.Figure()
    methods = [name for name in (cells[0][1] if cells else {}) if name != CEILING]
    for name in methods:
        chart.add_bar(
            name=name,
            x=[cell for cell, _ in cells],
            y=[found[name].beside_ceiling for _, found in cells],
            error_y={
                "array": [2.0 * found[name].beside_ceiling_error for _, found in cells],
                "thickness": 1,
                "width": 2,
            },
        )
    chart.add_hline(-SHORTFALL_MAX, line={"color": LIMIT, "dash": "dot"})
    chart.update_yaxes(title="balanced accuracy less the ceiling's, ± 2 SE")
    return styled(chart, height=420)


def _reliability_chart(study: RegimeStudy) -> go.Figure:
    chart = go.Figure()
    for colour, (name, rows) in zip(COLOURS, _transition_parts(study).items(), strict=False):
        bins = np.array(reliability(rows).bins)
        chart.add_scatter(
            name=name, x=bins[:, 1], y=bins[:, 2], mode="lines+markers", line={"color": colour},
            marker={"size": 5 + 15 * np.sqrt(bins[:, 0] / bins[:, 0].max())},
            error_y={"array": bins[:, 4] - bins[:, 2], "arrayminus": bins[:, 2] - bins[:, 3], "thickness": 1},
        )  # fmt: skip
    chart.add_scatter(name="true", x=[0, 0.45], y=[0, 0.45], mode="lines", line={"color": LIMIT, "dash": "dot"})
    chart.update_xaxes(title="probability said")
    chart.update_yaxes(title="share followed by a transition")
    return styled(chart, height=420)


def _example_chart(study: RegimeStudy) -> go.Figure:
    example = study.example
    bars = np.arange(len(example.returns))
    chart = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.04)
    chart.add_scatter(name="return", x=bars, y=example.returns, line={"color": COLOURS[5], "width": 1}, row=1, col=1)
    lines = (
        ("probability of turbulence", example.probability_high, COLOURS[0], 2),
        ("state named", example.found.astype(float), COLOURS[1], 2),
        (f"transition within {TRANSITION_BARS} bars", example.transition_probability, COLOURS[2], 3),
    )
    for name, values, colour, row in lines:
        shape = "hv" if name == "state named" else "linear"
        chart.add_scatter(
            name=name, x=bars, y=values, line={"color": colour, "width": 1.2, "shape": shape}, row=row, col=1
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[0], example.turbulent.astype(int), [0]])))
    for start, end in edges.reshape(-1, 2):
        chart.add_vrect(start - 0.5, end - 0.5, fillcolor=GRID, opacity=0.9, line_width=0, layer="below")
    chart.update_xaxes(title="bar", row=3, col=1)
    return styled(chart, height=520)
