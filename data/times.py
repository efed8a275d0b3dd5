"""Time stamps as foreign files write them, turned into nanoseconds since the epoch."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from data.bars import IntArray
from data.errors import AmbiguousSource, DataError, OptionError

NOT_A_TIME = np.iinfo(np.int64).min
"""Stands where a time could not be read; the same value pandas gives NaT."""

# The epoch units are told apart by magnitude: each range covers the years 1973 to 2261; nanoseconds end in 2262.
_EPOCH_UNITS = (
    ("s", 1e8, 9.2e9, 10**9), ("ms", 1e11, 9.2e12, 10**6), ("us", 1e14, 9.2e15, 10**3), ("ns", 1e17, 9.2e18, 1),
)  # fmt: skip

# A clock time, and then its offset from UTC: "00:30Z", "00:30:00+01:00", "00:30:00.000 GMT+0100", "00:30+00"; and the
# same without colons, "T0030Z", of ISO 8601.
_WITH_OFFSET = " with their UTC offset"
_ZONED = (
    r"^(.*(?:\d:\d{2}[:.,\d]*|\dT\d{2}(?:\d{2}){0,2}(?:\.\d+)?|^\d{10,14}))"
    r"\s*(Z|UTC|GMT|(?:UTC|GMT)?[+-]\d{2}(?::?\d{2})?)$"
)
# As the command "date" writes them, with the year behind: "Mon Jan  1 00:00:00 UTC 2024".
_ZONED_BEFORE_YEAR = r"(\d{1,2}:\d{2}\S*)\s+(UTC|GMT|[+-]\d{4})\s+(\d{4})$"
# An offset in any other form or place: who has one is no time of a wall clock.
_OFFSET = (
    r"(?i)utc|gmt|\d\s*z\b|"
    r"(?:\d:\d{2}(?::\d{2})?(?:[.,]\d+)?|\dT\d{2}(?:\d{2}){0,2}(?:[.,]\d+)?|[ap]\.?m\.?)\s*[+-]\d{2}"
)

# Day-first and month-first dates are told apart by the values of a file, where they can be.
_YEAR_FIRST = r"^\d{4}[-./]\d{1,2}[-./]\d{1,2}"
_YEAR_LAST = r"^(\d{1,2})([-./])(\d{1,2})[-./]\d{4}"
_SHORT_YEAR = r"^\d{1,2}([-./])\d{1,2}[-./]\d{2}(?!\d)"
# What letters there may be in a date in free form. Any others are of a zone such as EST, which is no offset, for its
# letters mean several; pandas passes over it.
_WORDS = (
    r"(?<![a-z])(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|"
    r"fri(?:day)?|sat(?:urday)?|sun(?:day)?|[ap]\.?m\.?|utc|gmt|z|t|st|nd|rd|th|at|of)(?![a-z])"
)
_COMPACT = r"^(\d{8})(?:[ T]?(\d{2})(?::?(\d{2})(?::?(\d{2}))?)?)?$"
_COMPACT_DATES = "YYYYMMDD dates"


@dataclass(frozen=True)
class Times:
    """Stamps of one file.

    ``utc_ns`` counts from the epoch; ``wall_ns`` is what a clock on the wall in the file's own time zone showed,
    for checks of the grid. Unreadable stamps are NOT_A_TIME in both. ``description`` says how they were read, ``zone``
    is that of the clock, where it is known and not UTC.
    """

    utc_ns: IntArray
    wall_ns: IntArray
    description: str
    zone: str | None = None

    def since(self, row: int) -> Times:
        """Without the first so many."""
        return Times(self.utc_ns[row:], self.wall_ns[row:], self.description, self.zone)


def parse_times(
    values: pd.Series, where: str, tz: str | None, time_format: str | None, form: str | None = None
) -> Times:
    """Read a column of epochs, strings or timestamps.

    Parameters
    ----------
    values
        The column as the file has it.
    where
        File and column, for messages.
    tz
        Time zone of stamps that carry none; UTC when None.
    time_format
        A strptime format that overrides detection.
    form
        The description of how earlier rows of the same column were read; these are read alike.

    Rows are numbered in messages by the index of ``values``.

    Raises
    ------
    DataError
        If fewer than half of the stamps can be read, or epoch units are mixed.
    AmbiguousSource
        If day and month cannot be told apart.
    OptionError
        If the time zone is unknown, or the format is none.
    """
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        zone = str(values.dtype.tz)
        known = zone if zone != "UTC" and _is_zone(zone) else None
        return _from_aware(values, values.dt.tz_localize(None), f"timestamps in {zone}", known)
    if pd.api.types.is_datetime64_any_dtype(values):
        return _localized(values, tz, "timestamps")
    if time_format is not None:
        return _from_format(values.astype("string").str.strip(), time_format, where, tz)
    whole = _whole_numbers(values)
    if whole is not None:
        values = whole
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    # As earlier rows were read, where there are some: few rows may look like the other.
    compact = _looks_like_dates(numbers) if form is None else form.startswith(_COMPACT_DATES)
    if not compact and _looks_like_epochs(numbers):
        return _from_epochs(values, numbers, where, form)
    text = values.astype("string").str.strip()
    return _from_text(text.str.removesuffix(".0") if compact else text, where, tz, form)


def require_time_zone(tz: str) -> None:
    """Raise OptionError for a time zone that does not exist."""
    _zone(tz)


def utc_of(wall_ns: IntArray, tz: str) -> IntArray:
    """Times of a wall clock in UTC: of an hour that comes twice the later, of one that never does NOT_A_TIME."""
    zone, ahead = _zone(tz)
    wall = pd.DatetimeIndex(wall_ns) - ahead
    aware = wall.tz_localize(zone, ambiguous=np.zeros(len(wall), dtype=np.bool_), nonexistent="NaT")
    return np.asarray(aware.tz_convert("UTC").as_unit("ns").asi8, dtype=np.int64)


def _zone(tz: str) -> tuple[str, pd.Timedelta]:
    """A zone, and how far a clock is ahead of it: brokers' servers run at ``America/New_York+07:00``."""
    if _is_zone(tz):
        return tz, pd.Timedelta(0)  # Etc/GMT+3 is a zone of its own, and three hours behind
    match = re.fullmatch(r"([A-Za-z]+/[A-Za-z_/]+)([+-])(\d{1,2}):?(\d{2})?", tz)
    if match is None or not _is_zone(match[1]):
        raise OptionError(f"--tz {tz}: no such time zone; use a name such as America/New_York")
    ahead = pd.Timedelta(hours=int(match[3]), minutes=int(match[4] or 0))
    return match[1], ahead if match[2] == "+" else -ahead


