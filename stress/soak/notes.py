"""What the journal of a soak notes of vitals and samples, and how the counts of several processes add up."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from regime.alerts import Alert
from sage.processes import MachineSample
from sage.vitals import Vitals
from stress.soak.record import SUMMED

BY_NAME = ("levels", "reasons", "forecast_failures")


def with_earlier(vitals: Vitals, earlier: Iterable[Mapping[str, Any]]) -> Vitals:
    """Vitals whose counts are of all trading processes: of this one, and what :func:`total_values` told of others."""
    found: dict[str, Any] = {name: getattr(vitals, name) for name in SUMMED}
    named = {name: Counter(getattr(vitals, name)) for name in BY_NAME}
    for totals in earlier:
        for name in SUMMED:
            found[name] += int(totals[name])
        for name in BY_NAME:
            named[name].update(totals[name])
    found |= {name: dict(count) for name, count in named.items()}
    return dataclasses.replace(vitals, **found)


def process_values(machine: MachineSample) -> list[dict[str, Any]]:
    """The processes of a sample."""
    return [
        {
            "role": process.role,
            "pid": process.pid,
            "rss": process.rss_bytes,
            "pss": process.pss_bytes,
            "shm": process.shared_bytes,
            "files": process.open_files,
            "threads": process.threads,
            "cpu": round(process.cpu_s, 2),
        }
        for process in machine.processes
    ]


def machine_values(machine: MachineSample) -> dict[str, Any]:
    """A sample by the clock."""
    return {
        "processes": process_values(machine),
        "used": machine.used_bytes,
        "limit": machine.limit_bytes,
        "gpu": machine.gpu_bytes,
        "gpu_limit": machine.gpu_limit_bytes,
    }


def minute_values(vitals: Vitals) -> dict[str, Any]:
    """What a minute came to, as of its end."""
    return {
        "latency": dataclasses.asdict(vitals.latency_minute),
        "bars": vitals.bars,
        "bars_per_s": round(vitals.bars_per_s, 2),
        "level": vitals.level,
        "breaker": vitals.breaker,
        "queue": vitals.queue_bars,
        "coverage": vitals.coverage,
        "unhealthy": vitals.unhealthy,
        "drifted": list(vitals.drifted),
        "equity": round(vitals.equity, 2),
        "gc": list(vitals.gc_collections),
    }


def total_values(vitals: Vitals) -> dict[str, Any]:
    """Counts since the trading process began; what :func:`with_earlier` adds up, and latency and coverage."""
    return {
        **{name: getattr(vitals, name) for name in SUMMED},
        **{name: dict(getattr(vitals, name)) for name in BY_NAME},
        "latency": dataclasses.asdict(vitals.latency),
        "coverage": vitals.coverage,
    }


def alert_values(alert: Alert) -> dict[str, Any]:
    """An alert that came or went."""
    return {
        "alert": alert.name, "severity": str(alert.severity), "state": "raised" if alert.raised else "cleared",
        "detail": alert.detail,
    }  # fmt: skip
