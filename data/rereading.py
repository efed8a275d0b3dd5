"""Bars that an earlier reading of the very same files, with other options, has left outside of the new one's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nautilus_trader.model.instruments import Instrument

from data.bars import BarSize, iso
from data.catalog import BarCatalog, describe_interval
from data.errors import CatalogDamaged
from data.holdings import origins

EARLIER = "earlier_readings"
"""Where a report tells of those of which bars are left."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Earlier:
    """First and last close, in ns, of what an earlier reading found in files, and what it was asked for."""

    span_ns: Span
    options: dict[str, Any]

    @classmethod
    def parse(cls, told: dict[str, Any]) -> Earlier:
        """Out of a report. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(_span(told["interval"]), dict(told["options"]))

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {"interval": describe_interval(*self.span_ns), "options": self.options}


def earlier_readings(report: Path, sources: dict[str, str], options: dict[str, Any]) -> list[Earlier]:
    """What a report, before it is replaced, tells of files of these digests read with other options; newest first."""
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        if told["sources"] != sources:
            return []
        found = [told, *told.get(EARLIER, [])]
        asked = json.loads(json.dumps(options, default=str))
        return [Earlier.parse(one) for one in found if one["options"] != asked]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []


def left_over(
    catalog: BarCatalog, instrument: Instrument, size: BarSize, readings: list[Earlier], new_ns: Span, report: Path
) -> list[tuple[Earlier, str]]:
    """Earlier readings of which bars are left, all but those that another ingest's report explains; and what to say.

    They are not removed: nothing tells them from bars that came otherwise, and history must not go unasked.
    """
    others = [_span(one.interval) for one in origins(catalog.root, str(instrument.id), size) if one.report != report]
    found = []
    for reading in readings:
        told = _left_of(reading, catalog, instrument, size, new_ns, others)
        if told:
            found.append((reading, told))
        # Older readings that found the same bars are not told of once more.
        others.append(reading.span_ns)
    return found


def _left_of(
    reading: Earlier, catalog: BarCatalog, instrument: Instrument, size: BarSize, new_ns: Span, others: list[Span]
) -> str:
    """What to say of bars of one earlier reading; or nothing."""
    first, last = reading.span_ns
    count, begins, ends = 0, last, first
    for low, high in ((first, min(last, new_ns[0] - 1)), (max(first, new_ns[1] + 1), last)):
        try:
            for part in catalog.parts(instrument, size, low, high) if low <= high else ():
                explained = np.zeros(len(part), dtype=bool)
                for begin, end in others:
                    explained |= (part.ts_close_ns >= begin) & (part.ts_close_ns <= end)
                closes = part.ts_close_ns[~explained].tolist()
                count, begins, ends = count + len(closes), min([begins, *closes]), max([ends, *closes])
        except CatalogDamaged as error:
            return f"what an earlier reading of the same files left outside of these cannot be told: {error}"
    if not count:
        return ""
    where = iso(begins) if count == 1 else describe_interval(begins, ends)
    how = ", ".join(f"{name} {value}" for name, value in reading.options.items()) or "no options"
    return (
        f"{count:,} bars stay outside of these, {where}, from an earlier reading of the same files with {how}; to be "
        f"rid of them: sage catalog rm {catalog.root} {instrument.id} --bar {size}, and ingest all of its files again"
    )


def _span(interval: str) -> Span:
    """Of an interval as reports tell it. Raises ValueError for anything else."""
    first, last = (pd.Timestamp(text).value for text in interval.split(" to "))
    return first, last
