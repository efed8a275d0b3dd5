"""The study of the weights for machines and for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import t as student

from sage.studies.ensemble import SAID, EnsembleStudy, Kind, MarketResult
from sage.studies.page import COLOURS, LIMIT, Finding, Section, as_html, styled

NOISE_LIMIT = -0.05

COLUMNS = (
    "alphas", "markets", "ensemble", "equal weights", "difference", "best alone", "mean alone", "heaviest",
    "regret / bound",
)  # fmt: skip

EXPLAINED = (
    "Annual Sharpe ratios after costs, means over markets; the difference is the ensemble's less that of equal "
    "weights, market by market, with the 95 % interval of its mean (Student's t). Best alone: the best single alpha in "
    "hindsight. Heaviest: mean weight of the alpha that has most. Regret / bound: the largest seen at the end of a "
    "market, before the floor."
)


@dataclass(frozen=True)
class Mean:
    """A mean over markets with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of independent values, two or more."""
        found = np.array(values)
        reach = float(student.ppf(0.975, len(found) - 1)) * float(found.std(ddof=1)) / math.sqrt(len(found))
        return cls(float(found.mean()), float(found.mean()) - reach, float(found.mean()) + reach)

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def difference(results: Sequence[MarketResult]) -> Mean:
    """The ensemble's Sharpe ratio less that of equal weights."""
    return Mean.of([result.ensemble - result.equal for result in results])


def findings(study: EnsembleStudy) -> list[Finding]:
    """What must hold, and what the floor costs."""
    gain, noise = (difference(study.results[kind]) for kind in (Kind.ALTERNATING, Kind.NOISE))
    every = [result for results in study.results.values() for result in results]
    worst = max(result.regret_share for result in every)
    alternating = study.results[Kind.ALTERNATING]
    measured = np.mean([result.floor_cost for result in alternating])
    told = np.mean([result.floor_told for result in alternating])
    return [
        Finding(gain.low > 0, f"alternating alphas: Sharpe {gain} beside equal weights; the interval must lie above 0"),
        Finding(
            noise.value >= NOISE_LIMIT, f"noise: Sharpe {noise} beside equal weights; at least {NOISE_LIMIT} on average"
        ),
        Finding(
            worst <= 1.0, f"regret before the floor is {worst:.0%} of its bound at most, over {len(every)} markets"
        ),
        Finding(
            None,
            f"the floor costs {1e4 * measured:.2f} e-4 of loss a bar on alternating alphas; "
            f"f times the sum of (L_k - L*) is {1e4 * told:.2f} e-4",
        ),
    ]


def rows(study: EnsembleStudy) -> list[list[str]]:
    """A row for each kind."""
    found = []
    for kind, results in study.results.items():
        means = {
            name: float(np.mean([getattr(result, name) for result in results]))
            for name in ("ensemble", "equal", "best", "mean", "heaviest")
        }
        found.append(
            [
                str(kind), f"{len(results)}", f"{means['ensemble']:.2f}", f"{means['equal']:.2f}",
                str(difference(results)), f"{means['best']:.2f}", f"{means['mean']:.2f}", f"{means['heaviest']:.2f}",
                f"{max(result.regret_share for result in results):.2f}",
            ]
        )  # fmt: skip
    return found


def as_document(study: EnsembleStudy) -> dict[str, Any]:
    """For JSON."""
    config = dataclasses.asdict(study.config)
    config["out"] = None if study.config.out is None else str(study.config.out)
    return {
        "study": "ensemble",
        "config": config,
        "kinds": {
            str(kind): {
                "said": SAID[kind],
                "difference": dataclasses.asdict(difference(results)),
                "markets": [dataclasses.asdict(result) for result in results],
            }
            for kind, results in study.results.items()
        },
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(study)],
        "reused": study.reused,
    }


def page(study: EnsembleStudy) -> str:
    """The page."""
    config = study.config
    said = "; ".join(f"{kind}: {text}" for kind, text in SAID.items())
    sections = [
        Section("Sharpe ratios", f"{EXPLAINED} Markets: {said}.", COLUMNS, rows(study)),
        Section(
            "Differences, market by market", "The ensemble's Sharpe ratio less that of equal weights.",
            chart=_chart(study),
        ),
    ]  # fmt: skip
    subtitle = (
        f"{config.markets} markets a kind, {config.bars:,} bars, {config.alphas} alphas, correlation "
        f"{config.correlation:g}, seed {config.seed}"
    )
    return as_html("The ensemble's weights", subtitle, findings(study), sections)


def _chart(study: EnsembleStudy) -> go.Figure:
    figure = go.Figure()
    for number, (kind, results) in enumerate(study.results.items()):
        figure.add_box(
            x=[result.ensemble - result.equal for result in results], name=str(kind), boxpoints="all", jitter=0.4,
            pointpos=0.0, marker={"size": 4, "color": COLOURS[number]}, line={"width": 1},
        )  # fmt: skip
    figure.add_vline(x=0.0, line={"color": LIMIT, "dash": "dash", "width": 1})
    figure.update_xaxes(title_text="difference of annual Sharpe ratios")
    styled(figure, height=380, left=110)
    figure.update_layout(showlegend=False)
    return figure
