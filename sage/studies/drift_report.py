"""The study of drift and health for machines and for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import chi2
from scipy.stats import t as student

from regime.drift import Stream
from sage.studies.drift import (
    ALREADY,
    NEVER,
    PSI_RULES,
    Detector,
    Disturbance,
    DriftStudy,
    Kind,
    StreamResult,
)
from sage.studies.page import COLOURS, Finding, Section, as_html, styled

ALARMS_MAX = 0.1
"""Per 1,000 bars: one alert in ten thousand that means nothing is what people put up with."""

HEALTH_ALARMS_MAX = 0.02
WITHOUT_MEMORY = (Kind.INDEPENDENT, Kind.AUTOREGRESSIVE)
"""Kinds whose volatility does not cluster: there the nominal level is to hold."""

FOUND_MIN = {
    (Detector.HEALTH, Disturbance.MODEL_20): 0.80,
    (Detector.HEALTH, Disturbance.MODEL_30): 0.95,
    (Detector.HEALTH, Disturbance.MODEL_FLIPPED): 0.95,
    (Detector.PSI_BOOTSTRAP, Disturbance.MODEL_30): 0.95,
}
"""Shares of all streams on which a disturbance is to be found."""

EXPLAINED = (
    "False alarms: cries on undisturbed streams per 1,000 bars, with the 95 % interval of a Poisson rate. Exceeded: "
    "the share of checks at which the index lies above a critical value, with the 95 % interval of its mean over "
    "streams (Student's t). Found: the share of streams on which a detector cries after the break, with the median and "
    "the 90th percentile of the delay in bars; 'none' tells how often it would have done so anyway. The three rules "
    "for PSI look at the same index at the same checks and cry after as many in a row."
)


@dataclass(frozen=True)
class Rate:
    """Cries per 1,000 bars, with the 95 % interval of a Poisson rate (Garwood, 1936)."""

    count: int
    bars: int

    @property
    def value(self) -> float:
        """Per 1,000 bars."""
        return 1e3 * self.count / self.bars

    @property
    def interval(self) -> tuple[float, float]:
        """Per 1,000 bars."""
        low = float(chi2.ppf(0.025, 2 * self.count)) / 2 if self.count else 0.0
        high = float(chi2.ppf(0.975, 2 * self.count + 2)) / 2
        return 1e3 * low / self.bars, 1e3 * high / self.bars

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class Share:
    """A share of checks, with the 95 % interval of its mean over streams."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


@dataclass(frozen=True)
class Found:
    """How often a disturbance was found, of ``streams`` on which the alarm was not on already, and after how long."""

    streams: int
    delays: list[int]

    @property
    def share(self) -> float:
        """NaN where the alarm was on everywhere."""
        return len(self.delays) / self.streams if self.streams else math.nan

    def __str__(self) -> str:
        if not self.streams:
            return "always on"
        if not self.delays:
            return "0 %"
        middle, late = np.quantile(self.delays, (0.5, 0.9))
        return f"{100 * self.share:.0f} %, {middle:.0f} ({late:.0f})"


def false_alarms(study: DriftStudy, detector: Detector, kinds: Iterable[Kind] = tuple(Kind)) -> Rate:
    """Of one detector on undisturbed streams."""
    bars = study.config.before + study.config.after - study.watched_from
    results = _of(study, kinds)
    return Rate(sum(len(result.alarms[detector]) for result in results), bars * len(results))


def exceeded(study: DriftStudy, stream: Stream, rule: Detector, kinds: Iterable[Kind]) -> Share | None:
    """Of the checks of one stream of numbers; None where the reference was too short on all but one stream."""
    shares = [
        result.exceeded[stream][rule] / result.checks[stream]
        for result in _of(study, kinds)
        if result.checks[stream]
    ]  # fmt: skip
    if len(shares) < 2:
        return None
    mean = float(np.mean(shares))
    reach = float(student.ppf(0.975, len(shares) - 1)) * float(np.std(shares, ddof=1)) / math.sqrt(len(shares))
    return Share(mean, max(0.0, mean - reach), mean + reach)


def found(
    study: DriftStudy, detector: Detector, disturbance: Disturbance, kinds: Iterable[Kind] = tuple(Kind)
) -> Found:
    """Of one disturbance by one detector."""
    delays = [result.delays[disturbance][detector] for result in _of(study, kinds)]
    free = [delay for delay in delays if delay != ALREADY]
    return Found(len(free), sorted(delay for delay in free if delay != NEVER))


def _of(study: DriftStudy, kinds: Iterable[Kind]) -> list[StreamResult]:
    return [result for kind in kinds for result in study.results.get(kind, [])]


def findings(study: DriftStudy) -> list[Finding]:
    """What must hold."""
    nominal = study.config.drift.significance
    said = []
    for stream in Stream:
        share = exceeded(study, stream, Detector.PSI_BOOTSTRAP, WITHOUT_MEMORY)
        met = None if share is None else share.low <= nominal
        said.append(
            Finding(
                met,
                f"PSI of {stream}, block bootstrap: exceeded at {share} of checks where volatility does not cluster; "
                f"nominal {nominal:.2%}",
            )
        )  # fmt: skip
    ours, theirs = (false_alarms(study, rule) for rule in (Detector.PSI_BOOTSTRAP, Detector.PSI_INDEPENDENT))
    said.append(
        Finding(
            ours.interval[1] < theirs.interval[0] if theirs.count else None,
            f"PSI on all kinds: {ours} false alarms per 1,000 bars by block bootstrap, {theirs} by critical values for "
            "independent data; the first must surely be fewer",
        )
    )
    for detector, limit in (
        (Detector.PSI_BOOTSTRAP, ALARMS_MAX),
        (Detector.ADWIN, ALARMS_MAX),
        (Detector.HEALTH, HEALTH_ALARMS_MAX),
    ):
        for kind in study.results:
            rate = false_alarms(study, detector, [kind])
            said.append(
                Finding(
                    rate.interval[0] <= limit,
                    f"{detector}, {kind}: {rate} false alarms per 1,000 bars; not surely above {limit:g}",
                )
            )
    for (detector, disturbance), least in FOUND_MIN.items():
        share_found = found(study, detector, disturbance)
        said.append(
            Finding(
                share_found.share >= least,
                f"{detector} finds {disturbance} on {share_found.share:.0%} of streams; at least {least:.0%}",
            )
        )
    return said


