"""Whether memory grows: a verdict on a trace, that can tell a leak from noise and says when it cannot.

Samples are compared at equal bar counts within segments and within one generation of workers, so that saw teeth and
recycled workers neither hide nor fake a slope (``stress.soak.pieces``). The slope comes with an interval by block
bootstrap that holds under strong autocorrelation (``stress.soak.slopes``). A run that is too short or too noisy to
decide is told as undecided, with the smallest leak that it could have found. ``python -m stress.soak.growth_study``
measures how often all this is right.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from stress.soak.pieces import Floats, Pieces, Trace, pieces_of
from stress.soak.slopes import Slope, can_fit, slope_of

LEAK_LIMIT_MB_PER_HOUR = 5.0
GROWTH_LIMIT_MB = 500.0
SETTLING_BARS = 10_000
SETTLING_MB = 20.0
"""Histories of bounded length fill over the first bars of a process, and so much they may take. Own trading processes
were seen to take 9 to 13 MB over 9,000 bars, and nothing after that."""

_BARS = 100_000.0
_POWER_SCORES = 0.84 / 1.96
"""What the estimate strays to the bad side in one run of five, in half-widths of the interval: 80 % power."""


class GrowthVerdict(StrEnum):
    """What a trace proves. ``PASSED``: slope and growth are under their limits. ``FAILED``: they are not."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Growth:
    """What a trace says of growth after warm-up.

    ``per_hour`` (MB) and ``per_100k_bars`` (MB, at the mean pace of the hours that count) are None where there is too
    little to fit. ``growth_mb`` is how much
    higher generations ended than they began, and ``warm_up_mb`` the same of the first one's warm-up. ``samples``
    counted, in so many ``pieces`` of so many ``generations`` over ``hours``. A leak of
    ``smallest_leak_mb_per_hour`` would have been called one with a probability of 80 % in a run as noisy as this one;
    smaller ones may go unnoticed, though none is passed but by bad luck; None says that no leak of any size would have
    been. ``reason`` says in words what the verdict rests on.
    """

    verdict: GrowthVerdict
    reason: str
    per_hour: Slope | None
    per_100k_bars: Slope | None
    growth_mb: float
    warm_up_mb: float
    samples: int
    pieces: int
    generations: int
    hours: float
    smallest_leak_mb_per_hour: float | None


def growth_of(
    trace: Trace,
    leak_limit_mb_per_hour: float = LEAK_LIMIT_MB_PER_HOUR,
    growth_limit_mb: float = GROWTH_LIMIT_MB,
    settling_bars: int = 0,
    seed: int = 0,
) -> Growth:
    """Judge a trace; the same one comes out the same.

    The first ``settling_bars`` of each generation prove no leak smaller than SETTLING_MB would be in their time, and
    they let no trace pass. A hundred thousand samples take about a tenth of a second.
    """
    found = _growth(
        trace.at(_bars_of_generation(trace) >= settling_bars), leak_limit_mb_per_hour, growth_limit_mb, seed
    )
    if settling_bars and found.verdict is GrowthVerdict.UNDECIDED:
        whole = _growth(trace, leak_limit_mb_per_hour, growth_limit_mb, seed)
        slope = whole.per_hour
        if slope is not None:
            settled = _smallest_leak(slope, leak_limit_mb_per_hour + SETTLING_MB / whole.hours)
            whole = dataclasses.replace(whole, smallest_leak_mb_per_hour=settled)
        if slope is not None and (slope.lower - leak_limit_mb_per_hour) * whole.hours > SETTLING_MB:
            beyond = f"and beyond what {SETTLING_MB:g} MB of histories that fill can explain"
            reason = f"{_interval(slope)}, surely over {leak_limit_mb_per_hour:g}, {beyond}"
            return dataclasses.replace(whole, verdict=GrowthVerdict.FAILED, reason=reason)
        if found.per_hour is None:
            reason = f"{found.reason} (the first {settling_bars:,} bars of a process do not count: histories fill)"
            return dataclasses.replace(found, reason=reason, smallest_leak_mb_per_hour=whole.smallest_leak_mb_per_hour)
    return found


def _growth(trace: Trace, leak_limit_mb_per_hour: float, growth_limit_mb: float, seed: int) -> Growth:
    pieces = pieces_of(trace)
    per_hour = slope_of(pieces, seed)
    growth_mb = _rise(pieces)
    verdict, reason = _judged(pieces, per_hour, growth_mb, leak_limit_mb_per_hour, growth_limit_mb)
    return Growth(
        verdict=verdict,
        reason=reason,
        per_hour=per_hour,
        per_100k_bars=_per_bars(per_hour, pieces),
        growth_mb=growth_mb,
        warm_up_mb=_warm_up(trace, pieces),
        samples=pieces.samples,
        pieces=len(pieces),
        generations=len(pieces.begins),
        hours=pieces.hours_counted,
        smallest_leak_mb_per_hour=None if per_hour is None else _smallest_leak(per_hour, leak_limit_mb_per_hour),
    )


