"""Checks on bars: which rows are accepted, and why the others are not.

Rejected rows are never dropped in silence: each keeps its file, row, reason and original fields.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.model.objects import PRICE_MAX, QUANTITY_MAX
from numpy.typing import NDArray

from data.bars import Bars, BarSize, FloatArray, IntArray, iso, joined
from data.calendars import ALWAYS_OPEN, Calendar
from data.closes import closes_of, last_moment, up_to_boundary
from data.gaps import Gaps, gaps_of
from data.grids import Grid
from data.reading import PRICE_FIELDS, RawBars
from data.spacing import require_spacing
from data.spool import BarParts, Spool
from data.times import NOT_A_TIME

_FIELDS_MAX = 10_000
"""No more letters of a rejected row are kept."""
_STRAYS_SHARE = 0.01
_YEAR_NS = 366 * 86_400 * 10**9
MERGED_ROWS = 400_000
"""Of parts that overlap so many bars are held before those are settled that no later part reaches back to."""

CalendarBetween = Callable[[int, int], Calendar]
"""Gives a calendar for the time between two stamps, nanoseconds, UTC."""


class RejectReason(StrEnum):
    """Why a row is no bar; where several apply, the first of this order is given."""

    BROKEN_ROW = "wrong number of fields"
    BAD_TIME = "unreadable time"
    TOO_EARLY = "before 1970"
    NAN = "NaN or missing"
    NON_POSITIVE = "non-positive price"
    BAD_VOLUME = "negative volume"
    TOO_LARGE = "larger than NautilusTrader can hold"
    INCONSISTENT = "OHLC inconsistent"
    OFF_GRID = "off-grid"
    OUT_OF_ORDER = "out of order"
    CONFLICT = "same time at another price"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class QualityReport:
    """What was read from one or several files and what became of it: ``rejected`` counts rows by reason."""

    rows_read: int
    rows_accepted: int
    rejected: dict[str, int]
    gaps: Gaps
    notes: list[str]

    @property
    def rows_rejected(self) -> int:
        """Rows that are no bars, whatever the reason."""
        return sum(self.rejected.values())

    def as_dict(self) -> dict[str, object]:
        """For JSON: counts, and gaps with their lengths."""
        return {
            "rows_read": self.rows_read,
            "rows_accepted": self.rows_accepted,
            "rows_rejected": self.rows_rejected,
            "rejected": self.rejected,
            "missing_bars": self.gaps.missing_bars,
            "gap_count": self.gaps.count,
            "gaps": [gap.as_dict() for gap in self.gaps.told],
            "notes": self.notes,
        }


def check(
    sources: list[RawBars], size: BarSize, calendar: Calendar = ALWAYS_OPEN
) -> tuple[Bars, QualityReport, pd.DataFrame]:
    """Join files in time order and separate bars from rejected rows; ``calendar`` says which bars are to be expected.

    Returns
    -------
    The accepted bars with their close times, the report, and the rejected rows with the columns
    ``file, row, reason`` and the file's own fields as one text column ``fields``.
    """
    notes: list[str] = []
    ordered = sorted((_forward(raw, notes, _runs_backwards(raw)) for raw in sources), key=_middle_time)
    ordered = [up_to_boundary(raw, size, last_moment(raw, size), notes) for raw in ordered]
    closes = [closes_of(raw, size) for raw in ordered]
    close_ns = np.concatenate(closes)
    reason = np.concatenate(
        [_row_reasons(raw, own, size, calendar, Grid()) for raw, own in zip(ordered, closes, strict=True)]
    )
    values = {name: np.concatenate([raw.values[name] for raw in ordered]) for name in (*PRICE_FIELDS, "volume")}
    _reject_disorder(close_ns, values["close"], np.flatnonzero(reason == ""), reason)
    accepted = np.flatnonzero(reason == "")
    bars = Bars(close_ns, values["open"], values["high"], values["low"], values["close"], values["volume"])[accepted]
    rejected = _rejected_rows(ordered, reason)
    report = QualityReport(
        rows_read=sum(len(raw.row) + len(raw.broken_rows) for raw in ordered),
        rows_accepted=len(bars),
        rejected=_told(Counter(rejected["reason"])),
        gaps=gaps_of([bars], size, calendar),
        notes=notes,
    )
    return bars, report, rejected


def sift(
    parts: Iterable[RawBars],
    size: BarSize,
    spools: Callable[[], Spool],
    calendar: CalendarBetween,
    reject: Callable[[pd.DataFrame], None],
) -> tuple[BarParts | None, QualityReport]:
    """The same as :func:`check` for rows too many to hold at once; bars lie in a spool. None are None.

    Rejected rows go to ``reject``.

    ``calendar`` gives that for the time between two stamps, for nobody knows beforehand where such rows end.
    No more of them is in memory than a part, or parts that overlap, while the fewest bars are found that must go. Of
    those that go because parts overlap the report knows time and close alone.

    Raises
    ------
    DataError
        If a part has bars of another size.
    """
    notes: list[str] = []
    calendars = _Calendars(calendar)
    counts: Counter[str] = Counter()

    def gone(rows: pd.DataFrame) -> None:
        counts.update(rows["reason"])
        reject(rows)

    read = 0
    spool = spools()
    backwards: dict[Path, bool] = {}
    short_ns: dict[Path, int] = {}
    grids: dict[Path, Grid] = {}
    for raw in parts:
        require_spacing(raw, size, begins=raw.path not in backwards)
        # A file's beginning tells for all of it: of its last rows there may be too few.
        forward = _forward(raw, notes, backwards.setdefault(raw.path, _runs_backwards(raw)))
        if raw.path not in short_ns:
            short_ns[raw.path] = last_moment(raw, size)
        forward = up_to_boundary(forward, size, short_ns[raw.path], notes)
        grid = grids.setdefault(raw.path, Grid())
        close_ns = closes_of(forward, size)
        reason = _row_reasons(forward, close_ns, size, calendars.of(*time_between([raw])), grid)
        ordered = reason.copy()
        _reject_disorder(close_ns, forward.values["close"], np.flatnonzero(reason == ""), ordered)
        # Single strays and doubles can be told by their neighbours; of more the parts around them must tell.
        if np.count_nonzero(ordered == str(RejectReason.OUT_OF_ORDER)) <= _STRAYS_SHARE * len(ordered):
            reason = ordered
        values = (forward.values[name] for name in (*PRICE_FIELDS, "volume"))
        spool.append(Bars(close_ns, *values)[reason == ""], raw.path)
        gone(_rejected_rows([forward], reason))
        read += len(raw.row) + len(raw.broken_rows)
    bars: BarParts | None = None
    if len(spool):
        bars = spool.in_order()
        if bars is None:
            bars = _in_order(spool, spools(), gone)
    report = QualityReport(
        rows_read=read,
        rows_accepted=0 if bars is None else len(bars),
        rejected=_told(counts),
        gaps=Gaps.of(()) if bars is None else gaps_of(bars, size, calendar(bars.first_ns, bars.last_ns)),
        notes=list(dict.fromkeys(notes)),
    )
    return bars, report


class _Calendars:
    """The calendar of one part after the other, made anew only where it does not reach far enough: that takes a second.

    Parameters
    ----------
    make
        Gives that for the time between two stamps.
    """

    def __init__(self, make: CalendarBetween) -> None:
        self._make = make
        self._span = 1, 0
        self._known = ALWAYS_OPEN

    def of(self, first_ns: int, last_ns: int) -> Calendar:
        """One that reaches from one stamp to the other."""
        if not self._span[0] <= first_ns <= last_ns <= self._span[1]:
            # A year further than asked for, for the parts to come.
            self._span = first_ns - _YEAR_NS, last_ns + _YEAR_NS
            self._known = self._make(*self._span)
        return self._known


def _told(counts: Counter[str]) -> dict[str, int]:
    return {str(name): counts[str(name)] for name in RejectReason if counts[str(name)]}


def _in_order(spool: Spool, into: Spool, reject: Callable[[pd.DataFrame], None]) -> BarParts:
    """Parts that overlap put in order; those alone are in memory that overlap, and of more than MERGED_ROWS the end.

    Where files overlap their neighbours all along, what no later part reaches back to is settled as they go.
    """
    held: list[tuple[Bars, Path]] = []
    limit = MERGED_ROWS
    for part, path, next_ns in spool.by_middle():
        held.append((part, path))
        count = sum(len(bars) for bars, _ in held)
        over = next_ns > max(int(bars.ts_close_ns.max()) for bars, _ in held)
        if not over and count <= limit:
            continue
        bars, files = _risen(held, reject)
        settled = int(np.searchsorted(bars.ts_close_ns, next_ns))
        into.append(bars[slice(0, settled)], path)
        rest, names = bars[slice(settled, None)], files[settled:]
        # In the order in which they rise: a file may come twice.
        begins = np.flatnonzero(names[1:] != names[:-1]) + 1 if len(names) else names
        held = [
            (rest[slice(begin, end)], names[begin])
            for begin, end in itertools.pairwise([0, *begins.tolist(), len(names)])
            if end > begin
        ]
        # What cannot be settled yet is not looked through again with each part.
        limit = max(MERGED_ROWS, 2 * len(rest))
    ordered = into.in_order()
    assert ordered is not None, "settled bars overlap"
    return ordered


def _risen(held: list[tuple[Bars, Path]], reject: Callable[[pd.DataFrame], None]) -> tuple[Bars, NDArray[np.object_]]:
    """Bars of several parts that rise in time, with their files; the others are rejected."""
    bars = joined([part for part, _ in held])
    files = np.repeat(np.array([path for _, path in held], dtype=object), [len(part) for part, _ in held])
    reason = np.full(len(bars), "", dtype=object)
    _reject_disorder(bars.ts_close_ns, bars.close, np.arange(len(bars)), reason)
    bad = np.flatnonzero(reason != "")
    if len(bad):
        reject(rejected_bars(bars[bad], files[bad].astype(str), reason[bad]))
    return bars[reason == ""], files[reason == ""]


def rejected_bars(bars: Bars, files: object, reasons: object) -> pd.DataFrame:
    """Bars in the form of rejected rows; their places in the files are not known any more, so they are 0."""
    told = [f"closes {iso(int(ts))} at {close:.10g}" for ts, close in zip(bars.ts_close_ns, bars.close, strict=True)]
    return pd.DataFrame({"file": files, "row": 0, "reason": reasons, "fields": told})


def _middle_time(raw: RawBars) -> float:
    """By which files are ordered: the median, which no single bad stamp moves far."""
    known = raw.stamp_ns[raw.stamp_ns != NOT_A_TIME]
    return float(np.median(known)) if len(known) else 0.0


def time_between(sources: list[RawBars]) -> tuple[int, int]:
    """The time in which nearly all stamps lie: a single one from the far future would make a calendar of centuries."""
    known = [raw.stamp_ns[raw.stamp_ns != NOT_A_TIME] for raw in sources]
    ends = [np.quantile(stamps, (0.001, 0.999)) for stamps in known if len(stamps)]
    return (int(min(low for low, _ in ends)), int(max(high for _, high in ends))) if ends else (0, 0)


def _runs_backwards(raw: RawBars) -> bool:
    steps = np.diff(raw.stamp_ns[raw.stamp_ns != NOT_A_TIME])
    return bool(len(steps) >= 2 and np.count_nonzero(steps < 0) > np.count_nonzero(steps > 0))


def _forward(raw: RawBars, notes: list[str], backwards: bool) -> RawBars:
    """Turn a file that runs from new to old around; some vendors write all of theirs so."""
    if not backwards:
        return raw
    notes.append(f"{raw.path.name}: rows run from new to old; read backwards")
    back = slice(None, None, -1)
    return dataclasses.replace(
        raw,
        stamp_ns=raw.stamp_ns[back],
        wall_ns=raw.wall_ns[back],
        values={name: column[back] for name, column in raw.values.items()},
        row=raw.row[back],
        original=raw.original.iloc[back].reset_index(drop=True),
    )


def _row_reasons(
    raw: RawBars, close_ns: IntArray, size: BarSize, calendar: Calendar, grid: Grid
) -> NDArray[np.object_]:
    """The first reason against each row that needs no other row but its file's grid; empty where there is none."""
    opened, high, low, close = (raw.values[name] for name in PRICE_FIELDS)
    volume = raw.values["volume"]
    prices = np.stack([opened, high, low, close])
    bad_time = raw.stamp_ns == NOT_A_TIME
    with np.errstate(invalid="ignore"):
        tests = (
            (RejectReason.BAD_TIME, bad_time),
            # NautilusTrader counts nanoseconds from 1970 on, and none before.
            (RejectReason.TOO_EARLY, close_ns <= 0),
            (RejectReason.NAN, ~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume)),
            (RejectReason.NON_POSITIVE, (prices <= 0).any(axis=0)),
            (RejectReason.BAD_VOLUME, volume < 0),
            (RejectReason.TOO_LARGE, (prices > PRICE_MAX).any(axis=0) | (volume > QUANTITY_MAX)),
            (RejectReason.INCONSISTENT, (high < np.maximum(opened, close)) | (low > np.minimum(opened, close))),
            (RejectReason.OFF_GRID, grid.off(raw, size, calendar)),
        )
    reason = np.full(len(raw.row), "", dtype=object)
    for name, failed in reversed(tests):
        reason[failed] = str(name)
    return reason


