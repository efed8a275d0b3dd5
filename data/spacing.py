"""How far apart the rows of files lie, and which bars they therefore are."""

from __future__ import annotations

import numpy as np

from data.bars import NANOS_PER_SECOND, BarSize, IntArray
from data.errors import DataError, OptionError
from data.reading import RawBars
from data.times import NOT_A_TIME

_DAY_NS = 86_400 * NANOS_PER_SECOND
_CLEAR_STEPS, _SURE_STEPS = 5, 100
"""So many steps make the spacing of a file clear, and that of rows in its middle."""


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
    # Of a few rows the only steps may be a night or a weekend.
    wider = modal > given.nanos and counts.max() > len(steps) / 2 and len(steps) >= _CLEAR_STEPS
    if modal < given.nanos or modal % given.nanos or wider:
        raise DataError(f"{sources[0].path}: rows are {_spelled(modal)} apart, but --bar says {given}")
    return given


def _steps(raw: RawBars) -> IntArray:
    steps = np.diff(np.sort(raw.stamp_ns[raw.stamp_ns != NOT_A_TIME]))
    return steps[steps > 0]


def _require_one_spacing(sources: list[RawBars], steps_of: list[IntArray]) -> None:
    """Raise DataError where files clearly hold bars of different sizes, such as a directory with 1h and 30m."""
    clear: dict[int, RawBars] = {}
    for raw, steps in zip(sources, steps_of, strict=True):
        nanos = _clear_spacing(steps)
        if nanos is not None:
            clear.setdefault(nanos, raw)
    if len(clear) > 1:
        found = ", ".join(f"{_spelled(nanos)} in {raw.path}" for nanos, raw in sorted(clear.items()))
        raise DataError(f"the files hold bars of different sizes ({found}); ingest each size by itself")


def require_spacing(raw: RawBars, size: BarSize, *, begins: bool) -> None:
    """Raise DataError where a part of a long source clearly holds bars of another size.

    A few wide steps in the middle of a file (it does not begin here) are of a thin market and no other size.
    """
    steps = _steps(raw)
    nanos = _clear_spacing(steps)
    if nanos is None or nanos == size.nanos:
        return
    if nanos < size.nanos or begins or len(steps) >= _SURE_STEPS:
        since = "" if begins else f" from row {raw.row[0]}"
        raise DataError(f"{raw.path}:{since} bars are {_spelled(nanos)} apart, and before that {size}")


def _clear_spacing(steps: IntArray) -> int | None:
    """The step that most of the steps are, in nanoseconds; None where there is none, or they are too few to tell."""
    lengths, counts = np.unique(steps, return_counts=True)
    if len(steps) < _CLEAR_STEPS or counts.max() <= len(steps) / 2:
        return None
    return int(lengths[np.argmax(counts)])


def _spelled(nanos: int) -> str:
    if nanos > _DAY_NS:
        return f"{nanos / _DAY_NS:g} days"
    try:
        return str(BarSize.from_nanos(nanos))
    except OptionError:
        return f"{nanos / NANOS_PER_SECOND:g} s"
