"""The coverage study for machines and for people: findings beside their targets, tables, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from data.bars import iso
from regime.signal import Level
from sage.config import as_dict
from sage.studies.coverage import Cell, Coverage
from sage.studies.coverage_breaks import AFTER_BARS, AfterBreak, pooled
from sage.studies.page import INK, LIMIT, Finding, Section, as_html, styled

LONG_BARS = 20_000
"""Series with fewer bars are reported, not judged."""

COVERAGE_RANGE = (0.89, 0.91)
WINKLER_MAX = 1.0
THIRDS_MAX = 0.03
HOURS_RANGE = (0.85, 0.95)
UP_COVERAGE_MIN, UP_WIDTH_MAX = 0.875, 1.14
DOWN_COVERAGE_MAX, DOWN_WIDTH_MAX = 0.95, 1.5

SERIES_COLUMNS = (
    "series", "bars", "coverage", "horizon", "Winkler", "thirds: calm", "middle", "wild", "apart", "ex post apart",
    "hours from", "to", "below FULL",
)  # fmt: skip
BREAK_COLUMNS = ("breaks", "number", "up: coverage", "width", "down: coverage", "width", "all bars")

SAID = (
    "Coverage: share of the next bar's returns inside their 90 % interval, all levels counted, intervals without end "
    "as misses. Winkler: the mean score beside a static quantile of EWMA(0.94)-normalised returns fitted on the 1,000 "
    "bars before; below 1 is better. Thirds: of EWMA(0.94) volatility known when the interval was said. Width after "
    "breaks: over that of the oracle, who knows volatility and distribution."
)


def apart(values: list[float]) -> float:
    """Largest less smallest."""
    return max(values) - min(values)


def winkler_ratio(cell: Cell) -> float:
    """Mean score over that of the static quantile."""
    return float(cell["winkler"] / cell["static_winkler"])


def findings(coverage: Coverage) -> list[Finding]:
    """Each target of the study, then what has none but should be known."""
    nominal = 1.0 - coverage.config.regime.calibration.miscoverage
    found: list[Finding] = []
    if nominal == 0.9:  # the targets are those of 90 % intervals
        judged = [cell for cell in coverage.series if cell["bars_held"] >= LONG_BARS]
        if judged:
            found += _of_series(judged)
        if coverage.breaks:
            found += _of_breaks(coverage.breaks)
    for cell in coverage.series:
        if cell["bars_held"] < LONG_BARS:
            found.append(
                Finding(
                    None,
                    f"{cell['series']} has {cell['bars_held']:,} bars, fewer than {LONG_BARS:,}, and is not judged: "
                    f"over {cell['judged']:,} bars coverage {cell['coverage']:.3f}, Winkler {winkler_ratio(cell):.3f}",
                )
            )
    return found + [Finding(None, f"left out: {text}") for text in coverage.skipped]


def _of_series(cells: list[Cell]) -> list[Finding]:
    low, high = COVERAGE_RANGE
    least, most = HOURS_RANGE
    hourly = [cell for cell in cells if cell["hours"]]
    found = [
        _each(cells, lambda cell: cell["coverage"], lambda value: low <= value <= high,
              f"coverage of the next bar within {low} to {high}"),
        _each(cells, winkler_ratio, lambda value: value <= WINKLER_MAX,
              "Winkler score no worse than a static EWMA-normalised quantile's"),
        _each(cells, lambda cell: apart(cell["thirds"]), lambda value: value <= THIRDS_MAX,
              f"thirds of volatility at most {THIRDS_MAX} apart"),
    ]  # fmt: skip
    if hourly:
        for worst, side in ((min, "lowest"), (max, "highest")):
            found.append(
                _each(
                    hourly,
                    lambda cell, worst=worst: worst(share for _, _, share in cell["hours"]),  # type: ignore[misc]
                    lambda value: least <= value <= most,
                    f"{side} coverage of an hour of the day within {least} to {most}",
                )
            )
    return found


def _each(cells: list[Cell], value: Callable[[Cell], float], holds: Callable[[float], bool], what: str) -> Finding:
    values = {cell["series"]: value(cell) for cell in cells}
    missed = [f"{name} {figure:.3f}" for name, figure in values.items() if not holds(figure)]
    told = f"{what}: {min(values.values()):.3f} to {max(values.values()):.3f} over {len(cells)} series"
    return Finding(not missed, told + (f"; not on {', '.join(missed)}" if missed else ""))


def _of_breaks(breaks: list[AfterBreak]) -> list[Finding]:
    (up, up_width), (down, down_width) = pooled(breaks, 0), pooled(breaks, 1)
    number = [sum(after.number[way] for after in breaks) for way in (0, 1)]
    found = [
        Finding(
            up >= UP_COVERAGE_MIN and up_width <= UP_WIDTH_MAX,
            f"{AFTER_BARS} bars after {number[0]:,} breaks upwards, all kinds together: coverage {up:.3f} (at least "
            f"{UP_COVERAGE_MIN}) at {up_width:.2f} times the oracle's width (at most {UP_WIDTH_MAX})",
        ),
        Finding(
            down <= DOWN_COVERAGE_MAX and down_width <= DOWN_WIDTH_MAX,
            f"{AFTER_BARS} bars after {number[1]:,} breaks downwards: coverage {down:.3f} (at most "
            f"{DOWN_COVERAGE_MAX}) at {down_width:.2f} times the oracle's width (at most {DOWN_WIDTH_MAX})",
        ),
    ]
    for after in breaks:
        held, width = after.covered[0].mean(), after.width[0].mean()
        text = f"breaks {after.kind} by themselves: upwards {held:.3f} at {width:.2f}, "
        text += f"downwards {after.covered[1].mean():.3f} at {after.width[1].mean():.2f}"
        found.append(Finding(None, text))
    return found


def series_rows(cells: list[Cell]) -> list[list[str]]:
    """A row for each series."""
    rows = []
    for cell in cells:
        hours = [share for _, _, share in cell["hours"]]
        below = cell["judged"] - cell["levels"].get(Level.FULL.name, 0)
        rows.append(
            [
                cell["series"], f"{cell['judged']:,}", f"{cell['coverage']:.3f}", f"{cell['horizon_coverage']:.3f}",
                f"{winkler_ratio(cell):.3f}", *(f"{share:.3f}" for share in cell["thirds"]),
                f"{apart(cell['thirds']):.3f}", f"{apart(cell['ex_post_thirds']):.3f}",
                f"{min(hours):.3f}" if hours else "–", f"{max(hours):.3f}" if hours else "–", f"{below:,}",
            ]
        )  # fmt: skip
    return rows


def break_rows(breaks: list[AfterBreak]) -> list[list[str]]:
    """A row for each kind of break."""
    return [
        [
            after.kind, f"{after.number[0]:,}", f"{after.covered[0].mean():.3f}", f"{after.width[0].mean():.2f}",
            f"{after.covered[1].mean():.3f}", f"{after.width[1].mean():.2f}", f"{after.coverage:.3f}",
        ]
        for after in breaks
    ]  # fmt: skip


def as_document(coverage: Coverage) -> dict[str, Any]:
    """The study for JSON."""
    config = coverage.config
    return {
        "model": coverage.checkpoint.name,
        "checkpoint": coverage.checkpoint.id,
        "engine": coverage.engine,
        "bars_at_most": config.bars,
        "warm_up_bars": config.warm_up_bars,
        "calibration": as_dict(config.regime.calibration),
        "findings": [dataclasses.asdict(finding) for finding in findings(coverage)],
        "series": coverage.series,
        "breaks": [
            {
                "kind": after.kind,
                "number": list(after.number),
                "covered": [values.tolist() for values in after.covered],
                "width": [values.tolist() for values in after.width],
                "coverage": after.coverage,
            }
            for after in coverage.breaks
        ],
        "skipped": coverage.skipped,
        "reused": coverage.reused,
    }


def page(coverage: Coverage) -> str:
    """The study as one HTML page."""
    sections = []
    if coverage.series:
        first = min(cell["first_ts_ns"] for cell in coverage.series)
        last = max(cell["last_ts_ns"] for cell in coverage.series)
        sections = [
            Section("Series", f"{iso(first)} to {iso(last)}. {SAID}", SERIES_COLUMNS, series_rows(coverage.series)),
            Section(
                "By bar ahead", "Coverage of each bar of the horizon by its own interval.", chart=_by_step(coverage)
            ),
        ]
        if any(cell["hours"] for cell in coverage.series):
            text = "Coverage of the next bar by the hour of the day, UTC, in which it closes."
            sections.append(Section("By hour", text, chart=_by_hour(coverage)))
    if coverage.breaks:
        text = "Means over the first 60 bars after a break, and the width over that of the oracle."
        sections += [
            Section("After breaks of volatility", text, BREAK_COLUMNS, break_rows(coverage.breaks)),
            Section("Coverage since a break upwards", chart=_since(coverage, 0, width=False)),
            Section("Width over the oracle's since a break upwards", chart=_since(coverage, 0, width=True)),
            Section("Width over the oracle's since a break downwards", chart=_since(coverage, 1, width=True)),
        ]
    subtitle = f"{coverage.checkpoint.name} ({coverage.checkpoint.id}), {coverage.engine}"
    return as_html("Coverage of 90 % intervals", subtitle, findings(coverage), sections)


def _by_step(coverage: Coverage) -> go.Figure:
    figure = go.Figure()
    for cell in coverage.series:
        figure.add_scatter(x=list(range(1, len(cell["steps"]) + 1)), y=cell["steps"], name=cell["series"])
    return _with_range(figure, "bars ahead", COVERAGE_RANGE)


def _by_hour(coverage: Coverage) -> go.Figure:
    figure = go.Figure()
    for cell in coverage.series:
        hours, _, shares = zip(*cell["hours"], strict=True) if cell["hours"] else ((), (), ())
        figure.add_scatter(x=list(hours), y=list(shares), name=cell["series"], mode="markers+lines")
    return _with_range(figure, "hour of the day, UTC", HOURS_RANGE)


def _with_range(figure: go.Figure, title: str, limits: tuple[float, float]) -> go.Figure:
    for limit in limits:
        figure.add_hline(y=limit, line={"color": LIMIT, "dash": "dash"})
    figure.update_xaxes(title=title)
    figure.update_yaxes(title="coverage")
    return styled(figure)


def _since(coverage: Coverage, way: int, *, width: bool) -> go.Figure:
    figure = go.Figure()
    for after in coverage.breaks:
        values = after.width[way] if width else after.covered[way]
        figure.add_scatter(x=list(range(1, AFTER_BARS + 1)), y=values.tolist(), name=after.kind)
    figure.add_hline(y=1.0 if width else 0.9, line={"color": INK, "width": 1})
    figure.update_xaxes(title="bars since the break")
    figure.update_yaxes(title="width over the oracle's" if width else "coverage")
    return styled(figure)
