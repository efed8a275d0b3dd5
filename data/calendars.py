"""When a market is open: which bars are to be expected, so that a weekend is no gap and a holiday neither.

Exchanges are those of the ``exchange_calendars`` package, by the code of ISO 10383 (``XNYS``); beside them there are
``24/7``, the week of foreign exchange (``fx``, from Sunday 17:00 to Friday 17:00 in New York) and ``weekdays``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from nautilus_trader.model.identifiers import InstrumentId
from numpy.typing import NDArray

from data.bars import IntArray
from data.errors import OptionError
from data.instruments import Kind

ALWAYS, FX, WEEKDAYS = "24/7", "fx", "weekdays"
_VENUES = {
    "NYSE": "XNYS", "ARCA": "XNYS", "ARCX": "XNYS", "AMEX": "XNYS", "BATS": "XNYS", "NASDAQ": "XNAS", "INDEX": "XNYS",
    "CBOE": "XNYS", "LSE": "XLON", "XETRA": "XETR", "TSE": "XTKS", "HKEX": "XHKG", "SIX": "XSWX", "TSX": "XTSE",
    "ASX": "XASX", "NSE": "XBOM", "BSE": "XBOM",
}  # fmt: skip
_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Calendar:
    """Spans in which a market is open, from ``opens_ns`` to ``closes_ns``, in order; None where it never closes.

    ``ends_ns`` are the ends of its days; None where it has none, and a day is as any other bar.
    """

    name: str
    opens_ns: IntArray | None = None
    closes_ns: IntArray | None = None
    ends_ns: IntArray | None = None

    def expected(self, ts_close_ns: IntArray, size_ns: int) -> IntArray:
        """How many bars are to be expected up to each close, that one included, where a market closes.

        Bars lie on the grid of most of the closes, be it one of UTC or one that is counted from each span's beginning,
        which moves with the clocks. A span that does not begin on it begins with a bar that is shorter.
        """
        assert self.opens_ns is not None and self.closes_ns is not None
        if size_ns == _DAY_NS and self.ends_ns is not None:
            return np.searchsorted(self.ends_ns, ts_close_ns, side="right")
        span = np.searchsorted(self.opens_ns, ts_close_ns, side="left") - 1
        phases, counts = np.unique(ts_close_ns % size_ns, return_counts=True)
        phase = np.full(len(self.opens_ns), int(phases[np.argmax(counts)]) if len(phases) else 0)
        if np.count_nonzero((ts_close_ns - self.opens_ns[span]) % size_ns == 0) > counts.max(initial=0):
            phase = self.opens_ns % size_ns
        begins = (self.opens_ns - phase) // size_ns
        within = -((phase - self.closes_ns) // size_ns) - begins
        before = np.concatenate([[0], np.cumsum(within)])
        inside = np.clip((ts_close_ns - phase[span] + size_ns // 2) // size_ns - begins[span], 0, within[span])
        return np.asarray(np.where(span < 0, 0, before[span] + inside))

    def on_grid_of_spans(self, stamp_ns: IntArray, size_ns: int) -> NDArray[np.bool_]:
        """Which stamps lie a whole number of bars behind the beginning of their span."""
        if self.opens_ns is None:
            return np.zeros(len(stamp_ns), dtype=np.bool_)
        span = np.maximum(np.searchsorted(self.opens_ns, stamp_ns, side="right") - 1, 0)
        return np.asarray((stamp_ns - self.opens_ns[span]) % size_ns == 0)

    def is_boundary(self, stamp_ns: IntArray) -> NDArray[np.bool_]:
        """Which stamps are those of a session's beginning or end: days that are cut short are no mistake."""
        if self.opens_ns is None or self.closes_ns is None:
            return np.zeros(len(stamp_ns), dtype=np.bool_)
        return np.isin(stamp_ns, self.opens_ns) | np.isin(stamp_ns, self.closes_ns)


ALWAYS_OPEN = Calendar(ALWAYS)


