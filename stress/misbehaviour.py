"""How a model goes wrong, done to the answers of a real model process and of a simulated one alike."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from regime.forecast import MEDIAN, Context
from regime.model.checkpoint import Checkpoint
from regime.serving.config import ServingConfig
from regime.serving.process import ChildProcess
from regime.serving.server import Answer, AnswerFunction

_CONTROL = struct.Struct("<qd")
_TOO_MUCH_BYTES = 1 << 60  # more than an address space, so that no system promises it in the hope of the best


class Misbehaviour(IntEnum):
    """What is done to an answer."""

    NONE = 0
    RAISE = 1
    SLOW = 2
    OUT_OF_MEMORY = 3
    NAN_MEDIAN = 4
    NAN_TAILS = 5
    INFINITE_MEDIAN = 6
    CROSSED = 7
    CONSTANT = 8
    WIDE = 9
    WRONG_SHAPE = 10
    STALE = 11
    HOARD = 12


class Control:
    """Which misbehaviour is on, in memory that a model process can share: a kind and a number.

    The number is seconds for SLOW, a factor for WIDE and bytes for HOARD.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("sage-control") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, _CONTROL.size)
        self._map = mmap.mmap(self.descriptor, _CONTROL.size)

    def set(self, kind: Misbehaviour, amount: float = 0.0) -> None:
        """Switch a misbehaviour on, or all of them off."""
        _CONTROL.pack_into(self._map, 0, kind, amount)

    def get(self) -> tuple[Misbehaviour, float]:
        """What is on now."""
        kind, amount = _CONTROL.unpack_from(self._map)
        return Misbehaviour(kind), float(amount)

    def close(self) -> None:
        """Give the memory back; safe to call twice."""
        if not self._map.closed:
            self._map.close()
            os.close(self.descriptor)


class MisbehavingProcess(ChildProcess):
    """A real model process (pipe, server and engine) whose answers a control spoils."""

    def __init__(self, control: Control, checkpoint: Checkpoint, config: ServingConfig) -> None:
        descriptor = control.descriptor
        super().__init__(checkpoint, config, "stress.faulty_server", {"control": descriptor}, (descriptor,))


def disturbed(answer: AnswerFunction, control: Control, sleep: Callable[[float], None] = time.sleep) -> AnswerFunction:
    """An answer function that goes wrong as the control says; ``sleep`` is simulated where time is."""
    last: list[Answer] = []
    hoard: list[NDArray[np.uint8]] = []

    def misbehave(contexts: Context, horizon_bars: int) -> Answer:
        kind, amount = control.get()
        match kind:
            case Misbehaviour.RAISE:
                raise RuntimeError("an error planted in the model")
            case Misbehaviour.SLOW:
                sleep(amount)
            case Misbehaviour.OUT_OF_MEMORY:
                # Asked for in earnest: no machine has it, and no limit allows it.
                np.ones(_TOO_MUCH_BYTES, dtype=np.uint8)
            case Misbehaviour.STALE if last:
                return last[-1]
            case Misbehaviour.HOARD:
                # Written to, so that it is resident.
                hoard.append(np.ones(int(amount), dtype=np.uint8))
        if kind is not Misbehaviour.HOARD:
            hoard.clear()
        found = answer(contexts, horizon_bars)
        last[:] = [found]
        return Answer(_spoilt(found.quantiles, kind, amount), found.digest)

    return misbehave


def _spoilt(quantiles: NDArray[np.float32], kind: Misbehaviour, amount: float) -> NDArray[np.float32]:
    spoilt = quantiles.copy()
    match kind:
        case Misbehaviour.NAN_MEDIAN:
            spoilt[:, :, MEDIAN] = np.nan
        case Misbehaviour.NAN_TAILS:
            spoilt[:, :, [0, -1]] = np.nan
        case Misbehaviour.INFINITE_MEDIAN:
            spoilt[:, :, MEDIAN] = np.inf
        case Misbehaviour.CROSSED:
            spoilt = spoilt[:, :, ::-1].copy()
        case Misbehaviour.CONSTANT:
            spoilt[:] = spoilt[:, :, [MEDIAN]].mean()
        case Misbehaviour.WIDE:
            middle = spoilt[:, :, [MEDIAN]]
            spoilt = middle + (spoilt - middle) * np.float32(amount)
        case Misbehaviour.WRONG_SHAPE:
            spoilt = spoilt[:, :-1]
    return spoilt