def _reject_disorder(close_ns: IntArray, price: FloatArray, fine: IntArray, reason: NDArray[np.object_]) -> None:
    """Reject the fewest rows that leave the others strictly increasing in time; ``price`` is the close's.

    A longest increasing subsequence, so that one stamp from the far future does not condemn all that follow it.
    """
    stamps = close_ns[fine]
    if len(stamps) < 2 or bool((np.diff(stamps) > 0).all()):
        return
    tails: list[int] = []
    tail_rows: list[int] = []
    previous = np.full(len(stamps), -1)
    for index, stamp in enumerate(stamps.tolist()):
        place = bisect_left(tails, stamp)
        if place < len(tails) and tails[place] == stamp:
            continue  # the first of equal stamps stays
        previous[index] = tail_rows[place - 1] if place else -1
        tails[place : place + 1] = [stamp]
        tail_rows[place : place + 1] = [index]
    kept = np.zeros(len(stamps), dtype=bool)
    row = tail_rows[-1]
    while row >= 0:
        kept[row] = True
        row = int(previous[row])
    again = np.flatnonzero(~kept & np.isin(stamps, stamps[kept]))
    first = np.flatnonzero(kept)[np.searchsorted(stamps[kept], stamps[again])]
    alike = price[fine[again]] == price[fine[first]]
    reason[fine[~kept]] = str(RejectReason.OUT_OF_ORDER)
    reason[fine[again]] = np.where(alike, str(RejectReason.DUPLICATE), str(RejectReason.CONFLICT))


