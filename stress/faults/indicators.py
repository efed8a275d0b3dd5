"""The indicators fail, while the model does too: level SMART has nothing to answer from."""

from __future__ import annotations

from regime.signal import Reason
from regime.window import BarInput, FloatArray, RingBuffer
from stress.faults import bars
from stress.faults.model import behave, fail
from stress.stage import Failure, Fault, Stage

_RAISE, _SHORT = "indicators.raise", "indicators.short_window"


class _Broken(RingBuffer):
    """Takes values in, and raises when it is read."""

    def __init__(self, sound: RingBuffer) -> None:
        self.__dict__.update(sound.__dict__)

    def view(self, last: int | None = None) -> FloatArray:
        raise FloatingPointError(f"an error planted in the indicators, asked for {last} values")

    def mended(self) -> RingBuffer:
        """The same values, readable."""
        sound = RingBuffer.__new__(RingBuffer)
        sound.__dict__.update(self.__dict__)
        return sound


def _break(stage: Stage) -> None:
    fail(stage)
    window = stage.detector.state.window
    if not isinstance(window.closes, _Broken):
        window.closes = _Broken(window.closes)


def _mend(stage: Stage) -> None:
    behave(stage)
    window = stage.detector.state.window
    if isinstance(window.closes, _Broken):
        window.closes = window.closes.mended()


def _shorten(stage: Stage) -> None:
    fail(stage)
    done = False

    def once(bar: BarInput) -> list[BarInput]:
        nonlocal done
        if done:
            return [bar]
        done = True
        return bars.rejects_before(stage, bar)

    bars.add(stage, _SHORT, once)


def _lengthen(stage: Stage) -> None:
    behave(stage)
    bars.remove(stage, _SHORT)


FAULTS = (
    Fault(
        name=_RAISE,
        does="the model fails, and computing the indicators raises",
        ends="both work again",
        failure=Failure.INDICATORS_FAIL,
        begin=_break,
        end=_mend,
        each=_break,
        reasons=frozenset({Reason.INDICATOR_ERROR}),
    ),
    Fault(
        name=_SHORT,
        does="the model fails, and bad bars in a row have cut the window short",
        ends="the model answers, and the window has grown again",
        failure=Failure.INDICATORS_FAIL,
        begin=_shorten,
        end=_lengthen,
        each=fail,
        reasons=frozenset({Reason.REJECTED_BARS}),
        window_lost=True,
    ),
)
