"""The heap between two segments."""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Free what is not used, and give the pages back to the system.

    Engines and what belongs to them hold each other; without a collection their end would come at any time. And what
    glibc keeps of freed memory is a matter of where things happen to lie: it would show as growth that is none.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
