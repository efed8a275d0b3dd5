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
from data.catalog import BarCatalog
from data.errors import CatalogDamaged
from data.holdings import origins

Span = tuple[int, int]


@dataclass(frozen=True)
class Earlier:
    """First and last close, in ns, of what an earlier reading found in files, and what it was asked for."""

    span_ns: Span
    options: dict[str, Any]


def earlier_reading(report: Path, sources: dict[str, str], options: dict[str, Any]) -> Earlier | None:
    """What a report, before it is replaced, tells of files of these digests that were read with other options."""
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        if told["sources"] != sources or told["options"] == json.loads(json.dumps(options, default=str)):
            return None
        return Earlier(_span(told["interval"]), dict(told["options"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def left_over(
    catalog: BarCatalog, instrument: Instrument, size: BarSize, reading: Earlier, new_ns: Span, report: Path
) -> str:
    """What to say of bars of an earlier reading, all but those that another ingest's report explains; or nothing.

    They are not removed: nothing tells them from bars that came otherwise, and history must not go unasked.
    """
    others = [_span(one.interval) for one in origins(catalog.root, str(instrument.id), size) if one.report != report]
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
    where = iso(begins) if count == 1 else f"{iso(begins)} to {iso(ends)}"
    how = ", ".join(f"{name} {value}" for name, value in reading.options.items()) or "no options"
    return (
        f"{count:,} bars stay outside of these, {where}, from an earlier reading of the same files with {how}; to be "
        f"rid of them: sage catalog rm {catalog.root} {instrument.id} --bar {size}, and ingest all of its files again"
    )


def _span(interval: str) -> Span:
    """Of an interval as reports tell it. Raises ValueError for anything else."""
    first, last = (pd.Timestamp(text).value for text in interval.split(" to "))
    return first, last
