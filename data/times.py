"""Time stamps as foreign files write them, turned into nanoseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.bars import IntArray
from data.errors import AmbiguousSource, DataError, OptionError

NOT_A_TIME = np.iinfo(np.int64).min
"""Stands where a time could not be read; the same value pandas gives NaT."""

# The epoch units are told apart by magnitude: each range covers the years 1973 to 2286.
_EPOCH_UNITS = (("s", 1e8, 1e10, 10**9), ("ms", 1e11, 1e13, 10**6), ("us", 1e14, 1e16, 10**3), ("ns", 1e17, 1e19, 1))

# Day-first and month-first dates are told apart by the values of a file, where they can be.
_YEAR_FIRST = r"^\d{4}[-./]\d{1,2}[-./]\d{1,2}"
_YEAR_LAST = r"^(\d{1,2})([-./])(\d{1,2})[-./]\d{4}"
_COMPACT = r"^(\d{8})(?:[ T]?(\d{2}):?(\d{2})(?::?(\d{2}))?)?$"


@dataclass(frozen=True)
class Times:
    """Stamps of one file.

    ``utc_ns`` counts from the epoch; ``wall_ns`` is what a clock on the wall in the file's own time zone showed,
    for checks of the grid. Unreadable stamps are NOT_A_TIME in both. ``description`` says how they were read.
    """

    utc_ns: IntArray
    wall_ns: IntArray
    description: str


def parse_times(values: pd.Series, where: str, tz: str | None, time_format: str | None) -> Times:
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

    Raises
    ------
    DataError
        If fewer than half of the stamps can be read, or epoch units are mixed.
    AmbiguousSource
        If day and month cannot be told apart.
    OptionError
        If the time zone is unknown.
    """
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return _from_aware(values.dt.tz_convert("UTC"), f"timestamps in {values.dtype.tz}")
    if pd.api.types.is_datetime64_any_dtype(values):
        return _localized(values, tz, "timestamps", where)
    if time_format is not None:
        parsed = pd.to_datetime(values.astype("string"), format=time_format, errors="coerce", utc="%z" in time_format)
        _require_mostly_read(parsed.isna(), values, where)
        described = f"format {time_format}"
        return _from_aware(parsed, described) if "%z" in time_format else _localized(parsed, tz, described, where)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    if _looks_like_epochs(numbers):
        return _from_epochs(values, numbers, where)
    return _from_text(values.astype("string").str.strip(), where, tz)


def _looks_like_epochs(numbers: NDArray[np.float64]) -> bool:
    finite = numbers[np.isfinite(numbers)]
    # Eight-digit dates (20240131) are numbers too, but below the range of epoch seconds.
    return len(finite) * 2 > len(numbers) and float(np.median(finite)) >= _EPOCH_UNITS[0][1]


def _from_epochs(values: pd.Series, numbers: NDArray[np.float64], where: str) -> Times:
    unit_of_row = np.full(len(numbers), -1)
    for index, (_, low, high, _) in enumerate(_EPOCH_UNITS):
        unit_of_row[(numbers >= low) & (numbers < high)] = index
    known = unit_of_row[unit_of_row >= 0]
    units = np.unique(known)
    if len(units) == 0:
        raise DataError(f"{where}: numbers such as {values.iloc[0]} are no epoch in s, ms, µs or ns")
    if len(units) > 1:
        rows = ", ".join(
            f"{_EPOCH_UNITS[unit][0]} (first in row {int(np.argmax(unit_of_row == unit)) + 1})" for unit in units
        )
        raise DataError(f"{where}: epoch units are mixed within the file: {rows}. Split the file by unit and try again")
    name, _, _, factor = _EPOCH_UNITS[units[0]]
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


