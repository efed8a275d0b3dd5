"""What the trading process and the model process say to each other.

Arrays travel through one block of memory that both have mapped; the pipe carries only small messages. The block
has no name in the file system: when both processes are gone, however they went, so is the block.

    request:  sequence number, rows, context bars, horizon bars; contexts at the block's beginning
    answer:   sequence number, status, text;                     quantiles behind the contexts
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from regime.forecast import QUANTILE_LEVELS

MAX_ROWS = 128
MAX_CONTEXT_BARS = 4096
MAX_HORIZON_BARS = 512

_CONTEXT_BYTES = MAX_ROWS * MAX_CONTEXT_BARS * 4
_ANSWER_BYTES = MAX_ROWS * MAX_HORIZON_BARS * len(QUANTILE_LEVELS) * 4
BLOCK_BYTES = _CONTEXT_BYTES + _ANSWER_BYTES

_REQUEST = struct.Struct("<QIII")
_ANSWER = struct.Struct("<QI")


class Status(IntEnum):
    """How an answer came out."""

    OK = 0
    ERROR = 1
    OUT_OF_MEMORY = 2


@dataclass(frozen=True)
class Request:
    """One batch to forecast."""

    sequence: int
    rows: int
    context_bars: int
    horizon_bars: int

    def pack(self) -> bytes:
        """As bytes for the pipe."""
        return _REQUEST.pack(self.sequence, self.rows, self.context_bars, self.horizon_bars)

    @classmethod
    def unpack(cls, raw: bytes) -> Request:
        """Back from bytes."""
        return cls(*_REQUEST.unpack(raw))


@dataclass(frozen=True)
class Reply:
    """How a request came out; ``text`` is the error, if any."""

    sequence: int
    status: Status
    text: str = ""

    def pack(self) -> bytes:
        """As bytes for the pipe."""
        return _ANSWER.pack(self.sequence, self.status) + self.text.encode()

    @classmethod
    def unpack(cls, raw: bytes) -> Reply:
        """Back from bytes."""
        sequence, status = _ANSWER.unpack_from(raw)
        return cls(sequence, Status(status), raw[_ANSWER.size :].decode(errors="replace"))


class Block:
    """The shared memory."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, BLOCK_BYTES)

    @classmethod
    def create(cls) -> Block:
        """A new block without a name; memory-backed where the system has memfd, an unlinked file elsewhere."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("sage-forecasts")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, BLOCK_BYTES)
        return cls(descriptor)

    def close(self) -> None:
        """Unmap the block; the memory goes when the other process has done the same. Safe to call twice."""
        if not self._map.closed:
            self._map.close()
            os.close(self.descriptor)

    def contexts(self, rows: int, context_bars: int) -> NDArray[np.float32]:
        """The contexts' part, shape (rows, context_bars)."""
        return np.frombuffer(self._map, np.float32, rows * context_bars).reshape(rows, context_bars)

    def answers(self, rows: int, horizon_bars: int) -> NDArray[np.float32]:
        """The answers' part, shape (rows, horizon_bars, 9)."""
        count = rows * horizon_bars * len(QUANTILE_LEVELS)
        flat = np.frombuffer(self._map, np.float32, count, offset=_CONTEXT_BYTES)
        return flat.reshape(rows, horizon_bars, len(QUANTILE_LEVELS))
