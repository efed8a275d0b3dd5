"""From the samples of a memory trace to a few robust levels: warm-up left out, saw teeth and spikes taken off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WARM_UP_SHARE = 0.2
"""The part of each generation that is warm-up."""
WARM_UP_MIN_HOURS = 0.2
"""Warm-up lasts that long at least, though never more than half of a generation."""
_PIECES = 96
_SAMPLES_PER_PIECE = 3
_PIECES_PER_GENERATION = 10
_PIECES_MAX = 480
_ROWS_MIN = 3


@dataclass(frozen=True)
class Trace:
    """Memory of a process, or of several together, in the order of time. All arrays have one shape, (samples,).

    Parameters
    ----------
    hours
        When, in hours from any origin.
    bars
        Bars done up to then since the run began.
    megabytes
        How much; samples that are not finite are passed over.
    phase
        Which of the equal bar counts within a segment it is. Where it does not rise, the next segment has begun.
    generation
        Changes where a worker was replaced by a new one, whose memory begins at another level.

    Raises
    ------
    ValueError
        If the lengths differ or time goes back.
    """

    hours: Floats
    bars: Floats
    megabytes: Floats
    phase: Integers
    generation: Integers

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.hours, self.bars, self.megabytes, self.phase, self.generation)}
        if len(shapes) != 1 or self.hours.ndim != 1:
            raise ValueError(f"a trace has arrays of one length, not of {sorted(shapes)}")
        if np.any(np.diff(self.hours) < 0.0):
            raise ValueError("a trace goes forward in time; sort its samples")

    def at(self, samples: NDArray[np.bool_] | Integers) -> Trace:
        """The chosen samples alone."""
        return Trace(
            self.hours[samples],
            self.bars[samples],
            self.megabytes[samples],
            self.phase[samples],
            self.generation[samples],
        )


@dataclass(frozen=True)
class Pieces:
    """Levels of consecutive pieces of a trace, without what is the same in every segment.

    ``hours``, ``bars`` and ``age_hours`` (since the generation's first counted sample) are means of a piece, and
    ``megabytes`` is its median. ``begins`` are the indices at which generations begin. ``samples`` counted.
    """

    hours: Floats
    bars: Floats
    megabytes: Floats
    age_hours: Floats
    begins: Integers
    samples: int

    def __len__(self) -> int:
        return len(self.hours)

    @property
    def ends(self) -> Integers:
        """The index after the last piece of each generation."""
        return np.append(self.begins, len(self))[1:]

    @property
    def hours_counted(self) -> float:
        """The time between first and last piece, over all generations."""
        return float(np.sum(self.hours[self.ends - 1] - self.hours[self.begins]))

    @property
    def bars_counted(self) -> float:
        """The bars between first and last piece, over all generations."""
        return float(np.sum(self.bars[self.ends - 1] - self.bars[self.begins]))


def pieces_of(trace: Trace) -> Pieces:
    """Cut a trace into pieces of whole segments.

    Memory that saws within a segment is compared at equal phases: the phases' effects come out by median polish
    (Tukey, Exploratory Data Analysis, 1977). A slope within the segments comes out with them; what remains of a slope
    is that from segment to segment. Spikes shorter than half a piece leave its median alone. Generations of fewer than
    three segments after warm-up do not count.
    """
    trace = trace.at(np.isfinite(trace.megabytes))
    if len(trace.hours) == 0:
        nothing = np.empty(0)
        return Pieces(nothing, nothing, nothing, nothing, np.empty(0, dtype=np.int64), 0)
    settled = _settled(trace)
    trace = trace.at(settled)
    changes = np.diff(trace.generation) != 0
    generation = _numbered(changes)
    segment = _numbered(changes | (np.diff(trace.phase) <= 0))
    level = _without_phases(trace, segment)
    piece_of_segment, segments_counted = _pieces_of_segments(generation[_firsts(segment)], len(trace.hours))
    piece = piece_of_segment[segment]
    counted = segments_counted[segment]
    piece, generation, level, trace = piece[counted], generation[counted], level[counted], trace.at(counted)
    if len(piece) == 0:
        nothing = np.empty(0)
        return Pieces(nothing, nothing, nothing, nothing, np.empty(0, dtype=np.int64), 0)
    hours = _means(trace.hours, piece)
    of_generation = generation[_firsts(piece)]
    begins = _firsts(of_generation)
    began = np.repeat(trace.hours[_firsts(generation)], np.diff(np.append(begins, len(hours))))
    return Pieces(hours, _means(trace.bars, piece), _medians(level, piece), hours - began, begins, len(piece))


def _settled(trace: Trace) -> NDArray[np.bool_]:
    # Spans the bounds of warm-up: most processes settle within minutes, and what settles slowly, settles in proportion.
    generation = _numbered(np.diff(trace.generation) != 0)
    begins = _firsts(generation)
    began = trace.hours[begins]
    lasted = trace.hours[np.append(begins[1:], len(generation)) - 1] - began
    warm_up = np.minimum(np.maximum(WARM_UP_SHARE * lasted, WARM_UP_MIN_HOURS), 0.5 * lasted)
    return np.asarray(trace.hours - began[generation] >= warm_up[generation])


def _without_phases(trace: Trace, segment: Integers) -> Floats:
    _, phase = np.unique(trace.phase, return_inverse=True)
    effect = np.zeros(phase.max() + 1)
    if len(effect) == 1:
        return trace.megabytes
    for _ in range(2):
        level = _medians(trace.megabytes - effect[phase], segment)
        effect = _medians(trace.megabytes - level[segment], phase)
    return np.asarray(trace.megabytes - effect[phase])


def _pieces_of_segments(generation: Integers, samples: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Number of the piece for each segment, and whether the segment counts; ``generation`` is that of each segment."""
    segments = np.bincount(generation)
    counts = segments >= _ROWS_MIN
    wanted = min(_PIECES, max(12, samples // _SAMPLES_PER_PIECE))
    least = int(np.clip(_PIECES_MAX // max(1, int(np.sum(counts))), _ROWS_MIN, _PIECES_PER_GENERATION))
    share = np.round(wanted * segments / len(generation)).astype(np.int64)
    pieces = np.where(counts, np.minimum(segments, np.maximum(least, share)), 0)
    offset = np.cumsum(pieces) - pieces
    within = np.arange(len(generation)) - _firsts(generation)[generation]
    piece = offset[generation] + within * pieces[generation] // segments[generation]
    return piece, counts[generation]


def _numbered(changes: NDArray[np.bool_]) -> Integers:
    return np.concatenate([[0], np.cumsum(changes)]).astype(np.int64)


def _firsts(numbers: Integers) -> Integers:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.concatenate([[True], np.diff(numbers) != 0]))


def _means(values: Floats, group: Integers) -> Floats:
    return np.asarray(np.bincount(group, values) / np.bincount(group))


def _medians(values: Floats, group: Integers) -> Floats:
    """Of each group; none is empty."""
    # One sort of numbers in the place of one by two keys, ten times as fast: each group gets a range of its own.
    low, apart = values.min(), 2.0 * np.ptp(values) + 1.0
    ordered = np.sort(values - low + apart * group)
    count = np.bincount(group)
    begin = np.cumsum(count) - count
    middle = 0.5 * (ordered[begin + (count - 1) // 2] + ordered[begin + count // 2])
    return np.asarray(middle - apart * np.arange(len(count)) + low)
