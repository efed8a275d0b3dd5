"""Leaks on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import OptionError
from stress.misbehaviour import Control, Misbehaviour
from stress.soak.plants import MB, Plant, Planter

ROOT = Path(__file__).parent.parent.parent.parent


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("text", ["native@trading=500", "files@trading=10", "native@model=2.5"])
def test_a_plant_reads_as_it_is_written(text: str) -> None:
    assert str(Plant.parse(text)) == text


@pytest.mark.parametrize("text", ["native", "gold@trading=5", "native@control=5", "native@trading=0", "cache@model=5"])
def test_what_is_no_plant_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--plant"):
        Plant.parse(text)


LEAKING = """
import sys
import psutil
from stress.misbehaviour import Control
from stress.soak.plants import Plant, Planter
now = [0.0]
planter = Planter((Plant.parse(sys.argv[1]),), Control(), lambda: now[0])
before = psutil.Process().memory_info().rss
for _ in range(50):
    now[0] += 1.0
    planter.between_bars()
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


@pytest.mark.parametrize("kind", ["native", "cache", "objects"])
def test_memory_is_held_at_the_rate_that_was_asked_for(kind: str) -> None:
    # In a process of its own, which has nothing to use again.
    command = [sys.executable, "-c", LEAKING, f"{kind}@trading=3600"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 45 < float(done.stdout) < 65  # a megabyte a second


def held() -> set[int]:
    """Descriptors of this process."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def test_file_descriptors_are_held_one_by_one(clock: Clock) -> None:
    control = Control()
    planter = Planter((Plant.parse("files@trading=3600"),), control, clock)
    before = held()
    for _ in range(8):
        clock.now_s += 0.5
        planter.between_bars()
    opened = held() - before
    for descriptor in opened:
        os.close(descriptor)
    control.close()
    assert len(opened) == 4


def test_the_model_is_told_how_much_to_hoard_with_its_next_answer(clock: Clock) -> None:
    control = Control()
    planter = Planter((Plant.parse("native@model=3600"),), control, clock)
    clock.now_s = 2.0
    planter.between_bars()
    told = control.get()
    control.close()
    assert told == (Misbehaviour.HOARD, 2.0 * MB)
