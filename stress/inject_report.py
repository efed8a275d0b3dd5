"""A campaign of faults for machines and for people: one JSON document, one HTML page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2

from regime.signal import Level, Reason
from stress.campaign import CATALOGUE, Campaign
from stress.cases import CaseResult, Verdict
from stress.expectations import expected
from stress.stage import Fault

_REASONS_SHOWN = 3


def catalogue() -> list[dict[str, Any]]:
    """The catalogue for people and machines: what each fault does, how it ends and what must answer it."""
    return [
        {
            "fault": fault.name,
            "does": fault.does,
            "ends": fault.ends,
            "expected": expected(fault.failure),
            "lasts_bars": fault.lasts_bars if isinstance(fault, Fault) else None,
            "needs": sorted(fault.needs),
        }
        for fault in CATALOGUE.values()
    ]


def as_document(campaign: Campaign) -> dict[str, Any]:
    """The campaign for JSON. Times are milliseconds where a name says so, else seconds; equity in quote currency."""
    return {
        "verdict": "failed" if campaign.problems else "passed",
        "problems": campaign.problems,
        "counts": {str(verdict): campaign.count(verdict) for verdict in Verdict},
        "levels_reached": {
            level.name: {str(reason): count for reason, count in reasons.most_common()}
            for level, reasons in campaign.reached.items()
        },
        "config": dataclasses.asdict(campaign.config),
        "seconds": campaign.seconds,
        "cases": [_case(result) for result in campaign.results],
    }


def _case(result: CaseResult) -> dict[str, Any]:
    return {
        "fault": result.fault,
        "failure": str(result.failure),
        "place": result.place,
        "expected": result.expected,
        "verdict": str(result.verdict),
        "why": result.why,
        "began_at_bar": result.began_at_bar,
        "for_bars": result.for_bars,
        "levels": {level.name: count for level, count in sorted(result.levels.items())},
        "reasons": _told(result.reasons),
        "worst_ms": result.worst_ms,
        "bars_lost": result.bars_lost,
        "rejected": result.rejected,
        "orders_degraded": result.orders_degraded,
        "orders_over_cap": result.orders_over_cap,
        "bars_to_full": result.bars_to_full,
        "bound_bars": result.bound_bars,
        "stray_timeouts": result.stray_timeouts,
        "attempts": result.attempts,
        "equity": result.equity,
        "baseline_equity": result.baseline_equity,
        "cost": result.cost,
        "timeline": result.timeline,
        "fault_begins": result.fault_begins,
        "fault_ends": result.fault_ends,
        "seconds": result.seconds,
    }


def _told(reasons: Counter[Reason]) -> dict[str, int]:
    return {str(reason): count for reason, count in reasons.most_common()}


def by_fault(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each fault of a document: its cases by place, and what was worst of them."""
    rows: dict[str, dict[str, Any]] = {}
    for case in document["cases"]:
        row = rows.setdefault(case["fault"], {"fault": case["fault"], "expected": case["expected"], "cases": {}})
        row["cases"][case["place"]] = case
    for row in rows.values():
        cases = list(row["cases"].values())
        levels: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for case in cases:
            levels.update(case["levels"])
            reasons.update({name: count for name, count in case["reasons"].items() if Reason(name).is_fault})
        back = [case["bars_to_full"] for case in cases if case["bars_to_full"] is not None]
        row |= {
            "levels": {level.name: levels[level.name] for level in Level if levels[level.name]},
            "reasons": [name for name, _ in reasons.most_common(_REASONS_SHOWN)],
            "rejected": sum(case["rejected"] for case in cases),
            "worst_ms": max(case["worst_ms"] for case in cases),
            "bars_lost": sum(case["bars_lost"] for case in cases),
            "orders_degraded": sum(case["orders_degraded"] for case in cases),
            "bars_to_full": max(back) if back else None,
        }
    return list(rows.values())


def as_html(campaign: Campaign) -> str:
    """The campaign as one HTML page that needs nothing else."""
    document = as_document(campaign)
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("inject.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        report=document,
        rows=by_fault(document),
        places=list(dict.fromkeys(case["place"] for case in document["cases"])),
        levels=[(int(level), level.name) for level in Level],
        does={fault.name: fault.does for fault in CATALOGUE.values()},
    )
