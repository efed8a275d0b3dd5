"""The heap of a soak's workers: before the first segment, and between two."""

from __future__ import annotations

import ctypes
import gc
import sys

_NAMES = 2**17
"""More than CPython's table of names has room for in a process like ours: 87,381, of which 75,000 are taken."""


def make_room_for_names() -> None:
    """Let CPython's table of interned strings grow now to where it stays.

    Names that go leave their places taken until the table is made anew, three times as large as what is in it. With a
    few for each order that comes once, after some 10,000 orders: a step of 1.9 MB that looks like a slope and is none.
    """
    if sys.version_info[:2] == (3, 12):
        return  # There no name ever goes.
    for number in range(_NAMES):
        sys.intern(f"sage-passing-name-{number}")


def settle() -> None:
    """Free what is not used, and give the pages back to the system.

    Engines and what belongs to them hold each other; without a collection their end would come at any time. And what
    glibc keeps of freed memory is a matter of where things happen to lie: it would show as growth that is none.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
