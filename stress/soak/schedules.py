"""Which faults a segment of a soak holds: drawn from the catalogue by seed and number, over before it ends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stress.schedule import Schedule, random_schedule
from stress.soak.config import FAULTS_AT_ONCE, FaultLoad

LIGHT_EVERY = 4
"""With light faults one segment in so many holds one."""

LAST_SHARE = 0.6
"""Faults end by this share of a segment, so that what they broke can mend in it."""


def segment_schedule(
    load: FaultLoad, seed: int, segment: int, segment_bars: int, lengths: Mapping[str, int]
) -> Schedule:
    """The schedule of one segment, empty where nothing is to go wrong in it.

    Parameters
    ----------
    load
        How much.
    seed, segment
        All that it depends on.
    segment_bars
        Bars of a segment.
    lengths
        The longest that each fault may last, in bars.
    """
    own_seed = int(np.random.SeedSequence([seed, segment]).generate_state(1)[0])
    if load is FaultLoad.NONE or (load is FaultLoad.LIGHT and segment % LIGHT_EVERY != LIGHT_EVERY - 1):
        return Schedule(own_seed, ())
    return random_schedule(own_seed, lengths, int(LAST_SHARE * segment_bars), FAULTS_AT_ONCE[load])
