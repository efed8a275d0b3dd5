"""What a sweep varies: configuration keys with the values they take, listed, spaced or drawn."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import OptionError

COUNT_MAX = 10_000
POINTS_MAX = 100_000
"""So many combinations of values at most, and so many draws."""

NOT_VARIED = ("data.source", "data.catalog", "data.instrument", "data.bar", "data.start", "data.end", "walk_forward",
              "watch", "model.store", "model.store_dir", "model.online", "model.allow_degraded",
              "regime.deadline_ms")  # fmt: skip
"""What no axis may set: what has an option of its own, or no say in a run that is read from the store."""


@dataclass(frozen=True)
class Axis:
    """A key and its values; with ``span`` they are drawn from there instead, uniformly or in logarithms.

    ``is_spaced`` says that the values were reckoned and not listed, ``is_whole`` that whole numbers are drawn.
    """

    key: str
    values: tuple[Any, ...] = ()
    span: tuple[float, float] | None = None
    logarithmic: bool = False
    is_spaced: bool = False
    is_whole: bool = False

    @property
    def is_random(self) -> bool:
        """True where values are drawn."""
        return self.span is not None

    def in_whole_numbers(self) -> Axis:
        """The same for a key that holds whole numbers: what is reckoned or drawn is rounded, what is listed stays."""
        if self.is_random:
            return dataclasses.replace(self, is_whole=True)
        if not self.is_spaced:
            return self
        return dataclasses.replace(self, values=tuple(dict.fromkeys(round(value) for value in self.values)))

    def draw(self, rng: np.random.Generator) -> float | int:
        """One value out of the span."""
        assert self.span is not None
        low, high = self.span
        found = math.exp(rng.uniform(math.log(low), math.log(high))) if self.logarithmic else rng.uniform(low, high)
        return round(found) if self.is_whole else float(found)


def parse_axis(text: str) -> Axis:
    """Read ``--set KEY=...``.

    ``1,2,3`` lists values, ``0.05:0.25:5`` spaces five of them evenly from end to end, ``1e-3:1e-1:5:log`` by a
    constant factor, and ``0.05~0.25`` or ``1e-3~1e-1:log`` draws them.

    Raises
    ------
    OptionError
        For what does not read so.
    """
    key, equals, written = text.partition("=")
    key, written = key.strip(), written.strip()
    if not (key and equals):
        raise OptionError(f"--set {text}: write KEY=VALUES, such as sizing.target_volatility=0.05,0.10")
    where = f"--set {text}"
    body, _, tail = written.rpartition(":log")
    logarithmic = bool(body) and not tail
    span = body if logarithmic else written
    if "~" in span:
        return Axis(key, span=_span(span.split("~"), where, logarithmic=logarithmic), logarithmic=logarithmic)
    parts = span.split(":")
    if len(parts) == 3 and all(map(_is_number, parts)):
        values = spaced(_span(parts[:2], where, logarithmic=logarithmic), _count(parts[2], where), logarithmic)
        return Axis(key, values, is_spaced=True)
    if logarithmic:
        raise OptionError(f"{where}: log goes with FROM:TO:COUNT or FROM~TO")
    if len(parts) == 2 and all(map(_is_number, parts)):
        raise OptionError(f"{where}: say how many values with FROM:TO:COUNT, or draw them with FROM~TO")
    return Axis(key, _distinct(tuple(map(_value, _split(written))), where))


def axis_of(key: str, given: Any) -> Axis:
    """Read an axis of a TOML file: values, or a table with ``from``, ``to`` and ``count`` or ``random = true``.

    Raises
    ------
    OptionError
        For what is neither.
    """
    where = f"sweep.set: {key}"
    if isinstance(given, list):
        return Axis(key, _distinct(tuple(given), where))
    if not isinstance(given, dict):
        return Axis(key, (given,))
    unknown = given.keys() - {"from", "to", "count", "log", "random"}
    if unknown or not {"from", "to"} <= given.keys() or ("count" in given) == bool(given.get("random", False)):
        raise OptionError(f"{where}: a table has from, to, and count = N or random = true; log = true is possible")
    logarithmic = bool(given.get("log", False))
    span = _span([str(given["from"]), str(given["to"])], where, logarithmic=logarithmic)
    if given.get("random", False):
        return Axis(key, span=span, logarithmic=logarithmic)
    return Axis(key, spaced(span, _count(str(given["count"]), where), logarithmic), is_spaced=True)


def spaced(span: tuple[float, float], count: int, logarithmic: bool) -> tuple[float | int, ...]:
    """So many values from end to end; whole numbers where all of them are."""
    low, high = span
    found = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    # As people would write them: 0.15 and not 0.15000000000000002.
    values = [float(f"{value:.12g}") for value in found]
    if all(value.is_integer() for value in values) and not logarithmic:
        return tuple(int(value) for value in values)
    return tuple(values)


def points(axes: Sequence[Axis], draws: int, seed: int) -> list[dict[str, Any]]:
    """Every combination of the listed values, each with each of ``draws`` draws of what is drawn, in a fixed order.

    Draws that are the same to the last digit, as those of a few whole numbers may be, are one.

    Raises
    ------
    OptionError
        If there are more than :data:`POINTS_MAX`.
    """
    listed = [axis for axis in axes if not axis.is_random]
    drawn = [axis for axis in axes if axis.is_random]
    rng = np.random.default_rng(seed)
    rows = dict.fromkeys(tuple(axis.draw(rng) for axis in drawn) for _ in range(draws if drawn else 1))
    # Before they are there: a few long axes make more than memory holds.
    count = len(rows) * math.prod(len(axis.values) for axis in listed)
    if count > POINTS_MAX:
        raise OptionError(f"{count:,} combinations of values; {POINTS_MAX:,} is the most")
    samples = [dict(zip((axis.key for axis in drawn), row, strict=True)) for row in rows]
    grid = itertools.product(*(axis.values for axis in listed))
    return [
        dict(zip((axis.key for axis in listed), values, strict=True)) | sample for values in grid for sample in samples
    ]


def require_varied(axes: Sequence[Axis], draws: int) -> None:
    """Refuse axes that name a key twice, have no values or none of a sweep's keys, and draws without anything to draw.

    Raises
    ------
    OptionError
        Naming the axis.
    """
    keys = [axis.key for axis in axes]
    for axis in axes:
        if keys.count(axis.key) > 1:
            raise OptionError(f"--set {axis.key}: is there twice; list all values in one place")
        if not axis.is_random and not axis.values:
            raise OptionError(f"--set {axis.key}: no values, and so nothing to run")
        for other in NOT_VARIED:
            if axis.key == other or axis.key.startswith(f"{other}."):
                raise OptionError(f"--set {axis.key}: is not for a sweep to vary")
            if other.startswith(f"{axis.key}."):
                raise OptionError(
                    f"--set {axis.key}: is a table, and {other} in it not for a sweep to vary; name a key"
                )
    drawn = [axis.key for axis in axes if axis.is_random]
    if drawn and draws < 1:
        raise OptionError(f"--set {drawn[0]}: is drawn; say how often with --draws N")
    if draws > POINTS_MAX:
        raise OptionError(f"--draws {draws:,}: {POINTS_MAX:,} is the most")
    if not drawn and draws:
        raise OptionError("--draws: no axis is drawn; write --set KEY=FROM~TO")


def _split(text: str) -> list[str]:
    """At commas, but not inside of brackets."""
    parts, depth, begun = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append(text[begun:place])
            begun = place + 1
    parts.append(text[begun:])
    return [part.strip() for part in parts if part.strip()]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _span(ends: Sequence[str], where: str, *, logarithmic: bool) -> tuple[float, float]:
    if len(ends) != 2 or not all(map(_is_number, ends)):
        raise OptionError(f"{where}: a range has two numbers")
    low, high = map(float, ends)
    if low >= high:
        raise OptionError(f"{where}: {low:g} must be below {high:g}")
    if logarithmic and low <= 0:
        raise OptionError(f"{where}: {low:g} has no logarithm")
    return low, high


def _count(text: str, where: str) -> int:
    if not text.strip().isdecimal() or not 2 <= int(text) <= COUNT_MAX:
        raise OptionError(f"{where}: {text} values; must be 2 to {COUNT_MAX:,}")
    return int(text)


def _distinct(values: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    # As numbers: 1 and 1.0 are one value.
    alike = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    written = [json.dumps(value, default=str) for value in alike]
    twice = next((text for text in written if written.count(text) > 1), None)
    if twice is not None:
        raise OptionError(f"{where}: {twice} is there twice")
    return values