def _is_zone(name: str) -> bool:
    try:
        pd.Timestamp(0).tz_localize(name)
    except Exception:  # of whichever of three libraries looked the name up
        return False
    return True


def _whole_numbers(values: pd.Series) -> pd.Series | None:
    """Texts of whole numbers as such, by Arrow, which is many times faster; None where any is something else."""
    if not isinstance(values.dtype, pd.ArrowDtype):
        return None
    try:
        numbers = pa.array(values, type=pa.string()).cast(pa.int64())
    except (pa.ArrowException, TypeError):
        return None
    if numbers.null_count:
        return None
    return pd.Series(numbers.to_numpy(zero_copy_only=False), index=values.index)


def _looks_like_epochs(numbers: NDArray[np.float64]) -> bool:
    finite = numbers[np.isfinite(numbers)]
    # Eight-digit dates (20240131) are numbers too, but below the range of epoch seconds.
    return len(finite) * 2 > len(numbers) and float(np.median(finite)) >= _EPOCH_UNITS[0][1]


def _looks_like_dates(numbers: NDArray[np.float64]) -> bool:
    """Whether most are dates from 1900 to 2100 with a time of day, digits alone: YYYYMMDDHH, and MM and SS behind.

    With 14 digits they are an epoch in no unit. With 12 they would be milliseconds of 1976, with 10 seconds of 2030 to
    2036, and of those hardly one in a hundred has the digits of a month, a day and a time.
    """
    seconds = np.full(len(numbers), np.nan)
    for digits in (10, 12, 14):
        fits = (numbers >= 10.0 ** (digits - 1)) & (numbers < 10.0**digits)
        seconds[fits] = numbers[fits] * 10.0 ** (14 - digits)
    stamps = seconds[np.isfinite(seconds) & (seconds % 1 == 0)].astype(np.int64)
    fields = [stamps // 10**places % 100 for places in (8, 6, 4, 2, 0)]
    dates = (stamps >= 1900 * 10**10) & (stamps < 2101 * 10**10) & (fields[0] >= 1) & (fields[1] >= 1)
    for field, most in zip(fields, (12, 31, 23, 59, 59), strict=True):
        dates &= field <= most
    return int(np.count_nonzero(dates)) * 2 > len(numbers)


def _from_epochs(values: pd.Series, numbers: NDArray[np.float64], where: str, form: str | None) -> Times:
    unit_of_row = np.full(len(numbers), -1)
    for index, (_, low, high, _) in enumerate(_EPOCH_UNITS):
        unit_of_row[(numbers >= low) & (numbers < high)] = index
    known = unit_of_row[unit_of_row >= 0]
    units = np.unique(known)
    if len(units) == 0:
        raise DataError(f"{where}: numbers such as {values.iloc[0]} are no epoch in s, ms, µs or ns")
    if len(units) > 1:
        rows = ", ".join(
            f"{_EPOCH_UNITS[unit][0]} (first in row {values.index[int(np.argmax(unit_of_row == unit))]})"
            for unit in units
        )
        raise DataError(f"{where}: epoch units are mixed within the file: {rows}. Split the file by unit and try again")
    name, _, _, factor = _EPOCH_UNITS[units[0]]
    if form is not None and form != f"epoch {name}":
        raise DataError(
            f"{where}: epoch units are mixed within the file: {form.removeprefix('epoch ')}, and from row "
            f"{values.index[0]} {name}. Split the file by unit and try again"
        )
    whole = pd.to_numeric(values, errors="coerce")
    good = unit_of_row >= 0
    stamps = np.full(len(numbers), NOT_A_TIME, dtype=np.int64)
    if pd.api.types.is_integer_dtype(whole):
        # Through float64 a nanosecond epoch would lose its last digits.
        stamps[good] = whole.to_numpy(dtype=np.int64)[good] * factor
    else:
        stamps[good] = np.round(numbers[good] * (factor / 1000) if factor >= 1000 else numbers[good]).astype(np.int64)
        if factor >= 1000:
            stamps[good] *= 1000
    return Times(stamps, stamps, f"epoch {name}")


def _from_format(text: pd.Series, time_format: str, where: str, tz: str | None) -> Times:
    has_offset = "%z" in time_format
    try:
        parsed = pd.to_datetime(text, format=time_format, errors="coerce", utc=has_offset)
    except ValueError as error:
        raise OptionError(f"--time-format {time_format!r}: {error}") from error
    _require_mostly_read(parsed.isna(), text, where)
    described = f"format {time_format}"
    if has_offset:
        return _from_aware(parsed, parsed.dt.tz_localize(None), described)
    return _localized(parsed, tz, described)


def _from_text(text: pd.Series, where: str, tz: str | None, known: str | None) -> Times:
    sample = text[text.notna() & (text != "")].iloc[:10_000]
    if sample.empty:
        raise DataError(f"{where}: the time column is empty")
    form, original = "ISO8601", text
    if sample.str.match(_COMPACT).mean() > 0.5:
        parts = text.str.extract(_COMPACT)
        text = parts[0] + "T" + parts[1].fillna("00") + parts[2].fillna("00") + parts[3].fillna("00")
        form, described = "%Y%m%dT%H%M%S", _COMPACT_DATES
    elif sample.str.match(_YEAR_FIRST).mean() > 0.5:
        if not bool(sample.str.match(r"\d{4}-").all()):
            text = text.str.replace(r"^(\d{4})[./](\d{1,2})[./](\d{1,2})", r"\1-\2-\3", regex=True)
        described = "year-first dates"
    elif sample.str.match(_YEAR_LAST).mean() > 0.5:
        text, described = _year_last_as_iso(text, where, known)
    elif sample.str.match(_SHORT_YEAR).mean() > 0.5:
        raise AmbiguousSource(
            f"{where}: {sample.iloc[0]!r} has a year of two digits. Say how it is written, "
            f"for example {_suggested_formats(sample.iloc[0], 'dmy', 'mdy', 'ymd')}"
        )
    else:
        # A clock time alone would be read as today's.
        text = text.where(text.str.contains(r"\d{4}", na=False))
        text = text.str.replace(_ZONED_BEFORE_YEAR, r"\3 \1 \2", regex=True)
        form, described = "mixed", "dates in free form"
    if form == "ISO8601" and bool(sample.str.contains(r"\d\s*[AP]\.?M\.?$", case=False).mean() > 0.5):
        form = "mixed"  # the year stands first by now, so that no order of day and month is guessed
    if form == "mixed":
        letters = text.str.replace(_WORDS, "", case=False, regex=True).str.contains(r"[^\W\d_]", na=False)
        text = text.where(~letters)
    has_zone = _matches(text, _ZONED)
    # As earlier rows were read; where these say otherwise they are no times.
    zoned_file = bool(has_zone[sample.index].mean() > 0.5) if known is None else known.endswith(_WITH_OFFSET)
    if zoned_file:
        zoned = text.str.extract(_ZONED)
        offset = zoned[1].str.replace(r"^(?:UTC|GMT)(?=[+-])", "", regex=True).replace({"UTC": "Z", "GMT": "Z"})
        aware = pd.to_datetime(zoned[0] + offset, format=form, errors="coerce", utc=True)
        _require_mostly_read(aware.isna(), original, where)
        wall = pd.to_datetime(zoned[0], format=form, errors="coerce")
        return _from_aware(aware, wall, f"{described}{_WITH_OFFSET}")
    # A single stamp with an offset among others without is not comparable to them.
    naive = pd.to_datetime(text.where(~(has_zone | _matches(text, _OFFSET))), format=form, errors="coerce")
    if not pd.api.types.is_datetime64_dtype(naive):
        # There are offsets all the same, in a form that is known to pandas alone.
        naive = pd.Series(pd.NaT, index=text.index)
    _require_mostly_read(naive.isna(), original, where)
    return _localized(naive, tz, described)


def _matches(text: pd.Series, pattern: str) -> pd.Series:
    """Which strings match; by Arrow, which is many times faster than a loop over a million stamps."""
    found = pyarrow.compute.match_substring_regex(pa.array(text, type=pa.string()), pattern)
    return pd.Series(found.fill_null(False).to_numpy(zero_copy_only=False), index=text.index)


def _year_last_as_iso(text: pd.Series, where: str, known: str | None) -> tuple[pd.Series, str]:
    fields = text.str.extract(_YEAR_LAST)
    first, second = (pd.to_numeric(fields[column], errors="coerce") for column in (0, 2))
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if known is not None and known.startswith(("day-first", "month-first")):
        # As earlier rows were read; where these say otherwise they are no times.
        day_first, month_first = known.startswith("day-first"), known.startswith("month-first")
    if day_first == month_first:
        why = "both places exceed 12" if day_first else "no place exceeds 12"
        example = text[fields[0].notna()].iloc[0]
        raise AmbiguousSource(
            f"{where}: {example!r} may be day first or month first ({why}). "
            f"Say which, for example {_suggested_formats(example, 'dmY', 'mdY')}"
        )
    order = r"\3-\2-\1" if day_first else r"\3-\1-\2"
    iso_text = text.str.replace(r"^(\d{1,2})[-./](\d{1,2})[-./](\d{4})", order, regex=True)
    return iso_text, "day-first dates" if day_first else "month-first dates"


def _suggested_formats(example: str, *orders: str) -> str:
    """``--time-format`` options that read a stamp, one for each order of day, month and year."""
    mark = next(letter for letter in example if not letter.isdigit())
    _, between, clock = re.split(r"([ T]|$)", example, maxsplit=1)
    half_day = re.search(r"[AP]M", clock, re.IGNORECASE)
    for pattern, letters in (
        (r"^\d{1,2}", "%I" if half_day else "%H"), (r":\d{2}", ":%M"), (r":\d{2}", ":%S"), (r"\.\d+", ".%f"),
        (r"[AP]M", "%p"), (r"[+-]\d{2}:?\d{2}$", "%z"),
    ):  # fmt: skip
        clock = re.sub(pattern, letters, clock, count=1, flags=re.IGNORECASE)
    return " or ".join(
        f"--time-format '{mark.join(f'%{letter}' for letter in order)}{between}{clock}'" for order in orders
    )


def _require_mostly_read(missing: pd.Series, values: pd.Series, where: str) -> None:
    if bool(missing.mean() > 0.5):
        example = str(values[missing].iloc[0])[:60]
        raise DataError(
            f"{where}: {example!r} is not read as a time. Name the right column with --columns time=NAME, "
            "or its format with --time-format"
        )


def _from_aware(stamps: pd.Series, wall: pd.Series, description: str, zone: str | None = None) -> Times:
    return Times(_as_ns(stamps.dt.tz_convert("UTC").dt.tz_localize(None)), _as_ns(wall), description, zone)


def _localized(stamps: pd.Series, tz: str | None, described: str) -> Times:
    wall_ns = _as_ns(stamps)
    if tz is None or tz.upper() == "UTC":
        return Times(wall_ns, wall_ns, f"{described}, taken as UTC")
    zone, ahead = _zone(tz)
    # The hour that a change of clocks repeats or skips cannot be placed: such rows are rejected by name.
    aware = (_reached(stamps) - ahead).dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    utc_ns = _as_ns(aware.dt.tz_convert("UTC").dt.tz_localize(None))
    return Times(utc_ns, wall_ns, f"{described}, wall clock of {tz}", tz)


def _reached(naive: pd.Series) -> pd.Series:
    """NaT in the place of times that nanoseconds do not reach to, such as the end of the year 9999."""
    return naive.where(naive.between(pd.Timestamp.min, pd.Timestamp.max))


def _as_ns(naive: pd.Series) -> IntArray:
    """Nanoseconds since the epoch; NaT becomes NOT_A_TIME, and so does what they do not reach to."""
    return np.asarray(_reached(naive).dt.as_unit("ns").astype("int64"), dtype=np.int64)
