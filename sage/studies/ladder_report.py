"""The degradation ladder for machines and for people: figures by level, what each level costs, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import t as student

from regime.signal import Level
from sage.config import as_dict
from sage.performance import CONFIDENCE, sharpe_difference_interval
from sage.studies.ladder import Ladder, Rungs
from sage.studies.page import COLOURS, Finding, Section, as_html, styled

COLUMNS = (
    "level", "answered", "direction", "volatility", "coverage", "width", "Sharpe", "beside FULL", "return", "drawdown",
    "turnover a year", "costs",
)  # fmt: skip
HOLD = "buy and hold"

SAID = (
    "Direction and volatility: balanced accuracy against the true regimes, where they are known. Coverage and mean "
    "width: of the signals' intervals over the horizon, from bar 500 on; an interval without end is a miss. Costs: "
    "as a share of the cash. A run that trades nothing has no Sharpe ratio, and beside others counts as 0. SIMPLE and "
    "HISTORICAL name no direction of their own: they hold what a better level left, and as the best from the first bar "
    "on nothing."
)


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval, where there is one."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def told(self, form: str = "{:.2f}") -> str:
        """For people."""
        if self.value is None:
            return "–"
        text = form.format(self.value)
        if self.low is None or self.high is None:
            return text
        return f"{text} [{form.format(self.low)}, {form.format(self.high)}]"


@dataclass(frozen=True)
class Step:
    """One level over one or several markets; ``level`` is None for buy and hold."""

    level: Level | None
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Group:
    """Markets that are looked at together: all simulated ones, or one instrument."""

    name: str
    said: str
    steps: list[Step]


def groups(ladder: Ladder) -> list[Group]:
    """The simulated markets together, then every instrument by itself."""
    simulated = [rungs for rungs in ladder.markets if rungs.simulated]
    found = [_instrument(rungs, ladder.config.base.seed) for rungs in ladder.markets if not rungs.simulated]
    return [_seeds(simulated), *found] if simulated else found


def _seeds(markets: list[Rungs]) -> Group:
    """Means over independent markets, with Student's interval of the mean."""
    steps = []
    for level in Level:
        cells = [rungs.cells[level] for rungs in markets]
        figures = {name: _mean([_plain(cell, name) for cell in cells]) for name in _NAMES}
        if any(cell["sharpe"] is not None for cell in cells):
            figures["sharpe"] = _mean([cell["sharpe"] or 0.0 for cell in cells])
        figures["difference"] = _mean([_behind(rungs, level) for rungs in markets]) if level else Figure(None)
        steps.append(Step(level, figures))
    holds = [rungs.cells[0]["buy_and_hold"] for rungs in markets]
    steps.append(Step(None, {name: _mean([hold[name] for hold in holds]) for name in _HOLD_NAMES}))
    bars = markets[0].cells[0]["bars"]
    said = f"{len(markets)} markets of {bars:,} bars; means with 95 % intervals over markets (Student's t)."
    return Group("simulated markets", said, steps)


def _instrument(rungs: Rungs, seed: int) -> Group:
    """One market: Sharpe ratios with their block bootstrap, differences from days drawn together."""
    best = np.array(rungs.cells[0]["daily_returns"])
    steps = []
    for cell in rungs.cells:
        figures = {name: Figure(_plain(cell, name)) for name in _NAMES}
        interval = cell["sharpe_interval"]
        if interval is not None:
            figures["sharpe"] = Figure(cell["sharpe"], interval["low"], interval["high"])
        figures["difference"] = Figure(None)
        if cell["level"]:
            own = np.array(cell["daily_returns"])
            behind = _behind(rungs, cell["level"])
            drawn = sharpe_difference_interval(own, best, rungs.days_per_year, seed)
            figures["difference"] = Figure(behind) if drawn is None else Figure(behind, drawn.low, drawn.high)
        steps.append(Step(Level(cell["level"]), figures))
    hold = rungs.cells[0]["buy_and_hold"]
    steps.append(Step(None, {name: Figure(hold[name]) for name in _HOLD_NAMES}))
    said = (
        f"The newest {rungs.cells[0]['bars']:,} bars; Sharpe with 95 % block bootstrap intervals, differences paired."
    )
    return Group(rungs.market, said, steps)


_NAMES = (
    "answered", "direction", "volatility", "coverage", "width", "sharpe", "total_return", "max_drawdown",
    "turnover_per_year", "costs_share", "average_exposure", "break_even_bps", "fills", "orders_cut",
)  # fmt: skip
_HOLD_NAMES = ("sharpe", "total_return", "max_drawdown")


def _behind(rungs: Rungs, level: int) -> float:
    """A level's Sharpe ratio less that of FULL; one of holding nothing counts as 0."""
    return float((rungs.cells[level]["sharpe"] or 0.0) - (rungs.cells[0]["sharpe"] or 0.0))


def _plain(cell: dict[str, Any], name: str) -> float | None:
    if name in {"direction", "volatility"}:
        return None if cell["accuracy"] is None else float(cell["accuracy"][name])
    return None if cell[name] is None else float(cell[name])


