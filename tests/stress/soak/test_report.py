"""The report of a soak, on journals that were made up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sage.percentiles import EDGES_S
from stress.soak.record import Record
from stress.soak.report import page
from stress.soak.verdict import assess
from tests.stress.soak.test_verdict import LIMITS, pinned


def minutes(answers: int, count: int = 5) -> Iterator[dict[str, Any]]:
    """A soak of some minutes in which so many answers came, at once."""
    yield {"kind": "soak", "at_s": 0.0, "limits": LIMITS, "faults": "none", "config": pinned(None)}
    latency = {"answers": answers, "p50": None, "p99": None, "buckets": [answers] * len(EDGES_S)}
    for number in range(count):
        yield {"kind": "minute", "at_s": 60.0 * (number + 1), "latency": latency}


def drawn(lines: Iterator[dict[str, Any]]) -> str:
    record = Record.of(lines)
    return page(record, assess(record))


@pytest.mark.parametrize("count", [0, 5])
def test_where_no_minute_has_an_answer_the_panel_of_latencies_says_so(count: int) -> None:
    assert "none with an answer in it is over yet" in drawn(minutes(0, count))
    assert "none with an answer in it is over yet" not in drawn(minutes(1))
