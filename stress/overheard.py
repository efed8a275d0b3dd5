"""A real model process with somebody listening at the pipe: what was asked of it, and what it said."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regime.forecast import QUANTILE_LEVELS, Context
from regime.model.checkpoint import Checkpoint
from regime.serving.config import ServingConfig
from regime.serving.protocol import Reply, Request, Status, digest_of
from stress.misbehaviour import Control, MisbehavingProcess
from stress.simulated import Heard


@dataclass
class Talk:
    """What went through the pipes: sequence numbers with digests of contexts, and the replies."""

    asked: list[tuple[int, int]] = field(default_factory=list)
    received: list[Heard] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all of it."""
        self.asked.clear()
        self.received.clear()


class OverheardChild(MisbehavingProcess):
    """A real process that is listened to, and misbehaves on request."""

    def __init__(self, checkpoint: Checkpoint, config: ServingConfig, control: Control, talk: Talk) -> None:
        super().__init__(control, checkpoint, config)
        self._talk = talk
        self._awaited: dict[int, int] = {}

    def ask(self, request: Request, contexts: Context) -> None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        super().ask(request, contexts)
        digest = self._awaited[request.sequence] = digest_of(contexts)
        self._talk.asked.append((request.sequence, digest))

    def answer(self, timeout_s: float) -> Reply | None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        reply = super().answer(timeout_s)
        if reply is None:
            # Whoever asked goes on without it. What comes later answers nobody, though it may come at the same bar.
            self._awaited.clear()
        elif reply.sequence in self._awaited:
            quantiles = np.full((1, 1, len(QUANTILE_LEVELS)), np.nan, dtype=np.float32)
            if reply.status is Status.OK:
                quantiles = self.quantiles(reply.rows, reply.horizon_bars)
            digest = self._awaited.pop(reply.sequence)
            self._talk.received.append(Heard(reply.sequence, digest, reply, quantiles))
        return reply
