"""The report of a run: one HTML file that needs nothing else, for looking rather than reading."""

from __future__ import annotations

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from regime.signal import Level
from sage.performance import until_ruin
from sage.results import Tables, closes_of_signals, forecasts_from
from sage.run import BacktestRun
from sage.votes import weights_of

MAX_POINTS = 4000
"""Longer runs are thinned for drawing; every figure is computed from all bars."""

ROLLING_COVERAGE_BARS = 500

_REGIME_COLOURS = {
    ("BULL", "LOW"): "#2e9e6b",
    ("BULL", "HIGH"): "#8fd0b0",
    ("BEAR", "LOW"): "#c8473c",
    ("BEAR", "HIGH"): "#eba79f",
    ("SIDEWAYS", "LOW"): "#7a8594",
    ("SIDEWAYS", "HIGH"): "#e0a63a",
    ("UNKNOWN", "LOW"): "#c9ced6",
    ("UNKNOWN", "HIGH"): "#3f4854",
}
_LEVEL_COLOURS = ("#2e9e6b", "#9bc53d", "#e8c33b", "#ef9436", "#d8602c", "#a61c1c")
_ALPHA_COLOURS = ("#2456a6", "#e0a63a", "#2f8f6b", "#8a4fa3", "#66717f", "#4aa3c8", "#a37f4f", "#c8473c")
_INK, _GRID, _ACCENT, _MUTED = "#1d2733", "#e8ebef", "#2456a6", "#8c96a3"


def render(run: BacktestRun, tabled: Tables, figures: dict[str, Any], manifest: dict[str, Any]) -> str:
    """The report as HTML text."""
    template = jinja2.Environment(autoescape=True).from_string(
        Path(__file__).with_name("tearsheet.html.j2").read_text(encoding="utf-8")
    )
    charts = [
        ("Equity and drawdown", "Our own books at every bar's close, after costs.", _equity_chart(run, tabled)),
        (
            "Price by regime, level and exposure",
            "Colour is the regime that the signal named at that bar; nothing is coloured in hindsight.",
            _regime_chart(run, tabled),
        ),
        (
            f"Uncertainty band: return over the next {figures['coverage']['horizon_bars']} bars",
            _coverage_line(figures),
            _band_chart(run, tabled),
        ),
    ]
    if figures["ensemble"] is not None:
        charts.append(("Weights of the alphas", _ensemble_note(figures["ensemble"]), _weights_chart(tabled)))
    return template.render(
        plotly=get_plotlyjs(),
        run=run,
        figures=figures,
        manifest=manifest,
        cards=_cards(figures),
        charts=[(title, note, chart.to_json()) for title, note, chart in charts],
        levels=[(level, figures["levels"][level.name], _LEVEL_COLOURS[level]) for level in Level],
        fill_line=fill_line(run.config.costs.latency_ms, run.market.size.seconds),
        cost_rows=_cost_rows(figures),
        multiple_rows=_multiple_rows(figures),
        volume_line=volume_told(figures),
        percent=_percent,
    )


def fill_line(latency_ms: float, bar_seconds: int) -> str:
    """How orders fill, in one sentence."""
    if latency_ms > 0:
        bars_later = math.ceil(latency_ms / 1e3 / bar_seconds)
        when = "the next bar" if bars_later == 1 else f"the bar that ends {bars_later} bars later"
        return (
            f"Orders are market orders decided at a bar's close; with {latency_ms:,.10g} ms to the venue they fill at "
            f"the close of {when}. What exceeds a quarter of that bar's volume fills one tick worse."
        )
    return (
        "Orders are market orders decided at a bar's close and, without latency, filled at that same close: optimistic."
    )


def interval_told(interval: dict[str, Any] | None) -> str:
    """A bootstrap interval for people."""
    if interval is None:
        return "too few days for an interval"
    return f"{interval['confidence']:.0%} interval {interval['low']:.2f} to {interval['high']:.2f}"