def tables(study: DriftStudy) -> list[Section]:
    """False alarms, exceeded critical values, and what was found; for a terminal and for the page."""
    detectors = [str(detector) for detector in Detector]
    bars = study.config.before + study.config.after - study.watched_from
    rules = [str(rule) for rule in PSI_RULES]
    return [
        Section(
            "False alarms per 1,000 bars",
            f"{study.config.streams} streams of each kind, {bars:,} bars each, from bar {study.watched_from:,} on.",
            ["undisturbed stream", *detectors],
            [
                [str(kind), *(str(false_alarms(study, detector, [kind])) for detector in Detector)]
                for kind in study.results
            ],
        ),
        Section(
            "Checks at which the index exceeds its critical value",
            f"Nominal {study.config.drift.significance:.2%}, but for the rule of thumb.",
            ["undisturbed stream, what", *rules],
            [
                [f"{kind}, {stream}", *(str(exceeded(study, stream, rule, [kind]) or "–") for rule in PSI_RULES)]
                for kind in study.results
                for stream in Stream
            ],
        ),
        Section(
            f"Found within {study.config.after:,} bars, all kinds",
            "Share of streams, median delay in bars (90th percentile).",
            ["disturbance", *detectors],
            [
                [str(disturbance), *(str(found(study, detector, disturbance)) for detector in Detector)]
                for disturbance in Disturbance
            ],
        ),
    ]  # fmt: skip


def as_document(study: DriftStudy) -> dict[str, Any]:
    """Everything, plain enough for JSON."""
    return {
        "settings": dataclasses.asdict(dataclasses.replace(study.config, out=None)),
        "forecasts": study.engine,
        "watched_from": study.watched_from,
        "false_alarms_per_1000_bars": {
            kind: {
                detector: {"value": rate.value, "interval": rate.interval, "count": rate.count, "bars": rate.bars}
                for detector in Detector
                for rate in [false_alarms(study, detector, [kind])]
            }
            for kind in study.results
        },
        "exceeded": {
            kind: {
                stream: {rule: dataclasses.asdict(share) if share else None for rule in PSI_RULES
                         for share in [exceeded(study, stream, rule, [kind])]}
                for stream in Stream
            }
            for kind in study.results
        },
        "found": {
            kind: {
                disturbance: {
                    detector: {"streams": each.streams, "delays": each.delays}
                    for detector in Detector
                    for each in [found(study, detector, disturbance, [kind])]
                }
                for disturbance in Disturbance
            }
            for kind in study.results
        },
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(study)],
    }  # fmt: skip


def page(study: DriftStudy) -> str:
    """The study as one HTML page that needs no network."""
    alarms, checks, delays = tables(study)
    by_kind = [
        Section(
            f"Found on {kind}", "", ["disturbance", *(str(detector) for detector in Detector)],
            [
                [str(disturbance), *(str(found(study, detector, disturbance, [kind])) for detector in Detector)]
                for disturbance in Disturbance
            ],
        )
        for kind in study.results
    ]  # fmt: skip
    return as_html(
        "Drift and health: false alarms and delays",
        f"{study.config.streams} streams of each kind, seed {study.config.seed}, forecasts by {study.engine}",
        findings(study),
        [
            dataclasses.replace(alarms, text=f"{alarms.text} {EXPLAINED}", chart=_alarm_chart(study)),
            checks,
            dataclasses.replace(delays, chart=_delay_chart(study)),
            *by_kind,
        ],
    )


def _alarm_chart(study: DriftStudy) -> go.Figure:
    figure = go.Figure()
    for detector, colour in zip(Detector, COLOURS, strict=False):
        rates = [false_alarms(study, detector, [kind]) for kind in study.results]
        figure.add_bar(
            x=[str(kind) for kind in study.results],
            y=[rate.value for rate in rates],
            error_y={
                "type": "data",
                "array": [rate.interval[1] - rate.value for rate in rates],
                "arrayminus": [rate.value - rate.interval[0] for rate in rates],
            },
            name=str(detector),
            marker_color=colour,
        )
    figure.update_yaxes(title="false alarms per 1,000 bars")
    return styled(figure)


def _delay_chart(study: DriftStudy) -> go.Figure:
    """Delays of what was found, all kinds together."""
    shown: Sequence[Detector] = (Detector.PSI_BOOTSTRAP, Detector.ADWIN, Detector.HEALTH)
    figure = go.Figure()
    for detector, colour in zip(shown, COLOURS, strict=False):
        points = [
            (str(disturbance), delay)
            for disturbance in Disturbance
            if disturbance is not Disturbance.NONE
            for delay in found(study, detector, disturbance).delays
        ]
        figure.add_box(
            x=[delay for _, delay in points],
            y=[name for name, _ in points],
            orientation="h",
            name=str(detector),
            marker_color=colour,
        )
    figure.update_layout(boxmode="group")
    figure.update_xaxes(title="bars from the break to the first cry")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=640, left=190)