def _smallest_leak(slope: Slope, limit_mb_per_hour: float) -> float:
    """What must leak for the lower bound to be over a limit in four runs of five."""
    return limit_mb_per_hour + 0.5 * (slope.upper - slope.lower) * (1.0 + _POWER_SCORES)


def beyond_control(ours: Trace, control: Trace) -> Trace:
    """What our trace takes beyond a control run that was given the same orders: at equal phases and bar counts.

    The control is interpolated by bars between its samples of the same phase and generation; where it has none on both
    sides, our sample is left out. A recycled worker on either side begins a new generation. The clock is ours.
    """
    beside = np.full(len(ours.hours), np.nan)
    generation = np.zeros(len(ours.hours), dtype=np.int64)
    for phase in np.unique(ours.phase):
        mine, theirs = np.flatnonzero(ours.phase == phase), np.flatnonzero(control.phase == phase)
        if len(theirs) == 0:
            continue
        bars, wanted = control.bars[theirs], ours.bars[mine]
        after = np.searchsorted(bars, wanted)
        exact = bars[np.minimum(after, len(bars) - 1)] == wanted
        before = np.where(exact, after, after - 1)
        inside = (before >= 0) & (after < len(bars))
        left, right = theirs[before.clip(0)], theirs[after.clip(0, len(bars) - 1)]
        inside &= control.generation[left] == control.generation[right]
        span = control.bars[right] - control.bars[left]
        share = np.divide(wanted - control.bars[left], span, out=np.zeros(len(mine)), where=span > 0)
        value = control.megabytes[left] + share * (control.megabytes[right] - control.megabytes[left])
        beside[mine] = np.where(inside, value, np.nan)
        generation[mine] = control.generation[left]
    known = np.isfinite(beside)
    _, together = np.unique(np.stack([ours.generation, generation]), axis=1, return_inverse=True)
    return Trace(ours.hours, ours.bars, ours.megabytes - beside, ours.phase, together.ravel()).at(known)


def _judged(
    pieces: Pieces, per_hour: Slope | None, growth_mb: float, limit: float, growth_limit: float
) -> tuple[GrowthVerdict, str]:
    if per_hour is None:
        much = f"{pieces.samples:,} samples of processes that had warmed up"
        what = "time does not pass" if can_fit(pieces) else "too little after warm-up"
        return GrowthVerdict.UNDECIDED, f"{what}: {much}; run longer, or recycle less often"
    interval = _interval(per_hour)
    if per_hour.lower > limit:
        return GrowthVerdict.FAILED, f"{interval}, surely over {limit:g}"
    if growth_mb >= growth_limit and per_hour.lower > 0.0:
        return (
            GrowthVerdict.FAILED,
            f"grew by {growth_mb:,.0f} MB, {growth_limit:g} or more, and surely grows: {interval}",
        )
    if per_hour.upper >= limit:
        return GrowthVerdict.UNDECIDED, f"{interval}, on both sides of {limit:g}; run longer"
    if growth_mb >= growth_limit:
        return GrowthVerdict.UNDECIDED, f"grew by {growth_mb:,.0f} MB, {growth_limit:g} or more, though {interval}"
    return GrowthVerdict.PASSED, f"{interval}, surely under {limit:g}"


def _interval(slope: Slope) -> str:
    return f"slope {slope.lower:.1f} to {slope.upper:.1f} MB per hour"


def _bars_of_generation(trace: Trace) -> Floats:
    """Bars since a sample's generation was first sampled."""
    if not len(trace.bars):
        return trace.bars
    begins = np.flatnonzero(np.diff(trace.generation, prepend=trace.generation[0] - 1))
    lengths = np.diff(np.append(begins, len(trace.bars)))
    return trace.bars - np.repeat(trace.bars[begins], lengths)


def _per_bars(per_hour: Slope | None, pieces: Pieces) -> Slope | None:
    if per_hour is None or pieces.bars_counted <= 0.0:
        return None
    hours = pieces.hours_counted * _BARS / pieces.bars_counted
    return Slope(per_hour.estimate * hours, per_hour.lower * hours, per_hour.upper * hours)


def _rise(pieces: Pieces) -> float:
    total = 0.0
    for begin, end in zip(pieces.begins, pieces.ends, strict=True):
        edge = max(1, (end - begin) // 10)
        total += float(
            np.median(pieces.megabytes[end - edge : end]) - np.median(pieces.megabytes[begin : begin + edge])
        )
    return total


def _warm_up(trace: Trace, pieces: Pieces) -> float:
    if len(pieces) == 0:
        return 0.0
    known: Floats = trace.megabytes[np.isfinite(trace.megabytes)]
    return float(pieces.megabytes[0] - known[0])
