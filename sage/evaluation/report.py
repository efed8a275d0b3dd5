"""An evaluation for machines and for people: one JSON document, one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from data.bars import iso
from regime.forecast import QUANTILE_LEVELS
from sage.evaluation.baselines import GJR
from sage.evaluation.results import (
    COVERAGE_RANGE,
    EXCESS_ERRORS,
    EXCESS_MAX,
    HORIZON,
    MEAN_DIFFERENCE_MAX,
    ONE_STEP,
    TASKS,
    Forecaster,
    InstrumentResult,
    Verdict,
)
from sage.evaluation.study import Evaluation

TASK_NAMES = {ONE_STEP: "next bar", HORIZON: "whole horizon"}

_COLOURS = {ONE_STEP: "#2456a6", HORIZON: "#e0a63a"}
_LANE = 0.18
_SO_FAR_FROM = 0.1
_INK, _GRID, _LIMIT = "#1d2733", "#e8ebef", "#c8473c"


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation for JSON: losses in log return, shares and relative differences as fractions."""
    config, verdict = evaluation.config, evaluation.verdict
    return {
        "model": evaluation.checkpoint.name,
        "checkpoint": evaluation.checkpoint.id,
        "engine": evaluation.engine.name,
        "context_bars": config.context_bars,
        "horizon_bars": config.horizon_bars,
        "forecasts_at_most": config.forecasts,
        "warm_up_bars": config.warm_up_bars,
        "window_bars": config.window_bars,
        "refit_bars": config.refit_bars,
        "crps": "estimated as twice the mean pinball loss of the nine quantiles",
        "results": [_result_document(result) for result in evaluation.results],
        "reused": evaluation.reused,
        "skipped": evaluation.skipped,
        "verdict": msgspec.to_builtins(verdict)
        | {
            "met": verdict.met,
            "refits": sum(
                forecaster.refits for result in evaluation.results for forecaster in result.baselines.values()
            ),
            "lines": verdict_lines(verdict, len(evaluation.results)),
        },
    }


