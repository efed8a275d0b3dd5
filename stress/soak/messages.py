"""What the workers of a soak tell the process that watches them, and what it asks of them."""

from __future__ import annotations

from dataclasses import dataclass

from sage.processes import MachineSample
from stress.soak.plants import Plant


@dataclass(frozen=True)
class OrderSent:
    """One order as a run sent it; ``quantity`` is signed, in the instrument's units."""

    ts_ns: int
    quantity: float
    reduce_only: bool


@dataclass(frozen=True)
class Begin:
    """To a worker: go on from ``state`` (pickled by another worker; None to begin anew)."""

    generation: int
    state: bytes | None = None
    plants: tuple[Plant, ...] = ()


@dataclass(frozen=True)
class Play:
    """To a worker: the segment of this number; to the control worker with the orders that were sent in it.

    Memory is sampled in it unless ``sampled`` says no.
    """

    segment: int
    orders: tuple[OrderSent, ...] = ()
    sampled: bool = True


@dataclass(frozen=True)
class HandOver:
    """To a worker: send your state, and end."""


@dataclass(frozen=True)
class Ready:
    """From a worker: it can begin. ``model`` names engine and checkpoint, ``notes`` is what people should know."""

    pid: int
    model: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """From a worker: its processes after bar ``phase`` of a segment; ``bars`` is how many it has seen in all.

    ``at_s`` is the system's monotonic clock, which all processes share. ``yardstick_ms`` is how long a fixed piece of
    work took just then, where that was measured.
    """

    generation: int
    segment: int
    phase: int
    bars: int
    at_s: float
    machine: MachineSample
    yardstick_ms: float | None = None


@dataclass(frozen=True)
class Played:
    """From a worker: a segment is over.

    ``violations`` are of the invariants, ``faults`` the schedule's text, ``notes`` what people should know, and
    ``median_ms`` is the median time of an answer.
    """

    generation: int
    segment: int
    bars: int
    answers: int
    orders: tuple[OrderSent, ...]
    violations: tuple[str, ...]
    faults: str
    seconds: float
    notes: tuple[str, ...] = ()
    median_ms: float | None = None


@dataclass(frozen=True)
class HandedOver:
    """From a worker: its state, pickled."""

    state: bytes


@dataclass(frozen=True)
class Failed:
    """From a worker: it cannot go on."""

    error: str
    trace: str
    kind: str = "internal"
