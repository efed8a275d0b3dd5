"""The bars go wrong: values that cannot be, bars twice or too late, and markets that are none. Named ``data.*``.

NT refuses bars with impossible values and sorts them by time, so they are made between NT and the detector.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from regime.signal import Reason
from regime.window import BarInput
from stress.faults import bars
from stress.stage import BarFault, Failure, Fault, Stage

BAD_BARS = 2
"""Fewer in a row than make the window begin anew."""

_SPIKE = 10.0
_HOUR_S = 3600
_LATE_BARS = 2


def _fault(
    name: str,
    does: str,
    ends: str,
    failure: Failure,
    make: Callable[[Stage], BarFault],
    *,
    lasts_bars: int = BAD_BARS,
    reasons: frozenset[str] = frozenset(),
    window_lost: bool = False,
    strange_bars: bool = False,
) -> Fault:
    full_name = f"data.{name}"
    return Fault(
        name=full_name,
        does=does,
        ends=ends,
        failure=failure,
        begin=lambda stage: bars.add(stage, full_name, make(stage)),
        end=lambda stage: bars.remove(stage, full_name),
        lasts_bars=lasts_bars,
        reasons=reasons,
        window_lost=window_lost,
        strange_bars=strange_bars,
    )


def _bad(name: str, does: str, spoil: Callable[[BarInput], BarInput]) -> Fault:
    return _fault(
        name, does, "bars are good again", Failure.BAR_REJECTED, lambda stage: lambda bar: [spoil(bar)]  # noqa: ARG005
    )  # fmt: skip


def _times(bar: BarInput, factor: float) -> BarInput:
    return dataclasses.replace(
        bar, open=bar.open * factor, high=bar.high * factor, low=bar.low * factor, close=bar.close * factor
    )


def _late(stage: Stage) -> BarFault:
    shift_ns = _LATE_BARS * stage.bar_seconds * 1_000_000_000
    return lambda bar: [bar, dataclasses.replace(bar, ts_ns=bar.ts_ns - shift_ns)]


def _gap(stage: Stage) -> BarFault:
    seen = 0

    def rarely(bar: BarInput) -> list[BarInput]:
        """One bar arrives, and before it more are missing than a window can bridge."""
        nonlocal seen
        seen += 1
        return [bar] if seen % (stage.detector.config.max_gap_bars + 2) == 0 else []

    return rarely


def _frozen(stage: Stage) -> BarFault:
    price = stage.detector.state.window.last_close

    def stand_still(bar: BarInput) -> list[BarInput]:
        nonlocal price
        price = price if math.isfinite(price) else bar.close
        return [dataclasses.replace(bar, open=price, high=price, low=price, close=price)]

    return stand_still


def _shifted(stage: Stage) -> BarFault:
    shift_ns = max(_HOUR_S, stage.bar_seconds) * 1_000_000_000
    return lambda bar: [dataclasses.replace(bar, ts_ns=bar.ts_ns - shift_ns)]


_STRANGE = Failure.MARKET_STRANGE

FAULTS = (
    _bad("nan", "the close is NaN", lambda bar: dataclasses.replace(bar, close=math.nan)),
    _bad("inf", "the high is infinite", lambda bar: dataclasses.replace(bar, high=math.inf)),
    _bad("negative_price", "all prices are negative", lambda bar: _times(bar, -1.0)),
    _bad("zero_price", "the low is zero", lambda bar: dataclasses.replace(bar, low=0.0)),
    _bad(
        "ohlc_inconsistent",
        "the high lies below the low",
        lambda bar: dataclasses.replace(bar, high=bar.low, low=bar.low * 1.01),
    ),
    _fault(
        "zero_volume", "nothing is traded", "something is", Failure.HARMLESS,
        lambda stage: lambda bar: [dataclasses.replace(bar, volume=0.0)],  # noqa: ARG005
        lasts_bars=24,
    ),
    _fault(
        "duplicate", "every bar comes twice", "each comes once", Failure.BAR_REJECTED,
        lambda stage: lambda bar: [bar, dataclasses.replace(bar)],  # noqa: ARG005
        lasts_bars=24,
    ),
    _fault(
        "out_of_order", "an old bar comes after every new one", "bars come in order", Failure.BAR_REJECTED, _late,
        lasts_bars=24,
    ),
    _fault(
        "gap", "only one bar arrives where more are missing than a window can bridge", "every bar arrives",
        Failure.WINDOW_UNUSABLE, _gap, lasts_bars=78, reasons=frozenset({Reason.GAP}), window_lost=True,
    ),
    _fault(
        "spike", "one bar's prices are ten times too high", "the bar has left the window", _STRANGE,
        lambda stage: lambda bar: [_times(bar, _SPIKE)],  # noqa: ARG005
        lasts_bars=1, strange_bars=True,
    ),
    _fault(
        "frozen_price", "the price stands still", "the still bars have left the window", _STRANGE, _frozen,
        lasts_bars=24, strange_bars=True,
    ),
    _fault(
        "shifted_time_zone", "bars are stamped an hour early, or a bar where bars are longer", "stamps are right again",
        _STRANGE, _shifted, lasts_bars=24, strange_bars=True,
    ),
)  # fmt: skip
