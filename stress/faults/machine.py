"""The machine runs short: memory."""

from __future__ import annotations

from regime.serving.client import LOOK_AT_MEMORY_EVERY
from stress.misbehaviour import Misbehaviour
from stress.stage import Failure, Fault, Stage

MEMORY_LIMIT_MB = 512.0
"""The ceiling that a run must give its model process for this: what is hoarded passes the share at which it is
relieved, and not the ceiling, in the answers between two looks at it."""

_BYTES_PER_ANSWER = 6_000_000


def _hoard(stage: Stage) -> None:
    stage.control.set(Misbehaviour.HOARD, _BYTES_PER_ANSWER)


def _begin(stage: Stage) -> None:
    stage.kept["recycled"] = stage.client.recycled if stage.client is not None else 0
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
        does=f"each answer costs the model process {_BYTES_PER_ANSWER / 1e6:g} MB for good",
        ends="a successor has taken over, without a bar lost",
        failure=Failure.HARMLESS,
        begin=_begin,
        end=_release,
        each=_hoard,
        needs=frozenset({"process", "native"}),
        lasts_bars=2 * LOOK_AT_MEMORY_EVERY,
        proof=_relieved,
    ),
)
