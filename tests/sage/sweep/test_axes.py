"""What a sweep varies is read from options and files alike, and what makes no sense is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import OptionError
from sage.sweep.axes import Axis, axis_of, parse_axis, points, require_varied


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("sizing.target_volatility=0.05,0.10", (0.05, 0.10)),
        ("seed=1,2,3", (1, 2, 3)),
        ("sizing.allow_short=true,false", (True, False)),
        ("model.name=embedded,/some/where", ("embedded", "/some/where")),
        ('ensemble.alphas=["trend"],["trend","carry"]', (["trend"], ["trend", "carry"])),
        ("x.y=0.05:0.25:5", (0.05, 0.1, 0.15, 0.2, 0.25)),
        ("seed=1:5:5", (1, 2, 3, 4, 5)),
        ("x.y=1e-3:1e-1:3:log", (0.001, 0.01, 0.1)),
    ],
)
def test_values_are_listed_or_spaced(text: str, values: tuple[Any, ...]) -> None:
    axis = parse_axis(text)
    assert axis.key == text.partition("=")[0] and not axis.is_random
    assert axis.values == values and [type(one) for one in axis.values] == [type(one) for one in values]


@pytest.mark.parametrize(
    ("given_", "values"),
    [([1, 2], (1, 2)), ({"from": 0.0, "to": 1.0, "count": 3}, (0, 0.5, 1)), (0.3, (0.3,))],
)
def test_a_file_says_the_same(given_: Any, values: tuple[Any, ...]) -> None:
    assert axis_of("x.y", given_).values == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write KEY=VALUES"),
        ("=1", "write KEY=VALUES"),
        ("x.y=1,2,1", "1 is there twice"),
        ("x.y=1,1.0", "1 is there twice"),
        ("x.y=2~1", "2 must be below 1"),
        ("x.y=0~1:log", "no logarithm"),
        ("x.y=1:2:1", "must be 2 to"),
        ("x.y=1:2:3.5", "3.5 values"),
        ("x.y=a~b", "two numbers"),
        ("x.y=1,2:log", "log goes with"),
        ("x.y=0.1:0.2", "FROM:TO:COUNT"),
    ],
)
def test_what_does_not_read_so_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_axis(text)


@pytest.mark.parametrize(
    "given_", [{"from": 1}, {"from": 1, "to": 2}, {"from": 1, "to": 2, "count": 3, "random": True}, {"a": 1}]
)
def test_a_table_that_is_no_range_is_refused(given_: Any) -> None:
    with pytest.raises(OptionError, match=r"x\.y"):
        axis_of("x.y", given_)


@pytest.mark.parametrize(
    ("axes", "draws", "message"),
    [
        ((Axis("a.b", (1,)), Axis("a.b", (2,))), 0, "there twice"),
        ((Axis("a.b", ()),), 0, "no values"),
        ((Axis("data.instrument", ("X",)),), 0, "not for a sweep"),
        ((Axis("walk_forward.folds", (2,)),), 0, "not for a sweep"),
        ((Axis("a.b", span=(0.0, 1.0)),), 0, "--draws N"),
        ((Axis("a.b", (1,)),), 3, "no axis is drawn"),
    ],
)
def test_axes_that_make_no_plan_are_refused(axes: tuple[Axis, ...], draws: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        require_varied(axes, draws)


@given(
    low=st.floats(1e-6, 1.0), width=st.floats(1e-3, 10.0), logarithmic=st.booleans(), draws=st.integers(1, 20),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_draws_lie_within_their_span_and_are_the_same_for_the_same_seed(
    low: float, width: float, logarithmic: bool, draws: int, seed: int
) -> None:
    axes = [Axis("a", (1, 2, 3)), Axis("b", span=(low, low + width), logarithmic=logarithmic)]
    found = points(axes, draws, seed)
    assert found == points(axes, draws, seed)
    assert len(found) == 3 * draws
    assert all(low * (1 - 1e-12) <= one["b"] <= (low + width) * (1 + 1e-12) for one in found)
    # Each listed value meets the same draws: they can be compared.
    assert [one["b"] for one in found[:draws]] == [one["b"] for one in found[draws : 2 * draws]]