def calendar_name(instrument_id: InstrumentId, kind: Kind) -> str:
    """The calendar of an instrument, as far as its kind and its venue tell."""
    if kind.always_open:
        return ALWAYS
    if kind is Kind.FX:
        return FX
    venue = instrument_id.venue.value.upper()
    if venue in _VENUES:
        return _VENUES[venue]
    return venue if len(venue) == 4 and venue in _exchange_names() else WEEKDAYS


def require_calendar(name: str) -> None:
    """Raise OptionError for a calendar that does not exist."""
    if name not in {ALWAYS, FX, WEEKDAYS} and name not in _exchange_names():
        raise OptionError(
            f"--calendar {name}: unknown; there are {ALWAYS}, {FX}, {WEEKDAYS}, and exchanges by their code, such as "
            "XNYS"
        )


def calendar_of(name: str, first_ns: int, last_ns: int) -> Calendar:
    """A calendar of that name, for the time between two stamps, and some days more on both sides.

    An exchange's, where it does not reach so far, is that of weekdays before its beginning and after its end.
    """
    if name == ALWAYS:
        return Calendar(name)
    first, last = (pd.Timestamp(ns, tz="UTC").floor("D") + pd.Timedelta(days=days) for ns, days in
                   ((first_ns, -10), (last_ns, 10)))  # fmt: skip
    if name == FX:
        # By the wall clock of New York, whose offset changes on Sundays, before the week begins.
        sundays = pd.date_range(first - pd.Timedelta(days=7), last, freq="W-SUN").tz_localize(None)
        begins = (sundays + pd.Timedelta(hours=17)).tz_localize("America/New_York")
        ends = [(sundays + pd.Timedelta(days=day, hours=17)).tz_localize("America/New_York") for day in range(1, 6)]
        return Calendar(name, _as_ns(begins), _as_ns(ends[-1]), np.sort(np.concatenate([_as_ns(day) for day in ends])))
    days = pd.date_range(first, last, freq="B")
    opens, closes = _as_ns(days), _as_ns(days + pd.Timedelta(days=1))
    if name != WEEKDAYS:
        own = _sessions(name, first, last)
        outside = (closes <= own[0][0]) | (opens >= own[1][-1])
        opens, closes, days_end = (
            np.sort(np.concatenate([of_days[outside], of_exchange]))
            for of_days, of_exchange in zip((opens, closes, closes), own, strict=True)
        )
        return Calendar(name, opens, closes, days_end)
    return Calendar(name, opens, closes, closes)


def _sessions(name: str, first: pd.Timestamp, last: pd.Timestamp) -> tuple[IntArray, IntArray, IntArray]:
    """Spans of an exchange's sessions, parted by their breaks; and the sessions' ends."""
    from exchange_calendars import get_calendar

    whole = get_calendar(name)
    bounds = whole.bound_min(), whole.bound_max()
    begin, end = first.tz_localize(None), last.tz_localize(None)
    begin = begin if bounds[0] is None else max(begin, bounds[0])
    end = min(end, whole.last_session) if bounds[1] is None else min(end, bounds[1], whole.last_session)
    if begin >= end:
        # All of it lies outside of what the exchange's calendar knows.
        nothing = np.array([first.value])
        return nothing, nothing, nothing
    schedule = get_calendar(name, start=begin, end=end).schedule
    opens, closes = _as_ns(schedule["open"]), _as_ns(schedule["close"])
    ends = closes
    pauses = schedule["break_start"].notna().to_numpy()
    if pauses.any():
        stops, goes_on = _as_ns(schedule["break_start"][pauses]), _as_ns(schedule["break_end"][pauses])
        opens, closes = np.sort(np.concatenate([opens, goes_on])), np.sort(np.concatenate([closes, stops]))
    return opens, closes, ends


def _exchange_names() -> frozenset[str]:
    # A second to import: only where an exchange is asked for.
    from exchange_calendars import get_calendar_names

    return frozenset(get_calendar_names())


def _as_ns(times: pd.DatetimeIndex | pd.Series) -> IntArray:
    index = pd.DatetimeIndex(times).tz_convert("UTC").tz_localize(None).as_unit("ns")
    return np.asarray(index.asi8, dtype=np.int64)
