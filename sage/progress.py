"""How far a run is, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears how far a run is. Every method may be called often and must return at once."""

    def stage(self, name: str, total: int) -> None:
        """A stage of ``total`` steps begins."""

    def advance(self, steps: int, note: str = "") -> None:
        """So many further steps are done; ``note`` is a line for people."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, steps: int, note: str = "") -> None:
        """Do nothing."""
