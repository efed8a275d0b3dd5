"""The lines of a soak's journal, as arrays and counts for whoever judges or draws them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regime.signal import Level
from stress.soak.pieces import Trace

Floats = NDArray[np.float64]

MB = 1e6
HOUR_S = 3600.0
_Row = tuple[float, float, float, int, int, int]
"""Hours, bars, the figure, the phase, and which process it is of: how many there were before it, and its id."""

SUMMED = (
    "bars", "signals", "rejections", "breaker_openings", "model_restarts", "model_recycled", "orders",
)  # fmt: skip


@dataclass
class Record:
    """Everything that a soak has left, in the order of time.

    ``samples`` are those at equal bar counts, by side; ``machines`` are those by the clock. ``totals`` is the newest
    line of each trading process. ``beside`` are segments that a process played by turns with one that had just begun.
    """

    begun: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    machines: list[dict[str, Any]] = field(default_factory=list)
    minutes: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    beside: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[int, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]]) -> Record:
        """From parsed lines; of a kind that is not known nothing is taken."""
        found = cls()
        for line in lines:
            found.seconds = max(found.seconds, float(line["at_s"]))
            match line["kind"]:
                case "soak":
                    found.begun = line
                case "sample":
                    found.samples[line["side"]].append(line)
                case "machine":
                    found.machines.append(line)
                case "minute":
                    found.minutes.append(line)
                case "segment":
                    found.segments.append(line)
                case "beside":
                    found.beside.append(line)
                case "alert":
                    found.alerts.append(line)
                case "event":
                    found.events.append(line)
                case "totals":
                    found.totals[line["generation"]] = line
        return found

    def total(self, name: str) -> int:
        """A count over all trading processes."""
        return sum(int(line[name]) for line in self.totals.values())

    def counts(self, name: str) -> dict[str, int]:
        """Counts by name over all trading processes."""
        found: Counter[str] = Counter()
        for line in self.totals.values():
            found.update(line[name])
        return dict(sorted(found.items()))

    @property
    def notes(self) -> list[str]:
        """What people should know, of each trading process as it was at last."""
        newest = {line["generation"]: line.get("notes", []) for line in self.segments}
        began = [note for line in self.events for note in line.get("notes", [])]
        return list(dict.fromkeys([*began, *(note for notes in newest.values() for note in notes)]))

    @property
    def asks_a_model(self) -> bool:
        """False where a level is pinned that needs none."""
        pinned = self.begun["config"]["backtest"]["regime"]["pinned_level"]
        return pinned is None or int(pinned) <= Level.BASIC

    @property
    def generations(self) -> int:
        """How many trading processes there were."""
        known = [line["generation"] for line in (*self.samples["trading"], *self.segments, *self.totals.values())]
        return max(self.event_count("trading_began"), 1 + max(known, default=-1))

    def event_count(self, event: str) -> int:
        """How often something happened."""
        return sum(line["event"] == event for line in self.events)

    def trace(self, side: str, role: str, value: str = "rss", unit: float = MB) -> Trace:
        """A figure of one role's process, as its side sampled it at equal bar counts.

        A process that takes the place of another of its role begins a new generation; bars are counted over all.
        """
        rows: list[_Row] = []
        before, offset, newest = None, 0, 0
        for line in self.samples[side]:
            if before is not None and line["generation"] != before:
                offset += newest
                newest = 0
            before, newest = line["generation"], line["bars"]
            for process in line["processes"]:
                if process["role"] == role and process[value] is not None:
                    rows.append(
                        (
                            line["at_s"] / HOUR_S,
                            offset + line["bars"],
                            process[value] / unit,
                            line["phase"],
                            line["generation"],
                            process["pid"],
                        )
                    )
        return _trace_of(rows)

    def clock_trace(self, role: str, value: str = "rss", unit: float = MB) -> Trace:
        """The same for a process that plays no segments, sampled by the clock; a resumed soak has another one."""
        resumed = np.array([line["at_s"] for line in self.events if line["event"] == "resumed"])
        rows = [
            (
                line["at_s"] / HOUR_S,
                0.0,
                process[value] / unit,
                0,
                int(np.searchsorted(resumed, line["at_s"], side="right")),
                process["pid"],
            )
            for line in self.machines
            for process in line["processes"]
            if process["role"] == role and process[value] is not None
        ]
        return _trace_of(rows)


def _trace_of(rows: list[_Row]) -> Trace:
    # Two samples of one process never share a time; of two of a role, the older one is on its way out.
    table = np.array(sorted(rows), dtype=np.float64).reshape(len(rows), 6)
    # A container that was started anew gives the same process ids again.
    _, life = np.unique(table[:, 4:], axis=0, return_inverse=True)
    return Trace(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.int64), life.ravel().astype(np.int64))
