"""What watching costs: ``python -m stress.soak.bench [SEGMENTS]``.

The same segments are played in turn by three: a trading process that nobody looks into, one that is monitored (samples
of memory, vitals), and a soak with all that it does (witness and every invariant of every bar, alerts, metrics, the
journal, the report, and the control beside it). Medians over segments.
"""

from __future__ import annotations

import contextlib
import queue
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
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
from stress.soak.worker import trade_bare_segments, trade_watched_segments

SEGMENTS = 30
_SETTLING = 3
"""Segments at the beginning that are not counted."""


class Onlooker:
    """Alerts and metrics, and nothing drawn."""

    def __init__(self, consumer: Telemetry) -> None:
        self._consumer = consumer

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def go_on_from(self, before: Vitals) -> None:
        """Do nothing: it begins anew."""

    def update(self, vitals: Vitals) -> Sequence[Alert]:
        """How things are."""
        self._consumer(vitals)
        return self._consumer.newest


def measure(segments: int = SEGMENTS) -> list[tuple[float, float, float]]:
    """Seconds of each segment, bare, monitored and of the whole soak; those at the beginning left out."""
    config = SoakConfig(bars=segments * SEGMENT_BARS, segment_bars=SEGMENT_BARS)
    found: list[tuple[float, float, float]] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        beside = [_Beside(target, config) for target in (trade_bare_segments, trade_watched_segments)]
        for one in beside:
            stack.callback(one.worker.kill)

        def in_turn(played: Played) -> None:
            # In one order and in the other: what is slow for a while is not always slow for the same one.
            order = beside if played.segment % 2 else beside[::-1]
            seconds = {one: one.play(played.segment) for one in order}
            found.append((seconds[beside[0]], seconds[beside[1]], played.seconds))
            told = ", ".join(f"{value:.2f} s" for value in found[-1])
            print(f"{played.segment + 1} of {segments}: {told}", file=sys.stderr)

        consumer = stack.enter_context(telemetry(WatchConfig(), alerts=directory / "alerts.jsonl", metrics_port=0))
        journal = Journal(directory)
        journal.note("soak", 0.0, **header(config))
        reporter = stack.enter_context(Reporter(directory))
        Soak(config, journal, Onlooker(consumer), reporter.draw, after=in_turn).run()
    return found[_SETTLING:]


class _Beside:
    """A trading process beside the soak."""

    def __init__(self, target: Callable[[Connection, SoakConfig], None], config: SoakConfig) -> None:
        self._inbox: queue.SimpleQueue[tuple[Worker, Any]] = queue.SimpleQueue()
        self.worker = Worker("trading", target, config, Begin(0), self._inbox)
        await_ready(self.worker, self._inbox)

    def play(self, segment: int) -> float:
        """The seconds that a segment takes."""
        self.worker.tell(Play(segment))
        while True:
            speaker, message = self._inbox.get()
            raise_if_failed(speaker, message)
            if isinstance(message, Played):
                return message.seconds


def main(segments: int = SEGMENTS) -> None:
    """Print all three, and what watching costs."""
    found = measure(segments)
    bare, monitored, whole = (statistics.median(column) for column in zip(*found, strict=True))
    speeds = [f"{name} {SEGMENT_BARS / seconds:,.0f} bars/s" for name, seconds in
              (("bare", bare), ("monitored", monitored), ("soak", whole))]  # fmt: skip
    print(f"{', '.join(speeds)} (medians of {len(found)} segments)")
    for name, column, target in (("monitoring", 1, "; target: under 3 %"), ("the whole soak", 2, "")):
        ratio = statistics.median(row[column] / row[0] for row in found)
        print(f"{name} costs {100 * (ratio - 1):+.1f} % of a segment's time (median of pairs{target})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
