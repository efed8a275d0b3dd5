"""The history of regimes is lost or damaged, while model and window are gone as well: only a constant is left."""

from __future__ import annotations

import dataclasses
import math

from regime.signal import Level, Reason
from stress.faults import bars
from stress.faults.model import behave, fail
from stress.stage import Failure, Fault, Stage

_EMPTY, _CORRUPTED = "history.empty", "history.corrupted"


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


def _begin_forgetting(stage: Stage) -> None:
    _forget(stage)
    # Again and again, so that the window never grows.
    bars.add(stage, _EMPTY, lambda bar: bars.rejects_before(stage, bar))


def _end_forgetting(stage: Stage) -> None:
    behave(stage)
    bars.remove(stage, _EMPTY)


def _begin_corrupting(stage: Stage) -> None:
    _corrupt(stage)
    bars.add(stage, _CORRUPTED, lambda bar: bars.rejects_before(stage, bar))


def _end_corrupting(stage: Stage) -> None:
    behave(stage)
    bars.remove(stage, _CORRUPTED)
    _heal(stage)


FAULTS = (
    Fault(
        name=_EMPTY,
        does="the model fails, bad bars make the window unusable, and no regime is remembered",
        ends="the model answers, the window has grown again, and regimes are remembered",
        failure=Failure.NO_HISTORY,
        begin=_begin_forgetting,
        end=_end_forgetting,
        each=_forget,
        reasons=frozenset({Reason.NO_REGIME_HISTORY}),
        window_lost=True,
    ),
    Fault(
        name=_CORRUPTED,
        does="the model fails, bad bars make the window unusable, and remembered regimes hold NaN",
        ends="the model answers, the window has grown again, and the damaged regimes are dropped",
        failure=Failure.NO_HISTORY,
        begin=_begin_corrupting,
        end=_end_corrupting,
        each=_corrupt,
        reasons=frozenset({Reason.REGIMES_CORRUPT}),
        window_lost=True,
    ),
)
