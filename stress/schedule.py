"""A schedule of faults: which, from which bar on, for how many bars; made at random, written down, and shrunk.

``model.hang@120+40,data.nan@130+2`` is the text of one: names of faults, each with its first bar (from 1) and its
length. Together with the seed it says all that a run depends on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.errors import OptionError

_PLANTED = re.compile(r"(?P<name>[a-z0-9._-]+)@(?P<at>\d+)\+(?P<bars>\d+)")


@dataclass(frozen=True, order=True)
class Planted:
    """One fault of a schedule: active on ``bars`` bars from bar ``at`` on, counted from 1."""

    at: int
    bars: int
    name: str

    @property
    def end(self) -> int:
        """The first bar that it does not concern."""
        return self.at + self.bars

    def __str__(self) -> str:
        return f"{self.name}@{self.at}+{self.bars}"


@dataclass(frozen=True)
class Schedule:
    """What is to go wrong, in the order in which it begins; ``seed`` drives market, machine and faults."""

    seed: int
    planted: tuple[Planted, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.planted))

    @property
    def end(self) -> int:
        """The first bar after the last fault."""
        return max((planted.end for planted in self.planted), default=1)


def check_seed(seed: int) -> None:
    """Raise OptionError for a seed that is none."""
    if seed < 0:
        raise OptionError(f"--seed {seed}: must not be negative")


def parse_schedule(text: str, seed: int, known: Sequence[str], bars: int) -> Schedule:
    """Read a schedule's text.

    Raises
    ------
    OptionError
        If it does not read so, a fault is unknown, or one lies outside of the run's ``bars``.
    """
    check_seed(seed)
    planted = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _PLANTED.fullmatch(part)
        if found is None:
            raise OptionError(f"--schedule {part!r}: write fault@bar+bars, such as model.raises@120+40")
        name, at, length = found["name"], int(found["at"]), int(found["bars"])
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            told = f"near it: {', '.join(near)}" if near else "sage inject-fault --list names them all"
            raise OptionError(f"--schedule {part}: no fault {name!r} that a schedule can hold; {told}")
        if not (1 <= at <= bars and 1 <= length <= bars):
            raise OptionError(f"--schedule {part}: must begin at bar 1 to {bars}, and last 1 to {bars} bars")
        planted.append(Planted(at, length, name))
    if not planted:
        raise OptionError(f"--schedule {text!r}: names no fault; write fault@bar+bars, such as model.raises@120+40")
    return Schedule(seed, tuple(sorted(planted)))


def random_schedule(seed: int, lengths: Mapping[str, int], until: int, most: int = 5) -> Schedule:
    """One to ``most`` faults, mostly overlapping.

    Parameters
    ----------
    seed
        Of the schedule and all that it drives.
    lengths
        The longest that each fault may last, in bars.
    until
        All faults end before this bar.
    most
        As many faults at once.
    """
    rng = np.random.default_rng([seed, 0])
    names = sorted(lengths)
    planted: list[Planted] = []
    # One time in four anywhere, warm-up included; else near the fault before, so that they meet.
    centre = int(rng.integers(2, until))
    for _ in range(int(rng.integers(1, most + 1))):
        name = names[int(rng.integers(len(names)))]
        longest = min(lengths[name], until - 2)
        length = 1 + int(rng.integers(longest)) if rng.random() < 0.5 else 1 + int(rng.integers(min(4, longest)))
        at = int(rng.integers(1, until)) if rng.random() < 0.25 else centre + int(rng.integers(-20, 21))
        candidate = Planted(min(max(at, 1), until - length), length, name)
        # A fault cannot begin while it is on.
        if all(other.name != name or other.end < candidate.at or candidate.end < other.at for other in planted):
            planted.append(candidate)
    return Schedule(seed, tuple(sorted(planted)))


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool], tries: int = 200) -> Schedule:
    """The smallest schedule found that still fails: fewer faults first, then shorter, then earlier ones.

    Parameters
    ----------
    schedule
        One that fails.
    fails
        Runs a schedule; true where it fails as the first one did.
    tries
        So many runs at most.
    """
    left = tries
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in _smaller(schedule):
            if left == 0:
                break
            left -= 1
            if fails(candidate):
                schedule, smaller = candidate, True
                break
    return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules that are a little smaller, the smallest first."""
    planted = schedule.planted
    count = len(planted)
    parts = 2
    while parts <= 2 * count and count > 0:
        # Without one half, one quarter ... one fault.
        size = max(1, count // parts)
        for start in range(0, count, size):
            yield replace(schedule, planted=planted[:start] + planted[start + size :])
        if size == 1:
            break
        parts *= 2
    for index, one in enumerate(planted):
        shorter = sorted({1, one.bars // 2, one.bars - 1} - {0, one.bars})
        earlier = sorted({1, one.at // 2, one.at - 1} - {0, one.at})
        for changed in [*(replace(one, bars=bars) for bars in shorter), *(replace(one, at=at) for at in earlier)]:
            yield replace(schedule, planted=tuple(sorted((*planted[:index], changed, *planted[index + 1 :]))))
