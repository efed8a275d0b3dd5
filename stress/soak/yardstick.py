"""How fast the machine is just now, by the time that a fixed piece of work takes.

Machines are shared: a latency that rises with everything else on them is no drift of ours.
"""

from __future__ import annotations

import time

import numpy as np

_TRIES = 3
_VALUES, _LOOPS = 10_000, 5_000


class Yardstick:
    """A piece of work of about a millisecond, half of it Python's and half of it NumPy's, on one core."""

    def __init__(self) -> None:
        self._values = np.random.default_rng(0).standard_normal(_VALUES)

    def measure_ms(self) -> float:
        """How long it takes, in milliseconds: the best of three, so that one wait for a core does not count."""
        return min(self._once_ms() for _ in range(_TRIES))

    def _once_ms(self) -> float:
        began = time.perf_counter()
        np.sort(self._values)
        sum(number * number for number in range(_LOOPS))
        return 1e3 * (time.perf_counter() - began)
