"""A trading process is replaced when it is too large, or when memory is short and a new one would be smaller."""

from __future__ import annotations

import pytest

from sage.processes import MachineSample, ProcessSample
from stress.soak.size import MB, Size


def sample(megabytes: float, used: float = 0.5) -> MachineSample:
    size = int(megabytes * MB)
    one = ProcessSample("trading", 7, size, size, 0, 1, 1, 0.0)
    other = ProcessSample("control", 8, 10 * size, size, 0, 1, 1, 0.0)
    return MachineSample(0.0, (one, other), int(used * 1000), 1000)


def test_one_that_has_come_to_the_limit_is_too_large() -> None:
    size = Size(1000.0)
    assert not size.too_large(sample(999.0), 7)
    assert "come to 1,001 MB" in size.too_large(sample(1001.0), 7)


@pytest.mark.parametrize(("grown", "too_large"), [(0.0, False), (99.0, False), (101.0, True)])
def test_where_others_take_the_memory_it_is_not_replaced_again_and_again(grown: float, too_large: bool) -> None:
    size = Size(1000.0)
    assert not size.too_large(sample(400.0, used=0.9), 7)
    assert bool(size.too_large(sample(400.0 + grown, used=0.9), 7)) is too_large


def test_what_is_not_known_is_no_reason() -> None:
    size = Size(50.0)
    assert not size.too_large(None, 7) and not size.too_large(sample(999.0), 99)
