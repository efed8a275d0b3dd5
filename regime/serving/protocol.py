"""What the trading process and the model process say to each other.

Arrays travel through one block of memory that both have mapped; the pipe carries only small messages. The block
has no name in the file system: when both processes are gone, however they went, so is the block.

    request:  sequence number, rows, context bars, horizon bars; contexts at the block's beginning
    answer:   sequence number, status, shape of the quantiles, digest of the contexts they are of, text;
              quantiles behind the contexts
    heart:    the model process's clock, written ten times a second, at the block's end
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from regime.errors import ForecastFailed
from regime.forecast import QUANTILE_LEVELS, Context
from regime.signal import Reason

MAX_ROWS = 128
MAX_CONTEXT_BARS = 4096
MAX_HORIZON_BARS = 512

_CONTEXT_BYTES = MAX_ROWS * MAX_CONTEXT_BARS * 4
_ANSWER_BYTES = MAX_ROWS * MAX_HORIZON_BARS * len(QUANTILE_LEVELS) * 4
_HEART_AT = _CONTEXT_BYTES + _ANSWER_BYTES
BLOCK_BYTES = _HEART_AT + 8

HEART_BEAT_S = 0.1

_REQUEST = struct.Struct("<QIII")
_ANSWER = struct.Struct("<QIIII")


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
    """How a request came out.

    ``rows`` and ``horizon_bars`` tell the shape of the quantiles, ``digest`` the contexts that they are of (see
    :func:`digest_of`); ``text`` is the error, if any.
    """

    sequence: int
    status: Status
    text: str = ""
    rows: int = 0
    horizon_bars: int = 0
    digest: int = 0

    def pack(self) -> bytes:
        """As bytes for the pipe."""
        head = _ANSWER.pack(self.sequence, self.status, self.rows, self.horizon_bars, self.digest)
        return head + self.text.encode()

    @classmethod
    def unpack(cls, raw: bytes) -> Reply:
        """Back from bytes. Raises ValueError for what is none."""
        try:
            sequence, status, rows, horizon_bars, digest = _ANSWER.unpack_from(raw)
        except struct.error as error:
            raise ValueError(f"{len(raw)} bytes are no answer") from error
        text = raw[_ANSWER.size :].decode(errors="replace")
        return cls(sequence, Status(status), text, rows, horizon_bars, digest)


def digest_of(contexts: NDArray[np.float32]) -> int:
    """Tells one batch of contexts from another; an answer is held against it."""
    return zlib.crc32(np.ascontiguousarray(contexts).data)


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

    def beat(self, clock_s: float) -> None:
        """Write the time of a heartbeat, by the clock that both processes share (``time.monotonic``)."""
        struct.pack_into("<d", self._map, _HEART_AT, clock_s)

    def last_beat(self) -> float:
        """The time of the last heartbeat; 0 before the first."""
        (clock_s,) = struct.unpack_from("<d", self._map, _HEART_AT)
        return float(clock_s)

    def contexts(self, rows: int, context_bars: int) -> NDArray[np.float32]:
        """The contexts' part, shape (rows, context_bars)."""
        return np.frombuffer(self._map, np.float32, rows * context_bars).reshape(rows, context_bars)

    def answers(self, rows: int, horizon_bars: int) -> NDArray[np.float32]:
        """The answers' part, shape (rows, horizon_bars, 9)."""
        count = rows * horizon_bars * len(QUANTILE_LEVELS)
        flat = np.frombuffer(self._map, np.float32, count, offset=_CONTEXT_BYTES)
        return flat.reshape(rows, horizon_bars, len(QUANTILE_LEVELS))


def require_answer_to(request: Request, reply: Reply, contexts: Context) -> None:
    """Raise ForecastFailed unless the reply is a sound answer to this very request."""
    if reply.sequence != request.sequence:
        raise ForecastFailed(Reason.STALE_ANSWER, f"answer {reply.sequence} to request {request.sequence}")
    if reply.status is Status.OUT_OF_MEMORY:
        raise ForecastFailed(Reason.OUT_OF_MEMORY, reply.text)
    if reply.status is not Status.OK:
        raise ForecastFailed(Reason.MODEL_ERROR, reply.text)
    if (reply.rows, reply.horizon_bars) != (request.rows, request.horizon_bars):
        shape, wanted = (reply.rows, reply.horizon_bars), (request.rows, request.horizon_bars)
        raise ForecastFailed(Reason.WRONG_SHAPE, f"quantiles of {shape} rows and bars, not {wanted}")
    if reply.digest != digest_of(contexts):
        raise ForecastFailed(Reason.STALE_ANSWER, "the answer is to another window")
