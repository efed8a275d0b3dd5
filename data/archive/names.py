"""The files of Binance's public archive that hold given bars.

Every month that is over has a file, and so has every day. A file of the name ``SYMBOL-INTERVAL-YYYY-MM[-DD].zip`` lies
under ``data/spot`` or ``data/futures/{um,cm}``, in ``{monthly,daily}/klines/SYMBOL/INTERVAL/``.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from data.bars import BarSize
from data.errors import OptionError
from data.instruments import Kind

PREFIX = "binance:"
INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
"""Bar sizes that the archive has and that divide a day; those in seconds are of the spot market alone."""

FIRST_DAY = date(2017, 7, 1)
"""Before this month there is nothing in the archive."""


class ArchiveMarket(StrEnum):
    """A part of the exchange."""

    SPOT = "spot"
    UM = "um"
    CM = "cm"

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return "data/spot" if self is ArchiveMarket.SPOT else f"data/futures/{self}"


@dataclass(frozen=True)
class ArchiveRequest:
    """Bars of one symbol from the day ``first`` to the day ``last``, both included, UTC."""

    symbol: str
    size: BarSize
    first: date
    last: date
    market: ArchiveMarket = ArchiveMarket.SPOT

    @property
    def instrument(self) -> str:
        """What the bars are called in a catalog if nobody says otherwise."""
        perpetual = self.market is ArchiveMarket.UM and "_" not in self.symbol
        return f"{self.symbol}{'-PERP' if perpetual else ''}.BINANCE"

    @property
    def kind(self) -> Kind:
        """What is traded there."""
        return Kind.CRYPTO if self.market is ArchiveMarket.SPOT else Kind.PERPETUAL

    @property
    def notes(self) -> list[str]:
        """What people should know of these bars."""
        if self.market is ArchiveMarket.CM:
            return ["coin-margined: volume counts contracts and profits come in coins; the books of a backtest do not"]
        if self.market is ArchiveMarket.UM and "_" in self.symbol:
            return ["a contract that expires is booked as a perpetual; what happens at its end is not modelled"]
        return []


@dataclass(frozen=True)
class ArchiveFile:
    """One zip, by its path below the archive's address; ``month`` is the first day of the month it lies in."""

    path: str
    month: date
    day: date | None = None

    @property
    def name(self) -> str:
        """Without the folders."""
        return self.path.rpartition("/")[2]


def archive_request(
    source: str, bar: str | None, start: str | None, end: str | None, market: str, today: date
) -> ArchiveRequest:
    """Read ``binance:SYMBOL`` with its options.

    Parameters
    ----------
    source
        ``binance:`` and a symbol.
    bar
        Bar size, such as ``1m``.
    start, end
        ``2024-01`` or ``2024-01-15``; a month's end is its last day. Without an end bars go to yesterday.
    market
        ``spot``, ``um`` or ``cm``.
    today
        The day, UTC; its file is not there yet.

    Raises
    ------
    OptionError
        For what is missing, makes no sense, or lies outside of all that the archive can have.
    """
    symbol = source.removeprefix(PREFIX).strip().upper()
    if not re.fullmatch(r"[A-Z0-9]{2,40}(_[A-Z0-9]{1,12})?", symbol):
        raise OptionError(f"{source}: is no symbol of Binance's; write for example binance:BTCUSDT")
    if bar is None:
        raise OptionError(f"{source}: say which bars with --bar; the archive has {', '.join(INTERVALS)}")
    size = BarSize.parse(bar)
    chosen = ArchiveMarket(market)
    if str(size) not in INTERVALS or (str(size) == "1s" and chosen is not ArchiveMarket.SPOT):
        raise OptionError(f"--bar {bar}: the archive has {', '.join(INTERVALS)} (1s of the spot market alone)")
    if start is None:
        raise OptionError(f"{source}: say from when on with --from, such as --from 2024-01")
    yesterday = today - timedelta(days=1)
    first = _day(start, "--from", last=False)
    last = yesterday if end is None else _day(end, "--to", last=True)
    if first > yesterday:
        raise OptionError(f"--from {start}: the archive has bars up to yesterday, {yesterday}")
    if first > last:
        raise OptionError(f"--from {start} lies after --to {end}")
    return ArchiveRequest(symbol, size, max(first, FIRST_DAY), max(FIRST_DAY, min(last, yesterday)), chosen)


def files_of(request: ArchiveRequest) -> list[ArchiveFile]:
    """The files that hold these bars and no others: months that are wanted whole, and the days of the others."""
    found: list[ArchiveFile] = []
    month = request.first.replace(day=1)
    while month <= request.last:
        end = _month_end(month)
        if request.first <= month and end <= request.last:
            found.append(month_file(request, month))
        else:
            found += day_files(request, max(month, request.first), min(end, request.last))
        month = end + timedelta(days=1)
    return found


def month_file(request: ArchiveRequest, month: date) -> ArchiveFile:
    """The file of a month, of which any day may be given."""
    month = month.replace(day=1)
    return ArchiveFile(_path(request, "monthly", month.strftime("%Y-%m")), month)


def day_files(request: ArchiveRequest, first: date, last: date) -> list[ArchiveFile]:
    """The files of days, both ends included."""
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [ArchiveFile(_path(request, "daily", day.isoformat()), day.replace(day=1), day) for day in days]


def days_of(request: ArchiveRequest, file: ArchiveFile) -> list[ArchiveFile]:
    """The daily files of a monthly one's days."""
    return day_files(request, file.month, _month_end(file.month))


def _path(request: ArchiveRequest, every: str, when: str) -> str:
    symbol, size = request.symbol, request.size
    return f"{request.market.folder}/{every}/klines/{symbol}/{size}/{symbol}-{size}-{when}.zip"


def _month_end(month: date) -> date:
    return month.replace(day=calendar.monthrange(month.year, month.month)[1])


def _day(text: str, option: str, *, last: bool) -> date:
    match = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", text.strip())
    try:
        if match is None:
            raise ValueError
        year, month, day = (None if part is None else int(part) for part in match.groups())
        assert year is not None and month is not None
        whole = date(year, month, 1)
        if day is None:
            return _month_end(whole) if last else whole
        return date(year, month, day)
    except ValueError:
        raise OptionError(f"{option} {text}: write a month, 2024-01, or a day, 2024-01-15") from None
