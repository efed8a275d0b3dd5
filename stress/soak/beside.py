"""A system that has gone on for hours beside one that has just begun: is it slower?

The speed of a shared machine wanders by more in an hour than the drift that is looked for, and one process alone cannot
tell the one from the other. Two that play the same segments by turns have whatever the machine does in common.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from stress.soak.messages import Play, Played
from stress.soak.staff import Worker, WorkerDied, raise_if_failed

PAIRS, PAIRS_MIN = 8, 4
SHARE = 0.2
"""Of the time that the trading process has gone on for, so much may go into the comparison."""

AGED_MIN_S = 600.0
"""A process that has gone on for less has not aged."""

_LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """One segment played by both: the medians of the time of an answer, in milliseconds."""

    segment: int
    aged_ms: float
    fresh_ms: float


@dataclass(frozen=True)
class Slower:
    """By how much more, relatively, the one takes than the other, with the bounds of its 95 % interval."""

    estimate: float
    lower: float
    upper: float
    pairs: int


def pairs_for(age_s: float, segment_s: float) -> int:
    """How many pairs of segments are worth their time; none where the process has not gone on for long."""
    if age_s < AGED_MIN_S:
        return 0
    pairs = int(SHARE * age_s / (2.0 * max(segment_s, 1e-9))) - 1  # in the first segment the new one warms up
    return min(PAIRS, pairs) if pairs >= PAIRS_MIN else 0


def by_turns(
    aged: Worker,
    fresh: Worker,
    inbox: queue.SimpleQueue[tuple[Worker, Any]],
    first: int,
    pairs: int,
    silent_max_s: float,
    look_around: Callable[[], None],
) -> Iterator[Pair]:
    """Have both play the segments from ``first`` on, one more than ``pairs``; the new one warms up in the first.

    One waits while the other plays, and each is as often the first of a pair. Who says nothing for ``silent_max_s``
    seconds while it plays is ended. ``look_around`` is called at least once a second.

    Raises
    ------
    WorkerDied, WorkerFailed, OptionError, DataError, ModelUnavailable, UserCodeRaised
        As a worker tells.
    """
    for number in range(pairs + 1):
        took_ms: dict[Worker, float | None] = {}
        for worker in (fresh, aged) if number % 2 else (aged, fresh):
            worker.heard_at = time.monotonic()
            worker.tell(Play(first + number, sampled=False))
            while not isinstance(message := _message(worker, (aged, fresh), inbox, silent_max_s), Played):
                look_around()
            took_ms[worker] = message.median_ms
        aged_ms, fresh_ms = took_ms[aged], took_ms[fresh]
        if number and aged_ms and fresh_ms:
            yield Pair(first + number, aged_ms, fresh_ms)


def _message(
    playing: Worker,
    both: tuple[Worker, Worker],
    inbox: queue.SimpleQueue[tuple[Worker, Any]],
    silent_max_s: float,
) -> object | None:
    """What the one that plays says next, None for nothing in a second. Raises what has gone wrong with either."""
    if time.monotonic() - playing.heard_at > silent_max_s:
        playing.kill()
        raise WorkerDied(playing.role, playing.exit_code)
    try:
        speaker, message = inbox.get(timeout=1.0)
    except queue.Empty:
        return None
    if speaker in both:
        # The one that waits may die, too, and would not be heard of again.
        raise_if_failed(speaker, message)
    return message if speaker is playing else None


def slower(aged_ms: Sequence[float], fresh_ms: Sequence[float]) -> Slower | None:
    """Student's interval for the mean logarithm of the ratios, pair by pair; None for fewer than PAIRS_MIN."""
    count = len(aged_ms)
    if count < PAIRS_MIN:
        return None
    logs = np.log(np.asarray(aged_ms) / np.asarray(fresh_ms))
    half = float(student.ppf(0.5 + _LEVEL / 2, count - 1) * logs.std(ddof=1) / np.sqrt(count))
    mean = float(logs.mean())
    lower, estimate, upper = np.expm1([mean - half, mean, mean + half])
    return Slower(float(estimate), float(lower), float(upper), count)
