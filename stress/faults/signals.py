"""What the strategy hears goes wrong on its way: the detector's answer was sound."""

from __future__ import annotations

import dataclasses
import math

from regime.signal import Signal
from stress.stage import Failure, Fault, SignalFault, Stage


def _fault(name: str, does: str, spoil: SignalFault) -> Fault:
    full_name = f"signal.{name}"

    # Each use has a function of its own: the same fault may be at work twice.
    def begin(stage: Stage) -> None:
        def heard(signal: Signal) -> Signal:
            return spoil(signal)

        stage.signal_faults.append(heard)
        _added(stage).append(heard)

    def end(stage: Stage) -> None:
        found = _added(stage)
        if found:
            fault = found.pop()
            stage.signal_faults[:] = [each for each in stage.signal_faults if each is not fault]

    def _added(stage: Stage) -> list[SignalFault]:
        found = stage.kept.setdefault(f"signals of {full_name}", [])
        assert isinstance(found, list)
        return found

    return Fault(
        name=full_name,
        does=does,
        ends="the strategy hears what was said",
        failure=Failure.SIGNAL_INVALID,
        begin=begin,
        end=end,
    )


def _older(signal: Signal) -> Signal:
    an_hour_ns = 3_600_000_000_000
    return dataclasses.replace(signal, ts_event=signal.ts_event - an_hour_ns, ts_init=signal.ts_init - an_hour_ns)


def _impossible(signal: Signal) -> Signal:
    """Volatility without end and an expectation outside of its own interval."""
    return dataclasses.replace(
        signal, interval_low=1.0, interval_high=-1.0, forecast_volatility=math.inf, realised_volatility=math.inf
    )


FAULTS = (
    _fault("stale", "the strategy hears a signal that is an hour old", _older),
    _fault(
        "out_of_range",
        "the strategy hears of a confidence of 1.7",
        lambda signal: dataclasses.replace(signal, confidence=1.7),
    ),
    _fault("impossible", "the strategy hears of an expectation outside of its interval", _impossible),
    _fault(
        "endless_volatility",
        "the strategy hears of a volatility without end",
        lambda signal: dataclasses.replace(signal, forecast_volatility=math.inf),
    ),
)