def volume_told(figures: dict[str, Any]) -> str:
    """The limit by volume and what it cut, for people."""
    if figures["participation"] is None:
        return "not limited by volume: switched off, or it is ticks, or the strategy is your own"
    cut = f"{figures['orders_cut']:,} decisions cut, each time anew: {figures['value_cut']:,.0f} not ordered"
    return f"at most {figures['participation']:.2%} of a bar's volume, where it is known; {cut}"


def _cost_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Kind of cost, how it is charged, what was paid."""
    return [
        (name, line["told"], "–" if line["paid"] is None else f"{line['paid']:,.2f}")
        for name, line in figures["costs"].items()
    ]


def _multiple_rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return, Sharpe and drawdown of the same trades at each multiple of their costs."""
    return [
        (
            f"{multiple} ×",
            _percent(at["total_return"]),
            "–" if at["sharpe"] is None else f"{at['sharpe']:.2f}",
            _percent(at["max_drawdown"]),
        )
        for multiple, at in figures["at_cost_multiples"].items()
    ]


def _cards(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    latency = figures["latency_ms"]
    sharpe = figures["sharpe"]
    accuracy = figures["regime_accuracy"]
    cards = [
        ("Total return", _percent(figures["total_return"]), f"buy and hold {_percent(figures['buy_and_hold_return'])}"),
        (
            "Sharpe",
            "–" if sharpe is None else f"{sharpe:.2f}",
            f"{interval_told(figures['sharpe_interval'])}; {figures['sharpe_basis']}",
        ),
        (
            "Max drawdown",
            _percent(figures["max_drawdown"]),
            f"average exposure {_percent(figures['average_exposure'])}"
            + ("" if figures["ruined_at"] is None else f"; RUINED at {figures['ruined_at']}"),
        ),
        (
            "Coverage",
            _percent(figures["coverage"]["realised"]),
            f"nominal {_percent(figures['coverage']['nominal'])}, level FULL",
        ),
        (
            "Costs paid",
            f"{figures['costs_paid']:,.0f}",
            f"turnover {figures['turnover']:.1f}×, {figures['turnover_per_year']:.1f}× a year",
        ),
        (
            "Orders",
            f"{figures['orders']:,}",
            f"{figures['rejected_orders']} rejected, {figures['orders_cut']:,} cut, {figures['fills']:,} fills",
        ),
        (
            "Signals",
            f"{figures['signals']:,}",
            f"of {figures['bars']:,} bars, {figures['rejected_bars']} rejected, {figures['warm_up_bars']} warm-up",
        ),
        (
            "Latency p99",
            "–" if latency["p99"] is None else f"{latency['p99']:.2f} ms",
            f"bar in to signal out, {forecasts_from(latency['source'])}",
        ),
    ]
    if accuracy is not None:
        cards.append(
            (
                "Regime accuracy",
                _percent(accuracy["volatility"]),
                f"volatility (chance 50 %); direction {_percent(accuracy['direction'])} (chance 33 %)",
            )
        )
    return cards


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _coverage_line(figures: dict[str, Any]) -> str:
    coverage = figures["coverage"]
    if coverage["realised"] is None:
        return "No calibrated forecast has come due yet."
    return (
        f"{_percent(coverage['realised'])} of {coverage['forecasts']:,} calibrated intervals held the return that "
        f"came; they promised {_percent(coverage['nominal'])}. "
        f"All levels together: {_percent(coverage['realised_all_levels'])}."
    )


def _thinned(length: int) -> NDArray[np.int64]:
    """Indices to draw: all of them, or evenly spread ones with the last."""
    if length <= MAX_POINTS:
        return np.arange(length)
    return np.unique(np.append(np.linspace(0, length - 1, MAX_POINTS).astype(np.int64), length - 1))


def _times(ts_ns: NDArray[np.int64]) -> list[str]:
    return [str(stamp) for stamp in np.asarray(ts_ns, dtype="datetime64[ns]").astype("datetime64[s]")]


def _figure(rows: int, heights: list[float]) -> go.Figure:
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.035)
    figure.update_layout(
        template="plotly_white",
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 12, "color": _INK},
        margin={"l": 64, "r": 16, "t": 12, "b": 32},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(gridcolor=_GRID, showspikes=True, spikethickness=1, spikecolor=_MUTED)
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor="#c9ced6")
    return figure