def _mean(values: Sequence[float | None]) -> Figure:
    """The mean of independent values and Student's interval of it; those that are None do not count."""
    known = np.array([value for value in values if value is not None])
    if len(known) == 0:
        return Figure(None)
    mean = float(known.mean())
    if len(known) == 1:
        return Figure(mean)
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return Figure(mean, mean - reach, mean + reach)


def findings(ladder: Ladder, found: Sequence[Group]) -> list[Finding]:
    """What must be so whatever the market, and what every level costs, for which there is no target."""
    cells = [cell for rungs in ladder.markets for cell in rungs.cells]
    held = sum(cell["fills"] for cell in cells if cell["level"] == Level.EMERGENCY)
    over, better = sum(cell["over_cap"] for cell in cells), sum(cell["better"] for cell in cells)
    runs = len(cells)
    said = [
        Finding(held == 0, f"EMERGENCY holds nothing: {held} fills in {runs // len(Level)} runs"),
        Finding(over == 0, f"no order beyond its level's cap: {over} in {runs} runs"),
        Finding(better == 0, f"nothing above a pinned level answers: {better:,} signals in {runs} runs"),
    ]
    for group in found:
        full = group.steps[0].figures
        for step in group.steps[1 : Level.SIMPLE]:
            assert step.level is not None
            parts = [f"Sharpe {step.figures['difference'].told('{:+.2f}')}"]
            for name in ("direction", "volatility", "coverage"):
                before, after = full[name].value, step.figures[name].value
                if before is not None and after is not None:
                    parts.append(f"{name} {100 * (after - before):+.1f} points")
            said.append(Finding(None, f"{group.name}: {step.level.name} in the place of FULL: {', '.join(parts)}"))
    return said


def rows(group: Group) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each level, and one for buy and hold."""
    return [_row(step) for step in group.steps]


def _row(step: Step) -> list[str]:
    def share(name: str, form: str = "{:.1%}", *, interval: bool = False) -> str:
        figure = step.figures.get(name, Figure(None))
        return (figure if interval else Figure(figure.value)).told(form)

    name = HOLD if step.level is None else f"{int(step.level)} {step.level.name}"
    return [
        name,
        share("answered"),
        share("direction"),
        share("volatility"),
        share("coverage"),
        share("width", "{:.2%}"),
        share("sharpe", "{:.2f}", interval=True),
        share("difference", "{:+.2f}", interval=True),
        share("total_return"),
        share("max_drawdown"),
        share("turnover_per_year", "{:.0f}"),
        share("costs_share", "{:.2%}"),
    ]


def as_document(ladder: Ladder) -> dict[str, Any]:
    """All figures for JSON, daily returns left out."""
    found = groups(ladder)
    config = ladder.config
    return {
        "seeds": config.seeds,
        "bars": config.bars,
        "config": as_dict(config.base),
        "groups": [
            {
                "name": group.name,
                "said": group.said,
                "levels": [
                    {"level": HOLD if step.level is None else step.level.name, **_as_json(step)} for step in group.steps
                ],
            }
            for group in found
        ],
        "markets": [
            {
                "market": rungs.market,
                "simulated": rungs.simulated,
                "buy_and_hold": _without_returns(rungs.cells[0]["buy_and_hold"]),
                "levels": [_without_returns(cell, "buy_and_hold") for cell in rungs.cells],
            }
            for rungs in ladder.markets
        ],
        "reused": ladder.reused,
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(ladder, found)],
    }


def _as_json(step: Step) -> dict[str, dict[str, float | None]]:
    return {
        name: {"value": figure.value, "low": figure.low, "high": figure.high} for name, figure in step.figures.items()
    }


def _without_returns(cell: dict[str, Any], *others: str) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name not in {"daily_returns", *others}}


def page(ladder: Ladder) -> str:
    """The report as HTML text."""
    found = groups(ladder)
    sections = [Section("What every level costs", SAID, chart=_chart(found))]
    sections += [Section(group.name, group.said, COLUMNS, rows(group)) for group in found]
    subtitle = "The same backtest with each level pinned as the best that may answer, beside buy and hold."
    return as_html("Degradation ladder", subtitle, findings(ladder, found), sections)


def _chart(found: Sequence[Group]) -> go.Figure:
    """Sharpe by level with its interval, a colour for each group; a dash where buy and hold stands."""
    figure = go.Figure()
    for number, group in enumerate(found):
        steps = [step for step in group.steps if step.level is not None]
        sharpes = [step.figures["sharpe"] for step in steps]
        known = [one for one in sharpes if one.value is not None]
        names = [
            step.level.name for step in steps if step.level is not None and step.figures["sharpe"].value is not None
        ]
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(
            x=names, y=[one.value for one in known], name=group.name, mode="lines+markers", line={"color": colour},
            error_y={
                "type": "data", "symmetric": False,
                "array": [(one.high or one.value) - one.value for one in known if one.value is not None],
                "arrayminus": [one.value - (one.low or one.value) for one in known if one.value is not None],
            },
        )  # fmt: skip
        hold = group.steps[-1].figures["sharpe"].value
        if hold is not None:
            figure.add_hline(y=hold, line={"color": colour, "dash": "dot", "width": 1})
    figure.update_xaxes(categoryorder="array", categoryarray=[level.name for level in Level])
    figure.update_yaxes(title_text="Sharpe (dotted: buy and hold)")
    return styled(figure)