def _as_written(rows: pd.DataFrame) -> list[str]:
    """A file's own fields, a text for each row."""
    texts: list[list[str]] = []
    for index in range(rows.shape[1]):
        column = rows.iloc[:, index]
        # Bytes are a fixed-point number of NautilusTrader's, or what nobody can read.
        has_bytes = column.map(lambda value: isinstance(value, bytes)).any()
        readable = column.map(lambda value: value.hex() if isinstance(value, bytes) else value) if has_bytes else column
        texts.append(readable.astype("string").fillna("").tolist())
    return [",".join(fields)[:_FIELDS_MAX] for fields in zip(*texts, strict=True)]


def _rejected_rows(sources: list[RawBars], reason: NDArray[np.object_]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    start = 0
    for raw in sources:
        own = reason[start : start + len(raw.row)]
        start += len(raw.row)
        bad = np.flatnonzero(own != "")
        fields: list[str] = []
        if len(bad):
            fields = _as_written(raw.original.iloc[bad])
        parts.append(pd.DataFrame({"file": str(raw.path), "row": raw.row[bad], "reason": own[bad], "fields": fields}))
        if raw.broken_rows:
            rows, texts = zip(*raw.broken_rows, strict=True)
            parts.append(
                pd.DataFrame(
                    {"file": str(raw.path), "row": rows, "reason": str(RejectReason.BROKEN_ROW), "fields": texts}
                )
            )
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
