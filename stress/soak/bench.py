"""What watching costs: ``python -m stress.soak.bench [SEGMENTS]``.

The same segments are played in turn by a soak with all that it does (witness and invariants, samples, vitals, alerts,
metrics, journal, report and control) and by a trading process that nobody looks into. Medians over segments.
"""

from __future__ import annotations

import contextlib
import queue
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regime.alerts import Alert
from sage.telemetry import Telemetry, telemetry
from sage.vitals import Vitals
from sage.watch import WatchConfig
from stress.soak.config import SEGMENT_BARS, SoakConfig
from stress.soak.journal import Journal
from stress.soak.launch import Reporter, header
from stress.soak.messages import Begin, Play, Played
from stress.soak.soak import Soak
from stress.soak.staff import Worker, await_ready, raise_if_failed
from stress.soak.worker import trade_bare_segments

SEGMENTS = 30
_SETTLING = 3
"""Segments at the beginning that are not counted."""


class Onlooker:
    """Alerts and metrics, and nothing drawn."""

    def __init__(self, consumer: Telemetry) -> None:
        self._consumer = consumer

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def update(self, vitals: Vitals) -> Sequence[Alert]:
        """How things are."""
        self._consumer(vitals)
        return self._consumer.newest


def measure(segments: int = SEGMENTS) -> list[tuple[float, float]]:
    """Seconds of each segment, watched and bare, those at the beginning left out."""
    config = SoakConfig(bars=segments * SEGMENT_BARS, segment_bars=SEGMENT_BARS)
    found: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inbox: queue.SimpleQueue[tuple[Worker, Any]] = queue.SimpleQueue()
        bare = Worker("trading", trade_bare_segments, config, Begin(0), inbox)
        stack.callback(bare.kill)
        await_ready(bare, inbox)

        def in_turn(played: Played) -> None:
            bare.tell(Play(played.segment))
            speaker, message = inbox.get()
            raise_if_failed(speaker, message)
            assert isinstance(message, Played)
            found.append((played.seconds, message.seconds))
            print(
                f"{played.segment + 1} of {segments}: {played.seconds:.2f} s, {message.seconds:.2f} s", file=sys.stderr
            )

        consumer = stack.enter_context(telemetry(WatchConfig(), alerts=directory / "alerts.jsonl", metrics_port=0))
        journal = Journal(directory)
        journal.note("soak", 0.0, **header(config))
        reporter = stack.enter_context(Reporter(directory))
        Soak(config, journal, Onlooker(consumer), reporter.draw, after=in_turn).run()
    return found[_SETTLING:]


def main(segments: int = SEGMENTS) -> None:
    """Print both, and what watching costs."""
    found = measure(segments)
    watched, bare = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(one / other for one, other in found)
    speeds = f"watched {SEGMENT_BARS / watched:,.0f} bars/s, bare {SEGMENT_BARS / bare:,.0f} bars/s"
    print(f"{speeds} (medians of {len(found)} segments)")
    print(f"watching costs {100 * (ratio - 1):+.1f} % of a segment's time (median of pairs; target: under 3 %)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
