"""The machine runs short: memory."""

from __future__ import annotations

from regime.serving.client import LOOK_AT_MEMORY_EVERY
from stress.misbehaviour import Misbehaviour
from stress.stage import Failure, Fault, Stage

MEMORY_LIMIT_MB = 600.0
"""The ceiling that a run must give its model process for this.

What is hoarded comes quickly to a little below the share at which the process is relieved, and then slowly: less than
what is left up to the ceiling comes between two looks at its memory and while its successor loads.
"""

_QUICK_ANSWERS, _QUICK_BYTES, _SLOW_BYTES = 66, 5_000_000, 500_000


def _hoard(stage: Stage) -> None:
    hoarded = stage.kept["hoarded"]
    assert isinstance(hoarded, int)
    stage.kept["hoarded"] = hoarded + 1
    stage.control.set(Misbehaviour.HOARD, _QUICK_BYTES if hoarded < _QUICK_ANSWERS else _SLOW_BYTES)


def _begin(stage: Stage) -> None:
    stage.kept["recycled"] = stage.client.recycled if stage.client is not None else 0
    stage.kept["hoarded"] = 0
    _hoard(stage)


def _release(stage: Stage) -> None:
    stage.control.set(Misbehaviour.NONE)


def _relieved(stage: Stage) -> str:
    before, client = stage.kept.get("recycled"), stage.client
    relieved = client is not None and isinstance(before, int) and client.recycled > before
    return "" if relieved else "the model process was never relieved by a successor"


FAULTS = (
    Fault(
        name="machine.memory_pressure",
        does="each answer costs the model process memory for good",
        ends="a successor has taken over, without a bar lost",
        failure=Failure.HARMLESS,
        begin=_begin,
        end=_release,
        each=_hoard,
        needs=frozenset({"process", "native"}),
        lasts_bars=5 * LOOK_AT_MEMORY_EVERY,
        proof=_relieved,
    ),
)
