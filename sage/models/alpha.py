"""What an alpha model is: something that looks at past bars and says how much of the instrument to hold.

An alpha needs no base class. It has a ``name``, says how many bars it needs (``min_bars``) and whether it leans on
the model's forecast (``needs_model``), and votes. One that learns has a ``learn`` as well, and hears of each of its
votes once the bars it was about are over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from regime.signal import Signal

FloatArray = NDArray[np.float64]

WINDOW_BARS = 256
"""So many bars an alpha is shown at most."""


@dataclass(frozen=True)
class AlphaView:
    """What an alpha may look at when it votes, at the close of a bar.

    ``opens``, ``highs``, ``lows``, ``closes`` and ``volumes`` have shape (bars,), the oldest bar first and this one
    last: at least the alpha's ``min_bars``, at most :data:`WINDOW_BARS`. They are read-only views that are valid
    during the call; copy what is to be kept. A volume of 0 may mean that it is unknown. ``signal`` is this bar's,
    ``horizon_bars`` how far ahead a vote should look.
    """

    opens: FloatArray
    highs: FloatArray
    lows: FloatArray
    closes: FloatArray
    volumes: FloatArray
    signal: Signal
    horizon_bars: int

    @cached_property
    def returns(self) -> FloatArray:
        """Log returns from close to close, shape (bars - 1,)."""
        changes: FloatArray = np.diff(np.log(self.closes))
        return changes


@dataclass(frozen=True)
class Outcome:
    """What became of a vote, once its horizon is over.

    ``ts_ns`` is the close at which it was given, ``vote`` what was said, NaN where the vote was dropped, ``log_return``
    the close's change over the ``horizon_bars`` that followed.
    """

    ts_ns: int
    vote: float
    log_return: float


class AlphaModel(Protocol):
    """Votes on one instrument, bar by bar.

    Attributes
    ----------
    name
        Unique in a run; names columns and rows of the results.
    min_bars
        Bars without which it cannot vote, at most :data:`WINDOW_BARS`.
    needs_model
        True where a vote is worth nothing without the model's forecast: it is then not asked at levels below BASIC.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def min_bars(self) -> int: ...  # noqa: D102

    @property
    def needs_model(self) -> bool: ...  # noqa: D102

    def vote(self, view: AlphaView) -> float:
        """Conviction in [-1, 1]: 1 for as long as can be, 0 for flat, -1 for as short as can be.

        It is called once a bar, in order. What raises, is NaN or lies outside is dropped and counted.
        """
        ...


@runtime_checkable
class LearningAlpha(Protocol):
    """An alpha that learns from what became of its votes."""

    def learn(self, outcome: Outcome) -> None:
        """Hear of an earlier vote whose horizon ends with this bar. Called before this bar's vote."""
        ...


def problem_with_alpha(candidate: object) -> str | None:
    """Why this is no alpha model, or None: what is missing, what it is instead, and what to do."""
    what = type(candidate).__name__
    if isinstance(candidate, type):
        return f"{candidate.__name__} is a class; an alpha model is an object made of it"
    for attribute, kind, told in (("name", str, "a text"), ("min_bars", int, "a number of bars"),
                                  ("needs_model", bool, "True or False")):  # fmt: skip
        if not hasattr(candidate, attribute):
            return f"{what} has no `{attribute}` ({told}); see sage.models.alpha.AlphaModel"
        value = getattr(candidate, attribute)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return f"{what}.{attribute} must be {told}, not {value!r}"
    name, min_bars = getattr(candidate, "name", ""), getattr(candidate, "min_bars", 0)
    if not name.strip():
        return f"{what}.name is empty"
    if not 1 <= min_bars <= WINDOW_BARS:
        return f"{what}.min_bars is {min_bars}; it must lie between 1 and {WINDOW_BARS}, the bars an alpha is shown"
    if not callable(getattr(candidate, "vote", None)):
        return f"{what} has no method `vote(view) -> float`; see sage.models.alpha.AlphaModel"
    for method, argument in (("vote", "view"), ("learn", "outcome")):
        function = getattr(candidate, method, None)
        if function is not None and not _takes_one(function):
            return f"{what}.{method} must be a method that takes one argument, `{method}({argument})`"
    return None


def _takes_one(function: object) -> bool:
    if not callable(function) or inspect.iscoroutinefunction(function):
        return False
    checked: Callable[..., object] = function
    try:
        inspect.signature(checked).bind(None)
    except TypeError:
        return False
    except ValueError:  # a function in C that does not say
        return True
    return True
