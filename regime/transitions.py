"""When a regime changes: states that last, and how late a change is noticed."""

from __future__ import annotations

from typing import Generic, TypeVar

State = TypeVar("State")


class Lasting(Generic[State]):
    """A state that no proposal ends before it has lasted ``least_bars`` bars: one that flips each bar is a defect."""

    def __init__(self, value: State, least_bars: int) -> None:
        self.value = value
        self.bars = 0
        self.changes = 0
        self._least_bars = least_bars

    def propose(self, value: State) -> bool:
        """A bar has passed, and this is what it speaks for; true where the state changes to it."""
        self.bars += 1
        if value == self.value or (self.changes and self.bars < self._least_bars):
            return False
        self.value = value
        self.bars = 0
        self.changes += 1
        return True


class ChangePoint:
    """How long ago a change began, judged when it is noticed.

    Sums up the evidence for a change, never below zero; the change is taken to have begun after the last zero.
    Source: Page (1954), Continuous inspection schemes.
    """

    def __init__(self) -> None:
        self.delay_bars = 0
        self._sum = 0.0
        self._bars_above_zero = 0

    def observe(self, evidence: float) -> None:
        """Take in a bar's evidence for a change: the logarithm of a likelihood ratio."""
        self._sum = max(0.0, self._sum + evidence)
        self._bars_above_zero = self._bars_above_zero + 1 if self._sum > 0.0 else 0

    def named(self) -> None:
        """The change has been noticed with this bar."""
        self.delay_bars = max(0, self._bars_above_zero - 1)
        self._sum = 0.0
        self._bars_above_zero = 0
