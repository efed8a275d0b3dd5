"""All files of an archive that hold given bars, and what people should know of those that are not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from data.archive.download import Archive, Fetched, Unreachable
from data.archive.names import ArchiveFile, ArchiveRequest, days_of, files_of
from data.errors import DataError

_NAMES_SHOWN = 6
_LATE_DAYS = 62
"""A month's file may come so many days after its beginning, while the files of its days are there."""

_MONTH_DAYS = 31

Progress = Callable[[str, int, int], None]
_FINE = 100


@dataclass(frozen=True)
class Collected:
    """What was brought here, in the order of time; ``missing`` names files that should be there, ``notes`` are told."""

    files: list[Fetched]
    missing: list[str]
    notes: list[str]


def collect(request: ArchiveRequest, archive: Archive, today: date, tell: Progress) -> Collected:
    """Bring all files of a request here.

    Where the file of a month is missing, those of its days are looked for, unless the symbol's bars begin later.

    Raises
    ------
    Unreachable
        If the archive does not answer; the message names what would have been fetched.
    DataError
        If the archive has none of these bars, or a file does not match its checksum.
    OSError
        If files cannot be written here.
    """
    files = files_of(request)
    try:
        have, missing = _fetch(archive, files, tell)
        begins = min((one.file.month for one in have), default=None)
        late = [file for file in missing if file.day is None and _may_have_days(file.month, begins, today)]
        if late:
            more, lacking = _fetch(archive, [day for file in late for day in days_of(request, file)], tell)
            whole = {one.file.month for one in more}
            have += more
            missing = [file for file in missing if file not in late or file.month not in whole] + (
                [day for day in lacking if day.month in whole]
            )
    except Unreachable as error:
        raise Unreachable(f"{error}; would have fetched {_named([file.path for file in files])}") from error
    if not have:
        raise DataError(
            f"{archive.address}: has no {request.size} bars of {request.symbol} in {request.market.folder} from "
            f"{request.first} to {request.last}; looked for {_named([file.path for file in files])}. Is it the right "
            "symbol, and --market?"
        )
    have.sort(key=_time)
    return _told(request, have, sorted(missing, key=_begins))


def _fetch(archive: Archive, files: list[ArchiveFile], tell: Progress) -> tuple[list[Fetched], list[ArchiveFile]]:
    whole = _FINE * len(files)
    tell("fetching", 0, whole)
    return archive.fetch(files, lambda done: tell("fetching", int(_FINE * done), whole))


def _told(request: ArchiveRequest, have: list[Fetched], missing: list[ArchiveFile]) -> Collected:
    begins = _begins(have[0].file)
    lacking = [file.name for file in missing]
    before = sum(_begins(file) < begins for file in missing)
    notes = []
    if early := lacking[:before]:
        notes.append(f"nothing of {request.symbol} is there before {begins}, not in {_named(early)}")
    if holes := lacking[before:]:
        notes.append(f"not in the archive: {_named(holes)}")
    for one in have:
        if one.replaced is not None:
            notes.append(
                f"{one.file.name}: the archive has replaced it since it was fetched "
                f"(sha256 {one.replaced[:12]}… is now {one.sha256[:12]}…)"
            )
    if gone := [one.file.name for one in have if one.gone]:
        notes.append(f"no longer in the archive; taken as they were fetched before: {_named(gone)}")
    unasked = [one.file.name for one in have if not one.verified]
    if unasked:
        notes.append(f"the archive cannot be reached; taken as they were fetched before: {_named(unasked)}")
    return Collected(have, lacking, notes)


def _may_have_days(month: date, begins: date | None, today: date) -> bool:
    """Whether there may be files of days though that of their month is missing.

    So it is in a hole, in the month in which a symbol's bars begin, and where a month's file is still to come.
    """
    if (today - month).days < _LATE_DAYS:
        return True
    return begins is not None and (month > begins or (begins - month).days <= _MONTH_DAYS)


def _time(fetched: Fetched) -> date:
    return _begins(fetched.file)


def _begins(file: ArchiveFile) -> date:
    return file.day or file.month


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    if len(names) <= _NAMES_SHOWN:
        return shown
    return f"{shown} and {len(names) - _NAMES_SHOWN:,} more up to {names[-1]}"
