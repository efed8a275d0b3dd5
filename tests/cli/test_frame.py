"""The picture of a run: never too wide, always as high, and with the figures in it."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cli.frame import ROWS_MAX, ROWS_MIN, Picture, Stage, frame, plain_line, seconds_left
from cli.pen import Curve, Pen, resampled
from regime.alerts import Alert, Severity
from sage.vitals import Vitals
from tests.sage.vitals import busy

counts = st.integers(0, 10**12)
figures = st.floats(-1e15, 1e15)
names = st.text(max_size=12)
alerts = st.builds(
    Alert, st.integers(0, 4 * 10**18), names, st.sampled_from(Severity), st.booleans(), st.text(max_size=90)
)
vitals = st.builds(
    lambda **changes: dataclasses.replace(busy(), **changes),
    bars=counts,
    bars_total=st.none() | counts,
    seconds_total=st.none() | st.floats(0, 1e8),
    bars_per_s=st.floats(0, 1e9),
    levels=st.dictionaries(names, counts, max_size=6),
    reasons=st.dictionaries(names, counts, max_size=8),
    level=names,
    breaker=names,
    queue_bars=counts,
    coverage=st.none() | st.floats(0, 1),
    drifted=st.tuples(names, names),
    equity=figures,
    drawdown=st.floats(0, 1),
    exposure=figures,
    alerts=st.lists(alerts, max_size=9).map(tuple),
    machine=st.none() | st.just(busy().machine),
)


def picture(shown: Vitals, points: int = 0) -> Picture:
    found = Picture("SAGE backtest", shown, Stage("trading", 3.0, 8.0), 300.0)
    for point in range(points):
        for curve in (found.memory, found.equity, found.speed, found.p99):
            curve.add(1e8 + 1e6 * (point % 13))
    return found


@settings(max_examples=40)
@given(vitals, st.integers(0, 600), st.integers(1, 250), st.integers(1, 60), st.booleans())
def test_no_line_is_wider_and_no_picture_higher_than_the_terminal(
    shown: Vitals, points: int, width: int, height: int, ascii_only: bool
) -> None:
    lines = frame(picture(shown, points), width, height, ascii_only=ascii_only)
    assert len(lines) == min(height, max(ROWS_MIN, min(height, ROWS_MAX)))
    assert max(cell_len(line.plain) for line in lines) <= width
    assert all(line.plain.isprintable() for line in lines)


def text_of(shown: Picture, width: int = 79, height: int = 22, *, ascii_only: bool = False) -> str:
    return "\n".join(line.plain for line in frame(shown, width, height, ascii_only=ascii_only))


@pytest.mark.parametrize(("width", "height"), [(79, 22), (139, 38)])
def test_everything_that_is_known_is_to_be_seen(width: int, height: int) -> None:
    text = text_of(picture(busy(), 50), width, height)
    told = [
        "20,010 of 240,000", "67/s", "10 rejected", "1 waiting", "0:55:00 left", "8 %",
        "FULL 95.0", "SMART 5.0", "TIMEOUT 600", "BREAKER_OPEN 400", "SMART for a fault, 12 bars in a row",
        "breaker half-open (openings 3)", "restarts 2", "recycled 1", "20.02", "4,000 answers", "20,000 answers",
        "target 50", "trading 157", "model 157", "22 % of 4,295 MB", "now 629 MB", "▁", "█",
        "91.0 % of late, nominal 90.0 %", "worse than a baseline", "drift errors",
        "101,000.00", "drawdown 2.0 %", "exposure -0.40", "345 orders", "model.breaker: the breaker is half-open",
        "drift.errors: the index is 0.4",
    ]  # fmt: skip
    assert [figure for figure in told if figure not in text] == []


def test_a_large_terminal_shows_each_process_and_the_course_of_the_run() -> None:
    text = text_of(picture(busy(), 50), 139, 38)
    for label in ("processes", "bars/s", "p99 ms"):
        assert label in text
        assert label not in text_of(picture(busy(), 50)).replace("latency   ms", "")


def test_while_bars_come_the_run_is_trading_whatever_came_before_them() -> None:
    shown = picture(busy())
    shown.stage = Stage("starting the model process", 0.0, 1.0)
    assert text_of(shown).splitlines()[1].startswith("trading")
    shown.vitals = dataclasses.replace(busy(), bars=240_000, elapsed_s=3_600.0)
    shown.stage = Stage("writing the report", 0.0, 1.0)
    assert text_of(shown).splitlines()[1].startswith("writing the report")
    assert "left" not in text_of(shown)


def test_before_the_first_bar_the_stage_is_shown_and_no_figure_made_up() -> None:
    shown = Picture("SAGE backtest", stage=Stage("forecasting ahead", 1_969.0, 7_969.0))
    text = text_of(shown)
    assert "forecasting ahead" in text
    assert "25 %  1,969 of 7,969" in text
    assert "equity    –" in text
    assert "healthy" not in text


def test_late_signals_and_alerts_that_matter_are_red() -> None:
    late = dataclasses.replace(busy(), target_ms=10.0)
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as drawn:
        for line in frame(picture(late), 99, 22):
            console.print(line)
    red = [line for line in drawn.get().splitlines() if "\x1b[1;31m" in line]
    for word in ("minute", "in all", "half-open", "baseline", "HIGH"):
        assert any(word in line for line in red), word
    assert not any("MEDIUM" in line for line in red)


def test_where_no_block_characters_can_be_shown_there_are_none() -> None:
    text_of(picture(busy(), 300), 139, 38, ascii_only=True).encode("ascii")


def test_a_run_in_which_nothing_comes_says_for_how_long() -> None:
    shown = picture(busy())
    assert "none for" not in text_of(shown)
    shown.silent_s = 12.3
    assert "none for 12 s" in text_of(shown)
    assert "no bar for 12 s" in plain_line(shown)
    shown.vitals = dataclasses.replace(busy(), bars=240_000, elapsed_s=3_600.0)
    assert "none for" not in text_of(shown)


def test_more_alerts_than_there_is_room_for_are_counted() -> None:
    many = tuple(Alert(1, f"rule.{number}", Severity.MEDIUM, True, "too much") for number in range(12))
    high = Alert(2, "model.health", Severity.HIGH, True, "worse")
    text = text_of(picture(dataclasses.replace(busy(), alerts=(*many, high))))
    shown = text.count("too much")
    assert f"and {12 - shown} more" in text
    assert text.index("model.health") < text.index("rule.0")


def test_alerts_that_went_stand_below_those_that_are_on() -> None:
    shown = picture(busy())
    shown.changes = (Alert(3, "drift.returns", Severity.MEDIUM, False, "the index was 0.3"),)
    text = text_of(shown)
    assert text.index("drift.errors") < text.index("cleared")
    assert "drift.returns" in text


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        (Vitals(bars=10, bars_total=110, bars_per_s=5.0), 20.0),
        (Vitals(bars=10, seconds_total=60.0, elapsed_s=15.0), 45.0),
        (Vitals(bars=10, bars_total=110), None),
        (Vitals(bars=10, bars_per_s=5.0), None),
    ],
)
def test_the_time_that_is_left_comes_from_bars_or_from_the_clock(shown: Vitals, left: float | None) -> None:
    assert seconds_left(shown) == left


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=3_000), st.integers(2, 64))
def test_a_curve_keeps_its_memory_small_and_its_course(values: list[float], capacity: int) -> None:
    curve = Curve(capacity)
    for value in values:
        curve.add(value)
    assert len(curve.points) < capacity
    where = iter(values)
    assert all(point in where for point in curve.points), "out of order, or never there"
    if len(values) < capacity:
        assert curve.points == values
    # Whatever comes later, a peak is not forgotten.
    for value in [2e12, *values, 0.0]:
        curve.add(value)
    assert max(curve.points) == 2e12


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=500), st.integers(1, 80))
def test_a_peak_is_not_lost_where_a_curve_is_narrow(points: list[float], width: int) -> None:
    drawn = resampled(points, width)
    assert len(drawn) <= width
    assert max(drawn) == max(points)


def test_what_is_no_number_spoils_no_curve() -> None:
    shown = picture(dataclasses.replace(busy(), equity=math.nan, exposure=math.inf), 5)
    for value in (math.nan, math.inf, -math.inf):
        shown.equity.add(value)
    assert len(shown.equity.points) == 5
    assert "nan" in text_of(shown, 139, 38)


def test_a_curve_that_hardly_moves_is_drawn_flat() -> None:
    pen = Pen(80, ascii_only=False)
    assert set(pen.sparkline([100.0, 100.1, 100.0, 100.2], 4)) == {"▁"}
    assert pen.sparkline([0.0, 50.0, 100.0], 3) == "▁▅█"
