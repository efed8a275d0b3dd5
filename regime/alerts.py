"""What people should hear of: raised once, cleared once, and both written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

_KEPT = 1000


class Severity(StrEnum):
    """How much it matters."""

    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


@dataclass(frozen=True)
class Alert:
    """An alert that was raised, or one that was cleared. ``ts_ns`` is the close of the bar at which that was."""

    ts_ns: int
    name: str
    severity: Severity
    raised: bool
    detail: str


class AlertBook:
    """Which alerts are on, and the newest thousand that came or went."""

    def __init__(self) -> None:
        self.active: dict[str, Alert] = {}
        self.log: deque[Alert] = deque(maxlen=_KEPT)

    def report(self, ts_ns: int, name: str, severity: Severity, on: bool, told: Callable[[], str]) -> Alert | None:
        """Say how things stand; only a change is written down and returned, and asked for in words by ``told``.

        Whoever reports sees to it that it does not flicker.
        """
        if on == (name in self.active):
            return None
        alert = Alert(ts_ns, name, severity, on, told())
        if on:
            self.active[name] = alert
        else:
            del self.active[name]
        self.log.append(alert)
        return alert
