"""The history of regimes is lost or damaged, while model and window are gone as well: only a constant is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from regime.signal import Level, Reason
from stress.faults import bars
from stress.faults.model import behave, fail
from stress.stage import Failure, Fault, Stage


def _forget(stage: Stage) -> None:
    fail(stage)
    stage.detector.state.history.clear()


def _corrupt(stage: Stage) -> None:
    fail(stage)
    history = stage.detector.state.history
    spoilt = [
        dataclasses.replace(signal, level=Level.FULL, expected_return=math.nan, realised_volatility=math.inf)
        for signal in history
    ]
    history.clear()
    history.extend(spoilt)


def _heal(stage: Stage) -> None:
    history = stage.detector.state.history
    sound = [signal for signal in history if math.isfinite(signal.expected_return)]
    history.clear()
    history.extend(sound)


def _let_be(stage: Stage) -> None:
    """Regimes that were forgotten come back with time."""


def _fault(
    name: str, does: str, ends: str, reason: Reason, harm: Callable[[Stage], None], heal: Callable[[Stage], None]
) -> Fault:
    def begin(stage: Stage) -> None:
        harm(stage)
        # Again and again, so that the window never grows.
        bars.add(stage, name, lambda bar: bars.rejects_before(stage, bar))

    def end(stage: Stage) -> None:
        behave(stage)
        bars.remove(stage, name)
        heal(stage)

    return Fault(
        name=name,
        does=f"the model fails, bad bars make the window unusable, and {does}",
        ends=f"the model answers, the window has grown again, and {ends}",
        failure=Failure.NO_HISTORY,
        begin=begin,
        end=end,
        each=harm,
        reasons=frozenset({reason}),
        window_lost=True,
    )


FAULTS = (
    _fault(
        "history.empty", "no regime is remembered", "regimes are remembered", Reason.NO_REGIME_HISTORY, _forget, _let_be
    ),
    _fault(
        "history.corrupted", "remembered regimes hold NaN", "the damaged regimes are dropped", Reason.REGIMES_CORRUPT,
        _corrupt, _heal,
    ),
)  # fmt: skip
