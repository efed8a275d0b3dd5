"""The ablation for machines and for people: figures by variant, differences to equal weights, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sage.config import as_dict
from sage.performance import Interval, sharpe, sharpe_difference_interval, sharpe_interval
from sage.studies.ablation import ENSEMBLE, EQUAL, Ablated, Ablation
from sage.studies.ensemble_report import Mean
from sage.studies.ladder_report import Figure
from sage.studies.page import COLOURS, Finding, Section, as_html, styled

FloatArray = NDArray[np.float64]

TOGETHER = "all instruments"

COLUMNS = ("variant", "Sharpe", "beside equal weights", "return", "drawdown", "turnover a year", "costs", "mean weight")

SAID = (
    "Each alpha alone, all with equal weights, the ensemble, and buy and hold, through the same backtest. Intervals "
    "are 95 %: for an instrument from a circular block bootstrap of its daily returns (hourly ones where there are "
    "fewer than 60 days), differences from days of both drawn together; over simulated markets Student's, of the mean. "
    f"'{TOGETHER}' holds the same share of each, day by day, and is what decides. Costs: as a share of the cash. A run "
    "that trades nothing has no Sharpe ratio, and beside others counts as 0."
)

_SHARES = ("total_return", "max_drawdown", "costs_share")


@dataclass(frozen=True)
class Variant:
    """One variant on one market, or on several together."""

    name: str
    sharpe: Figure
    difference: Figure
    figures: dict[str, float]
    mean_weight: float | None


@dataclass(frozen=True)
class Group:
    """Markets that are looked at together; ``real`` where they are history."""

    name: str
    said: str
    real: bool
    variants: list[Variant]

    @property
    def judged(self) -> Figure:
        """The ensemble beside equal weights."""
        return next(variant.difference for variant in self.variants if variant.name == ENSEMBLE)


def groups(ablation: Ablation) -> list[Group]:
    """The simulated markets together, every instrument by itself, and all instruments together."""
    simulated = [market for market in ablation.markets if market.simulated]
    real = [market for market in ablation.markets if not market.simulated]
    seed = ablation.config.base.seed
    found = [_seeds(simulated)] if simulated else []
    found += [_alone(market, seed) for market in real]
    return [*found, _together(real, seed)] if len(real) > 1 else found


def _seeds(markets: Sequence[Ablated]) -> Group:
    variants = []
    for name in markets[0].cells:
        ratios = [_ratio(market, name) for market in markets]
        apart = [_ratio(market, name) - _ratio(market, EQUAL) for market in markets]
        cells = [market.cells[name] for market in markets]
        variants.append(
            Variant(
                name, _mean(ratios), Figure(None) if name == EQUAL else _mean(apart),
                {key: float(np.mean([cell[key] for cell in cells])) for key in _known(cells[0])},
                _mean_weight(markets, name),
            )
        )  # fmt: skip
    return Group("simulated markets", f"{len(markets)} markets of {markets[0].bars:,} bars; means.", False, variants)


def _alone(market: Ablated, seed: int) -> Group:
    variants = [
        _variant(name, cell["returns"], market.cells[EQUAL]["returns"], market.periods_per_year, seed,
                 {key: cell[key] for key in _known(cell)}, _mean_weight([market], name))
        for name, cell in market.cells.items()
    ]  # fmt: skip
    kind = "days" if market.periods_are_days else "hours"
    returns = len(market.cells[EQUAL]["returns"])
    return Group(market.market, f"The newest {market.bars:,} bars, {returns:,} {kind}.", True, variants)


def _together(markets: Sequence[Ablated], seed: int) -> Group:
    """The same share of each instrument that has a return that day; days with none are left out."""
    by_day = {
        name: _portfolio([_by_day(market, name) for market in markets]) for name in markets[0].cells
    }  # fmt: skip
    per_year = max(market.days_per_year for market in markets)
    variants = [
        _variant(name, returns, by_day[EQUAL], per_year, seed,
                 {key: float(np.mean([market.cells[name][key] for market in markets])) for key in
                  _known(markets[0].cells[name])}, _mean_weight(markets, name))
        for name, returns in by_day.items()
    ]  # fmt: skip
    said = f"{len(markets)} instruments, {len(by_day[EQUAL]):,} days; return, drawdown, turnover and costs are means."
    return Group(TOGETHER, said, True, variants)


def _by_day(market: Ablated, name: str) -> dict[int, float]:
    cell = market.cells[name]
    growth: dict[int, float] = {}
    for period, value in zip(cell["periods"].tolist(), cell["returns"].tolist(), strict=True):
        day = period if market.periods_are_days else period // 24
        growth[day] = (1.0 + growth.get(day, 0.0)) * (1.0 + value) - 1.0
    return growth


def _portfolio(members: Sequence[dict[int, float]]) -> FloatArray:
    days = sorted(set().union(*members))
    return np.array([np.mean([member[day] for member in members if day in member]) for day in days])


def _variant(
    name: str, returns: FloatArray, equal: FloatArray, per_year: int, seed: int, figures: dict[str, float],
    mean_weight: float | None,
) -> Variant:  # fmt: skip
    apart = Figure(None)
    if name != EQUAL:
        value = (sharpe(returns, per_year) or 0.0) - (sharpe(equal, per_year) or 0.0)
        apart = _figure(value, sharpe_difference_interval(returns, equal, per_year, seed))
    own = _figure(sharpe(returns, per_year), sharpe_interval(returns, per_year, seed))
    return Variant(name, own, apart, figures, mean_weight)


def _figure(value: float | None, interval: Interval | None) -> Figure:
    return Figure(value) if interval is None else Figure(value, interval.low, interval.high)


def _ratio(market: Ablated, name: str) -> float:
    return sharpe(market.cells[name]["returns"], market.periods_per_year) or 0.0


def _mean(values: Sequence[float]) -> Figure:
    if len(values) < 2:
        return Figure(values[0])
    mean = Mean.of(values)
    return Figure(mean.value, mean.low, mean.high)


def _known(cell: dict[str, Any]) -> list[str]:
    return [key for key in (*_SHARES, "turnover_per_year") if cell.get(key) is not None]


def _mean_weight(markets: Sequence[Ablated], name: str) -> float | None:
    weights = [market.cells[ENSEMBLE]["mean_weights"].get(name) for market in markets]
    known = [weight for weight in weights if weight is not None]
    return float(np.mean(known)) if known else None


def findings(found: Sequence[Group]) -> list[Finding]:
    """The ensemble beside equal weights; on real data it fails only where all of the interval lies below zero."""
    said = []
    real = [group for group in found if group.real]
    for group in found:
        judged = group.judged
        decides = group.real and group is real[-1]
        met = None if not decides or judged.high is None else judged.high >= 0.0
        text = f"{group.name}: the ensemble beside equal weights, Sharpe {judged.told('{:+.2f}')}"
        said.append(Finding(met, f"{text}; fails where the interval lies wholly below 0" if decides else text))
    below = [group.name for group in real if group.judged.high is not None and group.judged.high < 0]
    above = [group.name for group in real if group.judged.low is not None and group.judged.low > 0]
    if len(real) > 1:
        told = f"wholly below 0 on {', '.join(below) or 'none'}, wholly above on {', '.join(above) or 'none'}"
        said.append(Finding(None, f"intervals of single instruments, {len(real) - 1} of them: {told}"))
    return said


def rows(group: Group) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each variant."""
    return [
        [
            variant.name,
            variant.sharpe.told(),
            variant.difference.told("{:+.2f}"),
            *(_told(variant.figures.get(name), form) for name, form in (
                ("total_return", "{:.1%}"), ("max_drawdown", "{:.1%}"), ("turnover_per_year", "{:.0f}"),
                ("costs_share", "{:.2%}"),
            )),
            _told(variant.mean_weight, "{:.2f}"),
        ]
        for variant in group.variants
    ]  # fmt: skip


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def as_document(ablation: Ablation) -> dict[str, Any]:
    """All figures for JSON, without the returns."""
    found = groups(ablation)
    return {
        "study": "ablation",
        "config": as_dict(ablation.config.base),
        "groups": [
            {
                "name": group.name,
                "said": group.said,
                "real": group.real,
                "variants": [
                    {
                        "name": variant.name,
                        "sharpe": _plain(variant.sharpe),
                        "difference": _plain(variant.difference),
                        **variant.figures,
                        "mean_weight": variant.mean_weight,
                    }
                    for variant in group.variants
                ],
            }
            for group in found
        ],
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(found)],
        "reused": ablation.reused,
    }


