"""Ring buffers, accepted and rejected bars, and contexts that never see the future."""

from __future__ import annotations

import dataclasses
import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.config import RegimeConfig
from regime.serving.ahead import contexts
from regime.signal import Reason
from regime.window import BarInput, BarWindow, RingBuffer
from tests.regime.streams import HOUR_NS, HOUR_S, ScriptedForecaster, bars, detector, shifted


@given(st.integers(1, 20), st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(0, 25))
def test_a_ring_buffer_holds_what_a_bounded_deque_holds(capacity: int, values: list[float], last: int) -> None:
    ring, reference = RingBuffer(capacity), deque[float](maxlen=capacity)
    for value in values:
        ring.append(value)
        reference.append(value)
        assert ring.newest == value
    assert list(ring.view()) == list(reference)
    assert list(ring.view(last)) == list(reference)[max(0, len(reference) - last) :]
    assert ring.view().flags.c_contiguous


def test_a_ring_buffer_never_grows() -> None:
    ring = RingBuffer(8)
    base = ring.view().base
    assert base is not None
    for value in range(1000):
        ring.append(float(value))
    assert ring.view().base is base


GOOD = BarInput(1_000 * HOUR_NS, 10.0, 11.0, 9.0, 10.5, 0.0)


def test_zero_volume_is_fine() -> None:
    assert BarWindow(RegimeConfig(), HOUR_S).accept(GOOD) is None


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("close", math.nan, "NaN"),
        ("open", math.inf, "infinite"),
        ("volume", math.nan, "NaN"),
        ("low", 0.0, "zero or negative"),
        ("low", -1.0, "zero or negative"),
        ("volume", -1.0, "volume"),
        ("high", 10.2, "inconsistent"),
        ("low", 10.2, "inconsistent"),
    ],
)
def test_an_impossible_bar_is_rejected_with_its_reason(field: str, value: float, why: str) -> None:
    window = BarWindow(RegimeConfig(), HOUR_S)
    found = window.accept(dataclasses.replace(GOOD, **{field: value}))
    assert found is not None
    assert why in found
    assert window.usable_bars == 0


def test_duplicates_and_bars_out_of_order_are_rejected() -> None:
    window = BarWindow(RegimeConfig(), HOUR_S)
    window.accept(GOOD)
    assert window.accept(GOOD) == "duplicate of the bar before"
    assert window.accept(shifted(GOOD, -1)) == "out of order"
    assert window.accept(shifted(GOOD, 1)) is None


def test_a_clock_that_went_back_is_believed_after_as_many_bars_as_make_a_window_unusable() -> None:
    stream, config = bars(40), RegimeConfig()
    window = BarWindow(config, HOUR_S)
    for bar in stream:
        window.accept(bar)
    found = [window.accept(shifted(bar, -30)) for bar in bars(50)[40:]]
    assert found == ["out of order"] * config.max_rejects + [None] * (10 - config.max_rejects)
    assert (window.usable_bars, window.restart) == (10 - config.max_rejects, Reason.CLOCK_JUMP)


def test_one_stamp_in_the_far_future_does_not_end_the_run() -> None:
    window = BarWindow(RegimeConfig(), HOUR_S)
    window.accept(GOOD)
    assert window.accept(shifted(GOOD, 24 * 400)) is None
    assert [window.accept(shifted(GOOD, hours)) for hours in range(1, 6)][-2:] == [None, None]


def test_old_bars_that_come_in_no_order_are_never_believed() -> None:
    window = BarWindow(RegimeConfig(), HOUR_S)
    window.accept(GOOD)
    assert {window.accept(shifted(GOOD, -hours)) for hours in range(1, 20)} == {"out of order"}
    assert {window.accept(shifted(GOOD, -5)) for _ in range(20)} == {"out of order"}


def test_a_return_across_a_gap_never_enters_a_context() -> None:
    stream = bars(60)
    jumped = [dataclasses.replace(bar, ts_ns=bar.ts_ns + 100 * HOUR_NS) for bar in bars(100)[60:]]
    window = BarWindow(RegimeConfig(), HOUR_S)
    for bar in stream + jumped:
        window.accept(bar)
    known = window.context()[~np.isnan(window.context())]
    assert len(known) == len(jumped) - 1


def test_a_context_is_padded_with_nan_on_the_left() -> None:
    window = BarWindow(RegimeConfig(), HOUR_S)
    stream = bars(40)
    for bar in stream:
        window.accept(bar)
    context = window.context()
    assert context.shape == (512,)
    assert np.isnan(context[: 512 - 39]).all()
    returns = np.diff(np.log([bar.close for bar in stream]))
    np.testing.assert_allclose(context[512 - 39 :], returns, rtol=1e-6)


def test_contexts_made_ahead_are_those_the_detector_asks_for() -> None:
    stream = bars(120)
    stream[50] = dataclasses.replace(stream[50], close=math.nan)
    stream[80:] = [shifted(bar, 40) for bar in stream[80:]]
    forecaster = ScriptedForecaster()
    subject = detector(forecaster)
    for bar in stream:
        subject.step(bar)
    ahead = list(contexts(stream, RegimeConfig(), HOUR_S))
    assert len(ahead) == len(forecaster.contexts) > 50
    np.testing.assert_array_equal(np.stack(ahead), np.stack(forecaster.contexts))


@given(st.integers(40, 90), st.integers(0, 2**31))
def test_no_context_reaches_past_its_bar(cut: int, seed: int) -> None:
    past = bars(cut, seed=3)
    rng = np.random.default_rng(seed)
    factor = float(np.exp(rng.normal()))
    future = [
        BarInput(bar.ts_ns, bar.open * factor, bar.high * factor, bar.low * factor, bar.close * factor, 1.0)
        for bar in bars(100, seed=seed % 1000)[cut:]
    ]
    alone = list(contexts(past, RegimeConfig(), HOUR_S))
    with_future = list(contexts(past + future, RegimeConfig(), HOUR_S))
    np.testing.assert_array_equal(np.stack(alone), np.stack(with_future[: len(alone)]))
