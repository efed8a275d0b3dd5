"""Files of one or two sides of a market read and checked, and never more of them in memory than some."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data import quality
from data.bars import BarSize
from data.calendars import calendar_of
from data.errors import AmbiguousSource, DataError
from data.quality import QualityReport
from data.reading import RawBars, ReadOptions, together
from data.sources import read_source
from data.spacing import infer_bar_size
from data.spool import BarParts, Spool
from data.spreads import HourlySpreads
from data.two_sided import Side, middle

HELD_ROWS = 400_000
"""So many rows are read and checked at once; of more no more than some are in memory at any time."""
_FINE = 1_000
"""Steps of progress in each file."""
_CORRECTED_MAX, _CORRECTED_SHARE = 10, 0.1
"""Rows, and their share, that a vendor may have written again at another price."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Sifted:
    """What files came to; ``spreads`` are there where both sides were."""

    size: BarSize
    bars: BarParts
    spreads: HourlySpreads | None
    report: QualityReport
    notes: list[str]
    layouts: dict[str, str]


def sift_sides(
    sides: Sequence[Sequence[Path]],
    options: ReadOptions,
    size: BarSize | None,
    calendar_name: str,
    spools: Callable[[], Spool],
    reject: Callable[[pd.DataFrame], None],
    tell: Progress,
) -> Sifted:
    """Read and check: all at once where the rows are few enough, else a part at a time.

    Parameters
    ----------
    sides
        Files, or the bid's files and the ask's.
    options
        How to read them.
    size
        Of the bars, where it is not to be told from the files.
    calendar_name
        Which bars are to be expected.
    spools
        Gives places for bars that are too many to hold.
    reject
        Takes rows that are no bars.
    tell
        Hears how far it is.

    Raises
    ------
    DataError
        If the files are bad, or nothing of a side is left.
    """
    notes: list[str] = []
    layouts: dict[str, str] = {}

    def noted(parts: Iterable[RawBars]) -> Iterator[RawBars]:
        for raw in parts:
            notes.extend(raw.notes)
            layouts[str(raw.path)] = raw.layout
            yield raw

    reading = _Reading(sum(map(len, sides)), tell)
    readers = [noted(reading.all_of(files, options)) for files in sides]
    heads = [_head(parts) for parts in readers]
    more = [next(parts, None) for parts in readers]
    if not any(one is not None for one in more):
        # A file of several parts is judged as the one that it is.
        heads = [[together(list(parts)) for _, parts in itertools.groupby(head, _path)] for head in heads]
    known = [raw for head in heads for raw in head]
    size = infer_bar_size(known, size)
    long = any(one is not None for one in more)
    calendar = calendar_of(calendar_name, *quality.time_between(known))
    del known
    if not long:
        reading.over()
    checked: list[Side] = []
    for files, parts in zip(sides, readers, strict=True):
        # What has been read is handed on, not kept: it is as much as may be in memory.
        head, following = heads.pop(0), more.pop(0)
        bars: BarParts | None
        if following is None:
            if not long:
                tell("checking", len(checked), len(sides))
            arrays, report, rejected = quality.check(head, size, calendar)
            reject(rejected)
            bars = BarParts.of(arrays) if len(arrays) else None
        else:
            every = itertools.chain(_emptying(head), [following], parts)
            del following
            calendars = functools.partial(calendar_of, calendar_name)
            bars, report = quality.sift(every, size, spools, calendars, reject)
        del head
        if bars is None:
            why = ", ".join(f"{count} {reason}" for reason, count in report.rejected.items())
            raise DataError(f"{files[0]}: no bars, all {report.rows_read} rows are rejected: {why}")
        _require_one_series(files, report)
        checked.append(Side(files[0], bars, report))
    if long:
        reading.over()
    else:
        tell("checking", len(sides), len(sides))
    if len(checked) == 1:
        (one,) = checked
        return Sifted(size, one.bars, None, one.report, notes, layouts)
    bid, ask = checked
    if long:
        calendar = calendar_of(
            calendar_name, min(bid.bars.first_ns, ask.bars.first_ns), max(bid.bars.last_ns, ask.bars.last_ns)
        )
    mids, spreads, report = middle(bid, ask, size, reject, calendar)
    return Sifted(size, mids, spreads, report, notes, layouts)


def _require_one_series(files: Sequence[Path], report: quality.QualityReport) -> None:
    """Refuse what looks like several series in one, of which each would have a share of the bars.

    A vendor corrects a few bars, and has both versions in a file; overlapping files have the same prices.
    """
    other = report.rejected.get(str(quality.RejectReason.CONFLICT), 0)
    if other > _CORRECTED_MAX and other > _CORRECTED_SHARE * report.rows_read:
        named = ", ".join(map(str, files[:2])) + (", ..." if len(files) > 2 else "")
        raise AmbiguousSource(
            f"{named}: {other:,} of {report.rows_read:,} rows are at the time of another one at another price; are "
            "there several instruments, or prices adjusted in several ways? ingest what belongs together by itself"
        )


class _Reading:
    """Reads files, of several sides by turns, and tells how far it is with all of them."""

    def __init__(self, files: int, tell: Progress) -> None:
        self._total, self._tell = _FINE * files, tell
        self._shares: dict[Path, float] = {}

    def all_of(self, files: Iterable[Path], options: ReadOptions) -> Iterator[RawBars]:
        """One file after the other."""
        self._told()
        for path in files:
            for raw in read_source(path, options):
                yield raw
                self._shares[path] = raw.share
                self._told()
            self._shares[path] = 1.0

    def over(self) -> None:
        """All files are read."""
        self._tell("reading", self._total, self._total)

    def _told(self) -> None:
        self._tell("reading", int(_FINE * sum(self._shares.values())), self._total)


def _path(raw: RawBars) -> Path:
    return raw.path


def _emptying(head: list[RawBars]) -> Iterator[RawBars]:
    while head:
        yield head.pop(0)


def _head(parts: Iterator[RawBars]) -> list[RawBars]:
    """The first parts, by which the rest is judged: as many rows as are held at once."""
    head: list[RawBars] = []
    for raw in parts:
        head.append(raw)
        if sum(len(one.row) for one in head) >= HELD_ROWS:
            break
    return head
