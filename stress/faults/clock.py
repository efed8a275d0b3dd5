"""The clock that stamps the bars jumps, and jumps back at the end."""

from __future__ import annotations

import dataclasses

from regime.signal import Reason
from stress.faults import bars
from stress.stage import Failure, Fault, Stage

_BACK_BARS = 40
_FORTH_NS = 400 * 86_400 * 1_000_000_000


def _fault(name: str, does: str, shift_bars: int, shift_ns: int) -> Fault:
    full_name = f"clock.{name}"

    def begin(stage: Stage) -> None:
        by_ns = shift_ns + shift_bars * stage.bar_seconds * 1_000_000_000
        bars.add(stage, full_name, lambda bar: [dataclasses.replace(bar, ts_ns=bar.ts_ns + by_ns)])

    return Fault(
        name=full_name,
        does=does,
        ends="stamps are right again, which is a jump too; the window has grown again",
        failure=Failure.WINDOW_UNUSABLE,
        begin=begin,
        end=lambda stage: bars.remove(stage, full_name),
        reasons=frozenset({Reason.CLOCK_JUMP}),
        window_lost=True,
    )


FAULTS = (
    _fault("jump_back", f"bars are stamped {_BACK_BARS} bars too early", -_BACK_BARS, 0),
    _fault("jump_forth", "bars are stamped 400 days too late", 0, _FORTH_NS),
)
