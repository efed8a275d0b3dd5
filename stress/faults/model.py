"""The model goes wrong: it answers nonsense, late, never, or dies."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable

from regime.signal import Reason
from stress.misbehaviour import Misbehaviour
from stress.stage import Failure, Fault, Stage

SLOW_MEDIAN_DEADLINES = 4.0
SLOW_SPREAD = 0.3
"""Answers take log-normal times: with this median, in deadlines, and spread one in some 100,000 would be in time."""

_WITHOUT_DEADLINE_MS = 50.0
_ABSURD_FACTOR = 1_000.0
_WORTHLESS_FACTOR = 3.0
_WORTHLESS_BARS = 200
"""Long enough to be found out from matured forecasts."""


def _switch(kind: Misbehaviour, amount: float = 0.0) -> Callable[[Stage], None]:
    return lambda stage: stage.control.set(kind, amount)


def behave(stage: Stage) -> None:
    """Switch every misbehaviour off."""
    stage.control.set(Misbehaviour.NONE)


def fail(stage: Stage) -> None:
    """Let the model fail in the simplest way there is."""
    stage.control.set(Misbehaviour.RAISE)


def _answers(name: str, does: str, failure: Failure, reason: Reason, kind: Misbehaviour, amount: float = 0.0) -> Fault:
    begin = _switch(kind, amount)
    # Switched on again with every bar: another fault that ended may have switched it off.
    return Fault(
        name=f"model.{name}",
        does=does,
        ends="the model answers soundly again",
        failure=failure,
        begin=begin,
        end=behave,
        each=begin,
        reasons=frozenset({reason}),
    )


def _slow(stage: Stage) -> None:
    deadline_ms = stage.detector.config.deadline_ms or _WITHOUT_DEADLINE_MS
    takes_s = SLOW_MEDIAN_DEADLINES * deadline_ms / 1e3 * math.exp(SLOW_SPREAD * float(stage.rng.standard_normal()))
    stage.control.set(Misbehaviour.SLOW, takes_s)


def send(stage: Stage, number: signal.Signals) -> None:
    """Send a signal to every model process there is; one that has just gone is nobody's loss."""
    for pid in stage.client.pids if stage.client is not None else []:
        with contextlib.suppress(ProcessLookupError):
            stage.kill(pid, number)


def _hang(stage: Stage) -> None:
    # With every bar: a process that was replaced for its silence has a successor.
    send(stage, signal.SIGSTOP)


def _go_on(stage: Stage) -> None:
    send(stage, signal.SIGCONT)


def die(stage: Stage) -> None:
    """Kill every model process."""
    send(stage, signal.SIGKILL)


def _nothing(stage: Stage) -> None:
    """What died stays dead; the client starts another one."""


_UNSOUND, _UNUSABLE = Failure.QUANTILES_UNSOUND, Failure.NO_USABLE_ANSWER

FAULTS = (
    _answers("raises", "the model raises an exception", _UNUSABLE, Reason.MODEL_ERROR, Misbehaviour.RAISE),
    Fault(
        name="model.slow",
        does=f"answers take log-normal times around {SLOW_MEDIAN_DEADLINES:g} deadlines",
        ends="answers are as fast as ever; the last late one is dropped",
        failure=_UNUSABLE,
        begin=_slow,
        end=behave,
        each=_slow,
        reasons=frozenset({Reason.TIMEOUT}),
    ),
    Fault(
        name="model.hang",
        does="the model process is stopped (SIGSTOP), and so is every one that takes its place",
        ends="it goes on (SIGCONT), or has been replaced",
        failure=_UNUSABLE,
        begin=_hang,
        end=_go_on,
        each=_hang,
        reasons=frozenset({Reason.TIMEOUT}),
    ),
    Fault(
        name="model.dies",
        does="the model process is killed (SIGKILL), and so is every one that takes its place",
        ends="the next one lives",
        failure=_UNUSABLE,
        begin=die,
        end=_nothing,
        each=die,
        reasons=frozenset({Reason.MODEL_DIED}),
    ),
    _answers(
        "out_of_memory", "the model asks for more memory than there is", _UNUSABLE, Reason.OUT_OF_MEMORY,
        Misbehaviour.OUT_OF_MEMORY,
    ),
    _answers("nan", "the median is NaN", _UNUSABLE, Reason.NOT_FINITE, Misbehaviour.NAN_MEDIAN),
    _answers("nan_tails", "the outer quantiles are NaN", _UNSOUND, Reason.NOT_FINITE, Misbehaviour.NAN_TAILS),
    _answers("inf", "the median is infinite", _UNUSABLE, Reason.NOT_FINITE, Misbehaviour.INFINITE_MEDIAN),
    _answers(
        "crossed", "the quantiles come in the wrong order", _UNSOUND, Reason.CROSSED_QUANTILES, Misbehaviour.CROSSED
    ),
    _answers(
        "constant", "every quantile of every bar is the same number", _UNSOUND, Reason.ABSURD_WIDTH,
        Misbehaviour.CONSTANT,
    ),
    _answers(
        "absurd_width", f"the quantiles lie {_ABSURD_FACTOR:g} times too far apart", _UNSOUND, Reason.ABSURD_WIDTH,
        Misbehaviour.WIDE, _ABSURD_FACTOR,
    ),
    dataclasses.replace(
        _answers(
            "worthless",
            f"the quantiles lie {_WORTHLESS_FACTOR:g} times too far apart: sound to look at, and worse than no model",
            Failure.FORECASTS_WORTHLESS, Reason.UNHEALTHY, Misbehaviour.WIDE, _WORTHLESS_FACTOR,
        ),
        ends="enough sound forecasts have matured",
        needs=frozenset({"health"}),
        lasts_bars=_WORTHLESS_BARS,
    ),
    _answers(
        "wrong_shape", "one bar of the horizon is missing", _UNUSABLE, Reason.WRONG_SHAPE, Misbehaviour.WRONG_SHAPE
    ),
    _answers(
        "stale", "the last window's answer is given again", _UNUSABLE, Reason.STALE_ANSWER, Misbehaviour.STALE
    ),
)  # fmt: skip
