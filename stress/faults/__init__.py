"""The catalogue of faults: every way that is known in which model, checkpoint, data, clock or machine go wrong.

A fault knows what it does, how it ends and what it amounts to. What must then be seen stands in
:mod:`stress.expectations`, and who judges it in :mod:`stress.judgement`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from data.errors import OptionError
from stress.faults import calibration, checkpoint, clock, history, indicators, machine, market, model, signals
from stress.stage import Fault

_FAMILIES = (model, checkpoint, calibration, indicators, history, market, clock, machine, signals)

FAULTS: dict[str, Fault] = {fault.name: fault for family in _FAMILIES for fault in family.FAULTS}
"""Faults that act on the stage of a run, by name."""

Named = TypeVar("Named")


def find(names: Iterable[str], known: Mapping[str, Named]) -> list[Named]:
    """The faults of these names. Raises OptionError for an unknown one, with the nearest that there are."""
    found = []
    for name in names:
        if name not in known:
            family = [each for each in known if each.startswith(f"{name.partition('.')[0]}.")]
            near = difflib.get_close_matches(name, known, n=3) or family
            told = f"near it: {', '.join(near)}; " if near else ""
            raise OptionError(f"fault {name!r} is unknown; {told}all of them: --list")
        found.append(known[name])
    return found
