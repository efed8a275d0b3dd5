"""The report of a soak, on journals that were made up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sage.percentiles import EDGES_S
from stress.soak.record import Record
from stress.soak.report import COLUMNS, growth_rows, page
from stress.soak.verdict import assess
from tests.stress.soak.test_verdict import LIMITS, journal, pinned


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


def test_a_run_too_short_to_find_a_leak_says_so_for_every_process() -> None:
    assessment = assess(Record.of(list(journal())[:40]))
    smallest = COLUMNS.index("smallest leak")
    assert {row[smallest] for row in growth_rows(assessment)} == {"none of any size"}
    told = [check.told for check in assessment.checks if check.name.startswith("memory of")]
    assert len(told) == 3 and all("it could have found no leak of any size" in one for one in told)