def counted(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def forecasts_told(forecasts: int, at_most: int) -> str:
    """How many forecasts were judged, and whether that is fewer than the bars were asked for."""
    return counted(forecasts, "forecast") + (f" (all there are, fewer than {at_most:,})" if forecasts < at_most else "")


def verdict_lines(verdict: Verdict, instruments: int) -> list[str]:
    """The verdict for people: a line per target, then what no target asks but should be known."""
    means = verdict.mean_difference[GJR]
    told = ", ".join(
        f"{TASK_NAMES[task]} {'–' if means[task] is None else format(means[task], '+.2%')}" for task in TASKS
    )
    worse = f"more than {EXCESS_MAX:.1%} worse than"
    certain = f"by over {EXCESS_ERRORS:g} standard errors"
    interval = f"native 80% interval within {COVERAGE_RANGE[0]:.0%} to {COVERAGE_RANGE[1]:.0%}"
    excesses, miscovered = verdict.excesses.get(GJR, []), verdict.miscovered
    return [
        f"{_said(verdict.mean_met)}: beside {GJR} {told} on average over {instruments} series, "
        f"less those where it is broken (target: at most {MEAN_DIFFERENCE_MAX:.0%})",
        f"MISSED: {worse} {GJR} {certain} on {'; '.join(excesses)}"
        if excesses
        else f"met: on no series {worse} {GJR} {certain}",
        f"MISSED: {interval}, but for {'; '.join(miscovered)}" if miscovered else f"met: {interval} everywhere",
        *(
            f"no target: {worse} {name} {certain} on {'; '.join(found)}"
            for name, found in verdict.excesses.items()
            if name != GJR
        ),
    ]


def _said(met: bool) -> str:
    return "met" if met else "MISSED"


def _result_document(result: InstrumentResult) -> dict[str, Any]:
    return {
        "instrument": result.instrument,
        "bar": result.bar,
        "data": result.description,
        "bars": result.bars,
        "bars_sha256": result.bars_sha256,
        "forecasts": result.forecasts,
        "left_out": result.left_out,
        "first": iso(result.first_ts_ns),
        "last": iso(result.last_ts_ns),
        "block_bars": result.block_bars,
        "seconds": result.seconds,
        "forecasters": {name: _forecaster_document(found) for name, found in forecasters(result).items()},
    }


def _forecaster_document(forecaster: Forecaster) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for task, score in forecaster.scores.items():
        document[task] = msgspec.to_builtins(score)
        if task in forecaster.comparisons:
            document[task] |= msgspec.to_builtins(forecaster.comparisons[task])
    return document | {
        "pinball_by_step": forecaster.pinball_by_step,
        "shares_below": forecaster.shares_below,
        "refits": forecaster.refits,
        "failures": forecaster.failures,
    }


def forecasters(result: InstrumentResult) -> dict[str, Forecaster]:
    """The model first, then the baselines."""
    return {"model": result.model} | result.baselines


def as_html(evaluation: Evaluation) -> str:
    """The evaluation as one HTML page that needs nothing else."""
    template = jinja2.Environment(autoescape=True).from_string(
        Path(__file__).with_name("evaluation.html.j2").read_text(encoding="utf-8")
    )
    results = evaluation.results
    charts = [_differences(results), _so_far(results), _by_step(results), _reliability(results)]
    return template.render(
        plotly=get_plotlyjs(),
        report=as_document(evaluation),
        tasks=TASK_NAMES,
        counted=counted,
        forecasts_told=forecasts_told,
        charts=[chart.to_json() for chart in charts],
    )


def _differences(results: list[InstrumentResult]) -> go.Figure:
    """Each instrument's relative difference to GJR-GARCH-t, with two standard errors."""
    figure = go.Figure()
    rows = list(range(len(results)))
    for lane, (task, colour) in zip((-_LANE, _LANE), _COLOURS.items(), strict=True):
        found = [result.baselines[GJR].comparisons[task] for result in results]
        figure.add_scatter(
            x=[100 * comparison.difference for comparison in found],
            # A lane for each task: one bar would hide the other's.
            y=[row + lane for row in rows],
            error_x={
                "type": "data",
                "array": [200 * comparison.standard_error for comparison in found],
                "thickness": 2,
                "width": 5,
            },
            name=TASK_NAMES[task],
            mode="markers",
            marker={"color": colour, "size": 9},
            customdata=[[result.name, 200 * each.standard_error] for result, each in zip(results, found, strict=True)],
            hovertemplate="%{customdata[0]}: %{x:+.2f} ± %{customdata[1]:.2f} %",
        )
    for row in rows[1:]:
        figure.add_hline(y=row - 0.5, line={"color": _GRID, "width": 1})
    figure.add_vline(x=0.0, line={"color": _INK, "width": 1})
    figure.add_vline(x=100 * EXCESS_MAX, line={"color": _LIMIT, "dash": "dash"})
    figure.update_xaxes(title="pinball loss beside GJR-GARCH-t, %: left of 0 the model is better")
    names = [result.name for result in results]
    styled = _styled(figure, 150 + 44 * len(results), left=190)
    styled.update_yaxes(tickvals=rows, ticktext=names, range=[len(rows) - 0.5, -0.5], showgrid=False, zeroline=False)
    return styled


def _so_far(results: list[InstrumentResult]) -> go.Figure:
    """The whole horizon's difference as it grew: a steady line, or one event?"""
    figure = go.Figure()
    for result in results:
        # The first ratios are of next to nothing, and would only stretch the axis.
        begin = round(_SO_FAR_FROM * len(result.so_far_ts_ns))
        stamps = result.so_far_ts_ns[begin:]
        figure.add_scatter(
            x=np.linspace(100 * _SO_FAR_FROM, 100, len(stamps)).tolist(),
            y=[100 * value for value in result.so_far[HORIZON][begin:]],
            name=result.name,
            customdata=[iso(stamp) for stamp in stamps],
            hovertemplate=f"{result.name}, %{{customdata}}: %{{y:+.2f}} %<extra></extra>",
        )
    figure.add_hline(y=0.0, line={"color": _INK, "width": 1})
    figure.update_xaxes(title="share of its forecasts, %: series differ in when they begin and end")
    figure.update_yaxes(title="%, all forecasts up to then")
    return _styled(figure)


def _by_step(results: list[InstrumentResult]) -> go.Figure:
    """The difference at each bar of the horizon."""
    figure = go.Figure()
    for result in results:
        model = np.array(result.model.pinball_by_step)
        baseline = np.array(result.baselines[GJR].pinball_by_step)
        figure.add_scatter(
            x=list(range(1, len(model) + 1)),
            y=(100 * (model / baseline - 1.0)).tolist(),
            name=result.name,
            hovertemplate=f"{result.name}, bar %{{x}}: %{{y:+.2f}} %<extra></extra>",
        )
    figure.add_hline(y=0.0, line={"color": _INK, "width": 1})
    figure.update_xaxes(title="bars ahead")
    figure.update_yaxes(title="% beside GJR-GARCH-t")
    return _styled(figure)


def _reliability(results: list[InstrumentResult]) -> go.Figure:
    """How far the share of outcomes below each quantile is from the quantile's level."""
    figure = go.Figure()
    for result in results:
        gap = 100 * (np.array(result.model.shares_below) - QUANTILE_LEVELS)
        figure.add_scatter(
            x=list(QUANTILE_LEVELS),
            y=gap.tolist(),
            name=result.name,
            hovertemplate=f"{result.name}, quantile %{{x}}: %{{y:+.1f}} points<extra></extra>",
        )
    figure.add_hline(y=0.0, line={"color": _INK, "width": 1})
    figure.update_xaxes(title="quantile")
    figure.update_yaxes(title="share below it less its level, points")
    return _styled(figure)


def _styled(figure: go.Figure, height: int = 360, left: int = 60) -> go.Figure:
    figure.update_xaxes(gridcolor=_GRID)
    figure.update_yaxes(gridcolor=_GRID)
    figure.update_layout(
        template="none", height=height, margin={"l": left, "r": 20, "t": 20, "b": 50},
        font={"color": _INK, "size": 12}, legend={"x": 1.02, "y": 1.0}, showlegend=True, paper_bgcolor="#fff",
    )  # fmt: skip
    return figure
