"""Windows follow each other, apart by an embargo, and none reaches into what it learns from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError, OptionError
from sage.sweep.windows import TEST_BARS_MIN, WindowConfig, windows_of


@given(
    bars=st.integers(50, 5_000), train=st.integers(1, 2_000), test=st.integers(20, 1_000), horizon=st.integers(1, 64),
    more=st.integers(0, 50), rolling=st.booleans(),
)  # fmt: skip
def test_windows_are_apart_and_whole(bars: int, train: int, test: int, horizon: int, more: int, rolling: bool) -> None:
    embargo = horizon + more
    config = WindowConfig(train, test, rolling, embargo)
    if bars < train + embargo + test:
        with pytest.raises(DataError, match="too few"):
            windows_of(bars, config, horizon, "X")
        return
    found = windows_of(bars, config, horizon, "X")
    assert found[0].start == train + embargo and found[-1].stop <= bars
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    for one in found:
        assert one.first == (one.start - embargo - train if rolling else 0)
    assert all(one.stop - one.start == test for one in found[:-1])
    for one, other in pairwise(found):
        assert other.start - one.stop == embargo
    # Nothing is left over: a rest is a window of its own if it is half of one, else the end of the last.
    assert found[-1].stop == bars
    assert found[-1].stop - found[-1].start >= max(TEST_BARS_MIN, test / 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WindowConfig(100, 10), "--test-bars 10"),
        (WindowConfig(0, 100), "--train-bars 0"),
        (WindowConfig(100, 100, embargo_bars=5), "--embargo-bars 5: must be 16 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(config: WindowConfig, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        windows_of(1_000, config, 16, "X")


def test_windows_longer_than_the_data_say_how_many_bars_they_take() -> None:
    with pytest.raises(
        DataError, match=r"X: 1,000 bars are too few: 900 to learn from, an embargo of 16 .* make 1,016"
    ):
        windows_of(1_000, WindowConfig(900, 100), 16, "X")
