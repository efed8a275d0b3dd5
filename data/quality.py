"""Checks on bars: which rows are accepted, why the others are not, and where bars are missing.

Rejected rows are never dropped in silence: each keeps its file, row, reason and original fields.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from nautilus_trader.model.objects import PRICE_MAX, QUANTITY_MAX
from numpy.typing import NDArray

from data.bars import NANOS_PER_SECOND, Bars, BarSize, IntArray, iso
from data.errors import DataError, OptionError
from data.sources import PRICE_FIELDS, RawBars
from data.times import NOT_A_TIME

_DAY_NS = 86_400 * NANOS_PER_SECOND
_CLEAR_STEPS = 5
"""So many steps make the spacing of a file clear."""


class RejectReason(StrEnum):
    """Why a row is no bar; where several apply, the first of this order is given."""

    BROKEN_ROW = "wrong number of fields"
    BAD_TIME = "unreadable time"
    NAN = "NaN or missing"
    NON_POSITIVE = "non-positive price"
    BAD_VOLUME = "negative volume"
    TOO_LARGE = "larger than NautilusTrader can hold"
    INCONSISTENT = "OHLC inconsistent"
    OFF_GRID = "off-grid"
    OUT_OF_ORDER = "out of order"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Gap:
    """Missing bars between two accepted ones; both times are closes, nanoseconds, UTC."""

    after_ns: int
    before_ns: int
    missing_bars: int


@dataclass(frozen=True)
class QualityReport:
    """What was read from one or several files and what became of it."""

    rows_read: int
    rows_accepted: int
    rejected: dict[str, int]
    gaps: list[Gap]
    notes: list[str]

    @property
    def rows_rejected(self) -> int:
        """Rows that are no bars, whatever the reason."""
        return sum(self.rejected.values())

    @property
    def missing_bars(self) -> int:
        """Bars missing in all gaps together."""
        return sum(gap.missing_bars for gap in self.gaps)

    def as_dict(self) -> dict[str, object]:
        """For JSON: counts, and every gap with its length."""
        return {
            "rows_read": self.rows_read,
            "rows_accepted": self.rows_accepted,
            "rows_rejected": self.rows_rejected,
            "rejected": self.rejected,
            "missing_bars": self.missing_bars,
            "gaps": [
                {"after": iso(gap.after_ns), "before": iso(gap.before_ns), "missing_bars": gap.missing_bars}
                for gap in self.gaps
            ],
            "notes": self.notes,
        }


def infer_bar_size(sources: list[RawBars], given: BarSize | None) -> BarSize:
    """The bar size of the files: the spacing that occurs most often, which must fit the one given.

    Raises
    ------
    DataError
        If there are too few rows to tell, the files differ, or the spacing is not the bar size given.
    """
    steps_of = [_steps(raw) for raw in sources]
    _require_one_spacing(sources, steps_of)
    steps = np.concatenate(steps_of)
    if len(steps) == 0:
        if given is not None:
            return given
        raise DataError(f"{sources[0].path}: too few rows to tell the bar size; give it with --bar")
    lengths, counts = np.unique(steps, return_counts=True)
    modal = int(lengths[np.argmax(counts)])
    try:
        found = BarSize.from_nanos(modal)
    except OptionError:
        found = None
    if given is None:
        if found is None:
            advice = "bars longer than a day are not supported" if modal > _DAY_NS else "give it with --bar"
            raise DataError(f"{sources[0].path}: rows are {_spelled(modal)} apart, which is no bar size; {advice}")
        return found
    # Thinly traded minutes may be mostly missing, so a wider spacing passes if it is whole; a narrower one cannot be.
    if modal < given.nanos or modal % given.nanos or (modal > given.nanos and counts.max() > len(steps) / 2):
        raise DataError(f"{sources[0].path}: rows are {_spelled(modal)} apart, but --bar says {given}")
    return given


def _steps(raw: RawBars) -> IntArray:
    steps = np.diff(np.sort(raw.stamp_ns[raw.stamp_ns != NOT_A_TIME]))
    return steps[steps > 0]


def _require_one_spacing(sources: list[RawBars], steps_of: list[IntArray]) -> None:
    """Raise DataError where files clearly hold bars of different sizes, such as a directory with 1h and 30m."""
    clear: dict[int, RawBars] = {}
    for raw, steps in zip(sources, steps_of, strict=True):
        lengths, counts = np.unique(steps, return_counts=True)
        if len(steps) >= _CLEAR_STEPS and counts.max() > len(steps) / 2:
            clear.setdefault(int(lengths[np.argmax(counts)]), raw)
    if len(clear) > 1:
        found = ", ".join(f"{_spelled(nanos)} in {raw.path}" for nanos, raw in sorted(clear.items()))
        raise DataError(f"the files hold bars of different sizes ({found}); ingest each size by itself")


def _spelled(nanos: int) -> str:
    if nanos > _DAY_NS:
        return f"{nanos / _DAY_NS:g} days"
    try:
        return str(BarSize.from_nanos(nanos))
    except OptionError:
        return f"{nanos / NANOS_PER_SECOND:g} s"


def check(sources: list[RawBars], size: BarSize) -> tuple[Bars, QualityReport, pd.DataFrame]:
    """Join files in time order and separate bars from rejected rows.

    Returns
    -------
    The accepted bars with their close times, the report, and the rejected rows with the columns
    ``file, row, reason`` and the file's own fields as one text column ``fields``.
    """
    notes: list[str] = []
    ordered = sorted((_forward(raw, notes) for raw in sources), key=_middle_time)
    shift = {raw.path: size.nanos if raw.stamp == "open" else 0 for raw in ordered}
    reasons = [_row_reasons(raw, size) for raw in ordered]
    close_ns = np.concatenate([raw.stamp_ns + shift[raw.path] for raw in ordered])
    reason = np.concatenate(reasons)
    fine = np.flatnonzero(reason == "")
    _reject_disorder(close_ns, fine, reason)
    accepted = np.flatnonzero(reason == "")
    values = {name: np.concatenate([raw.values[name] for raw in ordered]) for name in (*PRICE_FIELDS, "volume")}
    bars = Bars(close_ns, values["open"], values["high"], values["low"], values["close"], values["volume"])[accepted]
    rejected = _rejected_rows(ordered, reason)
    counts = {str(name): int((rejected["reason"] == str(name)).sum()) for name in RejectReason}
    report = QualityReport(
        rows_read=sum(len(raw.row) + len(raw.broken_rows) for raw in ordered),
        rows_accepted=len(bars),
        rejected={name: count for name, count in counts.items() if count},
        gaps=find_gaps(bars.ts_close_ns, size),
        notes=notes,
    )
    return bars, report, rejected


def find_gaps(ts_close_ns: IntArray, size: BarSize) -> list[Gap]:
    """Every place where more than one bar length lies between neighbours. Knows no sessions: a weekend is a gap."""
    # Rounded, for a day has 23 or 25 hours where the clocks change.
    bars_apart = (np.diff(ts_close_ns) + size.nanos // 2) // size.nanos
    return [
        Gap(int(ts_close_ns[index]), int(ts_close_ns[index + 1]), int(bars_apart[index]) - 1)
        for index in np.flatnonzero(bars_apart > 1)
    ]


def _middle_time(raw: RawBars) -> float:
    """By which files are ordered: the median, which no single bad stamp moves far."""
    known = raw.stamp_ns[raw.stamp_ns != NOT_A_TIME]
    return float(np.median(known)) if len(known) else 0.0


def _forward(raw: RawBars, notes: list[str]) -> RawBars:
    """Turn a file that runs from new to old around; some vendors write all of theirs so."""
    known = raw.stamp_ns[raw.stamp_ns != NOT_A_TIME]
    steps = np.diff(known)
    if len(steps) < 2 or np.count_nonzero(steps < 0) <= np.count_nonzero(steps > 0):
        return raw
    notes.append(f"{raw.path.name}: rows run from new to old; read backwards")
    back = slice(None, None, -1)
    return RawBars(
        path=raw.path,
        layout=raw.layout,
        stamp=raw.stamp,
        stamp_ns=raw.stamp_ns[back],
        wall_ns=raw.wall_ns[back],
        values={name: column[back] for name, column in raw.values.items()},
        row=raw.row[back],
        original=raw.original.iloc[back].reset_index(drop=True),
        broken_rows=raw.broken_rows,
        notes=raw.notes,
    )


def _row_reasons(raw: RawBars, size: BarSize) -> NDArray[np.object_]:
    """The first reason against each row that can be seen from the row alone; empty where there is none."""
    opened, high, low, close = (raw.values[name] for name in PRICE_FIELDS)
    volume = raw.values["volume"]
    prices = np.stack([opened, high, low, close])
    bad_time = raw.stamp_ns == NOT_A_TIME
    with np.errstate(invalid="ignore"):
        tests = (
            (RejectReason.BAD_TIME, bad_time),
            (RejectReason.NAN, ~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume)),
            (RejectReason.NON_POSITIVE, (prices <= 0).any(axis=0)),
            (RejectReason.BAD_VOLUME, volume < 0),
            (RejectReason.TOO_LARGE, (prices > PRICE_MAX).any(axis=0) | (volume > QUANTITY_MAX)),
            (RejectReason.INCONSISTENT, (high < np.maximum(opened, close)) | (low > np.minimum(opened, close))),
            (RejectReason.OFF_GRID, _off_grid(raw.wall_ns, bad_time, size)),
        )
    reason = np.full(len(raw.row), "", dtype=object)
    for name, failed in reversed(tests):
        reason[failed] = str(name)
    return reason


def _off_grid(wall_ns: IntArray, bad_time: NDArray[np.bool_], size: BarSize) -> NDArray[np.bool_]:
    """Rows off the grid that most rows of the file lie on, on its own wall clock (sessions may open at half past)."""
    phase = wall_ns % size.nanos
    known = phase[~bad_time]
    if len(known) == 0:
        return np.zeros(len(wall_ns), dtype=bool)
    phases, counts = np.unique(known, return_counts=True)
    off: NDArray[np.bool_] = (phase != phases[np.argmax(counts)]) & ~bad_time
    return off


def _reject_disorder(close_ns: IntArray, fine: IntArray, reason: NDArray[np.object_]) -> None:
    """Reject the fewest rows that leave the others strictly increasing in time.

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
    duplicate = ~kept & np.isin(stamps, stamps[kept])
    reason[fine[duplicate]] = str(RejectReason.DUPLICATE)
    reason[fine[~kept & ~duplicate]] = str(RejectReason.OUT_OF_ORDER)


def _rejected_rows(sources: list[RawBars], reason: NDArray[np.object_]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    start = 0
    for raw in sources:
        own = reason[start : start + len(raw.row)]
        start += len(raw.row)
        bad = np.flatnonzero(own != "")
        fields: list[str] = []
        if len(bad):
            fields = raw.original.iloc[bad].astype("string").fillna("").agg(",".join, axis=1).tolist()
        parts.append(pd.DataFrame({"file": str(raw.path), "row": raw.row[bad], "reason": own[bad], "fields": fields}))
        if raw.broken_rows:
            rows, texts = zip(*raw.broken_rows, strict=True)
            parts.append(
                pd.DataFrame(
                    {"file": str(raw.path), "row": rows, "reason": str(RejectReason.BROKEN_ROW), "fields": texts}
                )
            )
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
