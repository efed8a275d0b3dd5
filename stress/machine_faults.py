"""What goes wrong with the machine that a simulated model runs on, beside the faults of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

from stress.simulated import Machine
from stress.stage import Failure, Fault

SLOW_LOAD = 3.0

Change = Callable[[Machine], None]


def machine_faults(machine: Machine) -> dict[str, Fault]:
    """Faults of one simulated machine, by name."""

    def fault(name: str, does: str, ends: str, begin: Change, end: Change) -> Fault:
        return Fault(
            name=name,
            does=does,
            ends=ends,
            failure=Failure.NO_USABLE_ANSWER,
            begin=lambda stage: begin(machine),  # noqa: ARG005 (a fault's signature)
            end=lambda stage: end(machine),  # noqa: ARG005
        )

    def hearts_stand(machine: Machine) -> None:
        machine.hearts_stand_since = machine.time.s

    def hearts_beat(machine: Machine) -> None:
        machine.hearts_stand_since = None

    def setting(name: str, on: object, off: object) -> tuple[Change, Change]:
        return lambda machine: setattr(machine, name, on), lambda machine: setattr(machine, name, off)

    found = [
        fault(
            "machine.silence", "processes answer, and their hearts stand still", "the hearts beat again",
            hearts_stand, hearts_beat,
        ),
        fault(
            "machine.load_fails", "a process that starts cannot load the model", "the next one can",
            *setting("load_error", "the weights are damaged", ""),
        ),
        fault(
            "machine.slow_load", "loading takes three times as long", "loading is as fast as ever",
            *setting("load_factor", SLOW_LOAD, 1.0),
        ),
        fault(
            "machine.leak", "each answer costs 60 MB for good", "the process is relieved",
            *setting("leak_bytes", 60_000_000, 0),
        ),
        fault(
            "machine.dies_answering", "the process dies while it answers", "the next one lives",
            *setting("dies_answering", True, False),
        ),
        fault(
            "machine.unkillable", "a killed process stays for three seconds", "it goes at once",
            *setting("unkillable_s", 3.0, 0.0),
        ),
        fault(
            "machine.busy", "answers take four times as long, some longer than the deadline", "the machine is idle",
            *setting("busy", 4.0, 1.0),
        ),
    ]  # fmt: skip
    return {one.name: one for one in found}
