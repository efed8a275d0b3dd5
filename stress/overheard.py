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
        self._digests: dict[int, int] = {}
        self._given_up: set[int] = set()

    def ask(self, request: Request, contexts: Context) -> None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        super().ask(request, contexts)
        self._digests[request.sequence] = digest_of(contexts)
        self._talk.asked.append((request.sequence, self._digests[request.sequence]))

    def answer(self, timeout_s: float) -> Reply | None:
        """See :class:`~regime.serving.process.ModelProcess`."""
        reply = super().answer(timeout_s)
        if reply is None:
            # Whoever asked goes on without it. What comes later answers nobody, though it may come at the same bar.
            self._given_up.update(self._digests)
        elif reply.sequence in self._given_up:
            self._given_up.discard(reply.sequence)
            self._digests.pop(reply.sequence, None)
        else:
            quantiles = np.full((1, 1, len(QUANTILE_LEVELS)), np.nan, dtype=np.float32)
            if reply.status is Status.OK:
                quantiles = self.quantiles(reply.rows, reply.horizon_bars)
            digest = self._digests.pop(reply.sequence, 0)
            self._talk.received.append(Heard(reply.sequence, digest, reply, quantiles))
        return reply
