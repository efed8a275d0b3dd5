"""The heap of a soak's workers: what is no leak does not look like one."""

from __future__ import annotations

import subprocess
import sys

import pytest

NAMES_COME_AND_GO = """
import sys
import psutil
import stress.soak.worker
from stress.soak.heap import make_room_for_names

if sys.argv[1] == "prepared":
    make_room_for_names()
process = psutil.Process()
largest, before = 0, process.memory_info().rss
for number in range(60_000):
    sys.intern(f"name-{number}")
    if number % 500 == 0:
        now = process.memory_info().rss
        largest, before = max(largest, now - before), now
print(largest)
"""


def largest_step(how: str) -> int:
    """Bytes by which memory grows at once while names come and go."""
    done = subprocess.run(
        [sys.executable, "-c", NAMES_COME_AND_GO, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 keeps every name for ever")
def test_names_that_come_and_go_make_no_step_in_a_worker() -> None:
    assert largest_step("as it is") > 1_500_000
    assert largest_step("prepared") < 300_000