def _equity_chart(run: BacktestRun, tabled: Tables) -> go.Figure:
    own = run.own.get("--strategy")
    equity = tabled.equity.iloc[_thinned(len(tabled.equity))]
    times = _times(equity["ts_ns"].to_numpy())
    figure = _figure(2, [0.7, 0.3])
    figure.add_scatter(
        x=times, y=until_ruin(equity["equity"].to_numpy()), name="SAGE" if own is None else own.spec,
        line={"color": _ACCENT, "width": 2}, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=equity["buy_and_hold"], name="buy and hold", line={"color": _MUTED, "width": 1.2}, row=1, col=1
    )
    hold = equity["buy_and_hold"].to_numpy()
    hold_drawdown = hold / np.maximum.accumulate(hold) - 1.0 if len(hold) else hold
    figure.add_scatter(
        x=times, y=100 * equity["drawdown"], name="drawdown", fill="tozeroy", showlegend=False,
        line={"color": "#c8473c", "width": 1}, fillcolor="rgba(200,71,60,.18)", row=2, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=100 * hold_drawdown, name="drawdown, buy and hold", showlegend=False,
        line={"color": _MUTED, "width": 1, "dash": "dot"}, row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(title_text="equity, log scale", type="log", row=1, col=1)
    figure.update_yaxes(title_text="drawdown, %", row=2, col=1)
    figure.update_layout(height=460)
    return figure


def _regime_chart(run: BacktestRun, tabled: Tables) -> go.Figure:
    signals = tabled.signals
    chosen = _thinned(len(signals))
    times = _times(signals["ts_event"].to_numpy()[chosen])
    close = closes_of_signals(run)[chosen]
    direction = signals["direction"].to_numpy()[chosen]
    volatility = signals["volatility_state"].to_numpy()[chosen]
    figure = _figure(3, [0.68, 0.08, 0.24])
    for (way, state), colour in _REGIME_COLOURS.items():
        mask = (direction == way) & (volatility == state)
        if not mask.any():
            continue
        # Each stretch reaches to the next point, so that the coloured pieces join.
        joined = mask | np.concatenate([[False], mask[:-1]])
        figure.add_scatter(
            x=times, y=np.where(joined, close, np.nan), name=f"{way} {state}".title(), connectgaps=False,
            line={"color": colour, "width": 2}, mode="lines", hoverinfo="skip", row=1, col=1,
        )  # fmt: skip
    figure.add_scatter(
        x=times, y=close, name="close", showlegend=False, line={"width": 0}, mode="lines",
        customdata=np.stack([direction, volatility], axis=1), row=1, col=1,
        hovertemplate="%{y:,.6g}  %{customdata[0]} %{customdata[1]}<extra></extra>",
    )  # fmt: skip
    levels = signals["level"].to_numpy()[chosen].astype(int)
    scale = [
        stop for index, colour in enumerate(_LEVEL_COLOURS) for stop in ((index / 6, colour), ((index + 1) / 6, colour))
    ]
    figure.add_heatmap(
        x=times, y=["level"], z=[levels.tolist()], zmin=-0.5, zmax=5.5, colorscale=scale, showscale=False,
        customdata=[[Level(level).name for level in levels]],
        hovertemplate="%{customdata}<extra></extra>", row=2, col=1,
    )  # fmt: skip
    exposure = tabled.equity["exposure"]
    drawn = _thinned(len(exposure))
    figure.add_scatter(
        x=_times(tabled.equity["ts_ns"].to_numpy()[drawn]), y=100 * exposure.to_numpy()[drawn], name="exposure",
        showlegend=False, line={"color": _ACCENT, "width": 1, "shape": "hv"}, fill="tozeroy",
        fillcolor="rgba(36,86,166,.15)", row=3, col=1,
    )  # fmt: skip
    figure.update_yaxes(title_text="price", row=1, col=1)
    figure.update_yaxes(title_text="exposure, %", row=3, col=1)
    figure.update_layout(height=600)
    return figure


def _band_chart(run: BacktestRun, tabled: Tables) -> go.Figure:
    signals = tabled.signals
    horizon = run.config.regime.horizon_bars
    close = closes_of_signals(run)
    realised = np.full(len(close), np.nan)
    if len(close) > horizon:
        realised[:-horizon] = np.log(close[horizon:] / close[:-horizon])
    low = np.where(np.isfinite(signals["interval_low"]), signals["interval_low"], np.nan)
    high = np.where(np.isfinite(signals["interval_high"]), signals["interval_high"], np.nan)
    inside = pd.Series(np.where(np.isnan(realised) | np.isnan(low), np.nan, (realised >= low) & (realised <= high)))
    rolling = inside.rolling(ROLLING_COVERAGE_BARS, min_periods=100).mean().to_numpy()
    chosen = _thinned(len(signals))
    times = _times(signals["ts_event"].to_numpy()[chosen])
    figure = _figure(2, [0.7, 0.3])
    figure.add_scatter(
        x=times, y=100 * low[chosen], name="lower", showlegend=False, line={"width": 0}, hoverinfo="skip", row=1, col=1
    )
    figure.add_scatter(
        x=times, y=100 * high[chosen], name="interval", fill="tonexty", fillcolor="rgba(36,86,166,.22)",
        line={"width": 0}, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=100 * realised[chosen], name="return that came", mode="lines",
        line={"color": _INK, "width": 0.8}, row=1, col=1,
    )  # fmt: skip
    missed = np.flatnonzero((inside.to_numpy() == 0.0)[chosen])
    figure.add_scatter(
        x=[times[index] for index in missed], y=100 * realised[chosen][missed], name="missed", mode="markers",
        marker={"color": "#c8473c", "size": 3.5}, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=times, y=100 * rolling[chosen], name=f"coverage, last {ROLLING_COVERAGE_BARS} bars", showlegend=False,
        line={"color": _ACCENT, "width": 1.4}, row=2, col=1,
    )  # fmt: skip
    nominal = 100 * (1.0 - run.config.regime.calibration.miscoverage)
    figure.add_hline(y=nominal, line={"color": "#c8473c", "dash": "dash", "width": 1}, row=2, col=1)
    if times:
        figure.update_xaxes(range=[times[0], times[-1]])
    if len(high) and np.isfinite(high).any():
        # A shock may blow up a few intervals; they are in the table, and would hide all others here.
        reach = 130 * float(np.nanquantile(np.maximum(np.abs(low), np.abs(high)), 0.99))
        figure.update_yaxes(range=[-reach, reach], row=1, col=1)
    figure.update_yaxes(title_text="return, %", row=1, col=1)
    figure.update_yaxes(title_text="coverage, %", row=2, col=1)
    figure.update_layout(height=480)
    return figure


def _ensemble_note(ensemble: dict[str, Any]) -> str:
    dropped = sum(sum(alpha["dropped"].values()) for alpha in ensemble["alphas"].values())
    told = f" {dropped:,} votes were dropped; see the notes." if dropped else ""
    return (
        f"How much each counts, bar by bar ({ensemble['weights']} weights); what all say together, and how far they "
        f"disagree.{told}"
    )


def _weights_chart(tabled: Tables) -> go.Figure:
    frame = tabled.weights.iloc[_thinned(len(tabled.weights))]
    times = _times(frame["ts_ns"].to_numpy())
    figure = _figure(2, [0.6, 0.4])
    for (name, weights), colour in zip(weights_of(frame).items(), cycle(_ALPHA_COLOURS), strict=False):
        figure.add_scatter(
            x=times, y=weights, name=name, stackgroup="weights", mode="lines",
            line={"width": 0.5, "color": colour}, row=1, col=1,
        )  # fmt: skip
    for column, colour in (("conviction", _ACCENT), ("disagreement", "#c8473c")):
        figure.add_scatter(
            x=times, y=frame[column], name=column, mode="lines", line={"width": 1, "color": colour}, row=2, col=1
        )
    figure.update_yaxes(title_text="weight", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="conviction, disagreement", range=[-1, 1], row=2, col=1)
    figure.update_layout(height=480)
    return figure
