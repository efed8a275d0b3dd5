"""Lines and curves of text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from rich.text import Text

LABEL = 10
"""Columns of what stands before each line."""

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", ".:-=+*%#"

_SMALLEST_SPAN = 0.05
"""A curve that moves by less than this share of its height is drawn as flat as it is."""


class Curve:
    """A figure over the whole run in few points: when they are too many, every two become one, the higher of them."""

    def __init__(self, capacity: int = 256) -> None:
        self.points: list[float] = []
        self._capacity = capacity
        self._stride = 1
        self._since, self._highest = 0, -math.inf

    def add(self, value: float) -> None:
        """The newest value; one that is no number is left out."""
        if not math.isfinite(value):
            return
        self._since, self._highest = self._since + 1, max(self._highest, value)
        if self._since < self._stride:
            return
        self.points.append(self._highest)
        self._since, self._highest = 0, -math.inf
        if len(self.points) == self._capacity:
            self.points = [max(self.points[first : first + 2]) for first in range(0, self._capacity, 2)]
            self._stride *= 2


class Pen:
    """Lays lines out for a terminal: how wide, and with which characters."""

    def __init__(self, width: int, *, ascii_only: bool) -> None:
        self.width = width
        self.dash = "-" if ascii_only else "–"
        self._blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
        self._full, self._empty, self._rule = "#.-" if ascii_only else "━──"

    def line(self, label: str, value: Text) -> Text:
        """A label and what it is about."""
        return Text.assemble((f"{label:<{LABEL}}", "dim"), value)

    def ends(self, left: Text, right: Text) -> Text:
        """One at each end of the line; the left one gives way."""
        left.truncate(max(0, self.width - len(right) - 1), pad=True)
        return Text.assemble(left, " ", right)

    def rule(self) -> Text:
        """A line across."""
        return Text(self._rule * self.width, "dim")

    def bar(self, share: float, width: int) -> Text:
        """A bar that is full to this share."""
        full = round(width * min(1.0, max(0.0, share)))
        return Text.assemble((self._full * full, "cyan"), (self._empty * (width - full), "dim"))

    def curve(self, label: str, curve: Curve, told: Callable[[float], str], note: Text | None = None) -> Text:
        """Label, curve, and between which values it runs."""
        points = curve.points
        tail = Text(f"  {told(min(points))} to {told(max(points))}" if points else "", "dim")
        if note is not None:
            tail = Text.assemble(tail, "  ", note)
        width = max(8, self.width - LABEL - len(tail) - 1)
        return self.line(label, Text.assemble((self.sparkline(points, width), "cyan"), tail))

    def sparkline(self, points: Sequence[float], width: int) -> str:
        """The points' heights between the lowest and the highest, in ``width`` columns."""
        drawn = resampled(points, width)
        if not drawn:
            return " " * width
        low, high = min(drawn), max(drawn)
        span = max(high - low, _SMALLEST_SPAN * abs(high))
        top = len(self._blocks) - 1
        heights = (round(top * (value - low) / span) if span > 0 else 0 for value in drawn)
        return "".join(self._blocks[height] for height in heights).ljust(width)


def resampled(points: Sequence[float], width: int) -> list[float]:
    """At most ``width`` points, each the highest of those that it stands for: a peak must not be lost."""
    if len(points) <= width:
        return list(points)
    edges = [len(points) * column // width for column in range(width + 1)]
    return [max(points[first:last]) for first, last in pairwise(edges)]