def _plain(figure: Figure) -> dict[str, float | None]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def page(ablation: Ablation) -> str:
    """The page."""
    found = groups(ablation)
    sections = [Section("The ensemble beside equal weights, and alone", SAID, chart=_chart(found))]
    sections += [Section(group.name, group.said, COLUMNS, rows(group)) for group in found]
    subtitle = "The same backtest with each alpha alone, with equal weights and with the ensemble's."
    return as_html("Ablation of the ensemble", subtitle, findings(found), sections)


def _chart(found: Sequence[Group]) -> go.Figure:
    """Sharpe of every variant with its interval, a line of marks for each group."""
    figure = go.Figure()
    names = [variant.name for variant in found[0].variants]
    for number, group in enumerate(found):
        ratios = [variant.sharpe for variant in group.variants]
        bounds = [(one.value, one.low, one.high) for one in ratios]
        figure.add_scatter(
            x=[(value or 0.0) for value, _, _ in bounds],
            y=[place + 0.7 * (number / max(len(found) - 1, 1) - 0.5) for place in range(len(names))],
            mode="markers", name=group.name, marker={"color": COLOURS[number % len(COLOURS)], "size": 7},
            error_x={
                "array": [0.0 if high is None else high - (value or 0.0) for value, _, high in bounds],
                "arrayminus": [0.0 if low is None else (value or 0.0) - low for value, low, _ in bounds],
                "thickness": 1,
            },
        )  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    figure.update_xaxes(title_text="annual Sharpe ratio, 95 % interval")
    return styled(figure, height=110 * len(names), left=110)
