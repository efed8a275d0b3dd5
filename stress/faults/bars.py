"""How faults get between the bars and the detector, and out again."""

from __future__ import annotations

import dataclasses
import math

from regime.window import BarInput
from stress.stage import BarFault, Stage


def add(stage: Stage, name: str, fault: BarFault) -> None:
    """Let a fault see every bar from now on."""
    stage.bar_faults.append(fault)
    _added(stage, name).append(fault)


def remove(stage: Stage, name: str) -> None:
    """Take the fault of this name that was added last out again."""
    found = _added(stage, name)
    if found:
        fault = found.pop()
        stage.bar_faults[:] = [each for each in stage.bar_faults if each is not fault]


def _added(stage: Stage, name: str) -> list[BarFault]:
    found = stage.kept.setdefault(f"bars of {name}", [])
    assert isinstance(found, list)
    return found


def unusable(bar: BarInput) -> BarInput:
    """A bar that every window refuses."""
    return dataclasses.replace(bar, close=math.nan)


def rejects_before(stage: Stage, bar: BarInput) -> list[BarInput]:
    """As many bad bars before a good one as make the window begin anew with it."""
    return [unusable(bar)] * stage.detector.config.max_rejects + [bar]