def _from_text(text: pd.Series, where: str, tz: str | None) -> Times:
    sample = text.dropna()
    if sample.empty:
        raise DataError(f"{where}: the time column is empty")
    majority = sample.iloc[:10_000]
    if majority.str.match(_COMPACT).mean() > 0.5:
        parts = text.str.extract(_COMPACT)
        joined = parts[0] + parts[1].fillna("00") + parts[2].fillna("00") + parts[3].fillna("00")
        parsed = pd.to_datetime(joined, format="%Y%m%d%H%M%S", errors="coerce")
        described = "YYYYMMDD dates"
    elif majority.str.match(_YEAR_FIRST).mean() > 0.5:
        swapped = text.str.replace(r"^(\d{4})[./](\d{1,2})[./](\d{1,2})", r"\1-\2-\3", regex=True)
        parsed = _to_datetime(swapped, "ISO8601")
        described = "year-first dates"
    elif majority.str.match(_YEAR_LAST).mean() > 0.5:
        parsed, described = _from_year_last(text, where)
    else:
        parsed = _to_datetime(text, "mixed")
        described = "dates in free form"
    _require_mostly_read(parsed.isna(), text, where)
    if isinstance(parsed.dtype, pd.DatetimeTZDtype):
        return _from_aware(parsed, f"{described} with their UTC offset")
    return _localized(parsed, tz, described, where)


def _to_datetime(text: pd.Series, form: str) -> pd.Series:
    """Parse, aware if any stamp names an offset, naive otherwise."""
    has_offset = bool(text.str.contains(r"(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})$", na=False).mean() > 0.5)
    cleaned = text.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True) if has_offset else text
    return pd.to_datetime(cleaned, format=form, errors="coerce", utc=has_offset)


def _from_year_last(text: pd.Series, where: str) -> tuple[pd.Series, str]:
    fields = text.str.extract(_YEAR_LAST)
    first, second = (pd.to_numeric(fields[column], errors="coerce") for column in (0, 2))
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if day_first == month_first:
        why = "both places exceed 12" if day_first else "no place exceeds 12"
        raise AmbiguousSource(
            f"{where}: {text.iloc[0]!r} may be day first or month first ({why}). "
            "Say which, for example --time-format '%d.%m.%Y %H:%M' or --time-format '%m/%d/%Y %H:%M'"
        )
    order = r"\3-\2-\1" if day_first else r"\3-\1-\2"
    iso_text = text.str.replace(r"^(\d{1,2})[-./](\d{1,2})[-./](\d{4})", order, regex=True)
    padded = iso_text.str.replace(r"-(\d)(?=\D|$)", r"-0\1", regex=True)
    padded = padded.str.replace(r"-(\d)(?=\D|$)", r"-0\1", regex=True)
    return _to_datetime(padded, "ISO8601"), "day-first dates" if day_first else "month-first dates"


def _require_mostly_read(missing: pd.Series, values: pd.Series, where: str) -> None:
    if bool(missing.mean() > 0.5):
        example = values[missing].iloc[0]
        raise DataError(
            f"{where}: {example!r} is not read as a time. Name the right column with --columns time=NAME, "
            "or its format with --time-format"
        )


def _from_aware(stamps: pd.Series, description: str) -> Times:
    # Via the naive UTC wall clock: as_unit needs no time zone, and NaT stays NOT_A_TIME.
    utc_ns = stamps.dt.tz_convert("UTC").dt.tz_localize(None).dt.as_unit("ns").astype("int64").to_numpy()
    return Times(utc_ns, utc_ns, description)


def _localized(stamps: pd.Series, tz: str | None, described: str, where: str) -> Times:
    wall_ns = stamps.dt.as_unit("ns").astype("int64").to_numpy()
    if tz is None or tz.upper() == "UTC":
        return Times(wall_ns, wall_ns, f"{described}, taken as UTC")
    try:
        # The hour that a change of clocks repeats or skips cannot be placed: such rows are rejected by name.
        aware = stamps.dt.tz_localize(tz, ambiguous="NaT", nonexistent="NaT")
    except Exception as error:
        raise OptionError(
            f"{where}: time zone {tz!r} is unknown ({error}); use a name such as America/New_York"
        ) from error
    utc_ns = aware.dt.tz_convert("UTC").dt.tz_localize(None).dt.as_unit("ns").astype("int64").to_numpy()
    return Times(utc_ns, wall_ns, f"{described}, wall clock of {tz}")
