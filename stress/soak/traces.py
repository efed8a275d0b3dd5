"""Simulated memory of hours, with a known leak: what ``stress.soak.growth`` is judged on.

Every trace has segments of 30 to 80 seconds whose memory saws up and falls back by 4 to 16 MB; a warm-up of 20 to 80 MB
that dies away in a mixture of two times, the slower one up to 9 minutes; three steps up of the allocator early on, of
6 MB on average; and a spike of 40 MB on average in one sample of a hundred. On that comes a kind of noise.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from scipy.signal import lfilter

from stress.soak.pieces import Floats, Integers, Trace

SAMPLES_PER_HOUR = 360
_BARS_PER_HOUR = 400_000.0


class Noise(StrEnum):
    """What disturbs the memory beside saw teeth, warm-up, steps and spikes.

    Autoregressive noise has a standard deviation of 3 MB and its coefficient per sample in its name.
    """

    AR_900 = "AR(1) 0.9"
    AR_990 = "AR(1) 0.99"
    AR_995 = "AR(1) 0.995"
    LOOSE_SAW = "saw teeth beside the phases"
    ARENAS = "arenas mapped and given back"
    WALK = "saturating walk"
    RECYCLED = "worker recycled, AR(1) 0.9"


def simulated(noise: Noise, hours: float, leak_mb_per_hour: float, seed: int) -> Trace:
    """Memory with a leak of that size; noise, hours and seed decide all else."""
    rng = np.random.default_rng([list(Noise).index(noise), round(hours * 3600), seed])
    count = round(hours * SAMPLES_PER_HOUR)
    at = (np.arange(count) + 1.0) / SAMPLES_PER_HOUR
    phases = int(rng.integers(3, 9))
    phase = np.arange(count) % phases
    generation = _generations(noise, at, phase, rng)
    began = at[np.searchsorted(generation, generation)]
    age = at - began
    level = rng.normal(0.0, 15.0, generation[-1] + 1)[generation]
    fast, slowly = rng.uniform(0.5, 3.0) / 60.0, rng.uniform(0.0, 0.5)
    cold = (1.0 - slowly) * np.exp(-age / fast) + slowly * np.exp(-age / (3.0 * fast))
    warm_up = rng.uniform(20.0, 80.0) * (1.0 - cold)
    saw = rng.uniform(4.0, 16.0) * (phase / phases) ** rng.uniform(0.5, 2.0)
    spikes = np.where(rng.random(count) < 0.01, rng.exponential(40.0, count), 0.0)
    early = sum((at > rng.uniform(0.0, 0.15) * hours) * rng.exponential(6.0) for _ in range(3))
    rate = _BARS_PER_HOUR * rng.uniform(0.5, 1.5)
    memory = 300.0 + leak_mb_per_hour * at + level + warm_up + saw + spikes + early + _noise(noise, count, at, rng)
    return Trace(at, np.round(at * rate), memory, phase, generation)


def _generations(noise: Noise, at: Floats, phase: Integers, rng: np.random.Generator) -> Integers:
    if noise is not Noise.RECYCLED:
        return np.zeros(len(at), dtype=np.int64)
    # Recycled between two segments.
    life_hours = rng.uniform(0.4, 1.0)
    segment = np.cumsum(phase == 0) - 1
    return np.asarray((at[phase == 0] / life_hours).astype(np.int64)[segment])


def _noise(noise: Noise, count: int, at: Floats, rng: np.random.Generator) -> Floats:
    small = rng.normal(0.0, 0.3, count)
    match noise:
        case Noise.AR_900 | Noise.RECYCLED:
            return small + _autoregressive(0.9, 3.0, count, rng)
        case Noise.AR_990:
            return small + _autoregressive(0.99, 3.0, count, rng)
        case Noise.AR_995:
            return small + _autoregressive(0.995, 3.0, count, rng)
        case Noise.LOOSE_SAW:
            period = rng.uniform(0.05, 0.3)
            return small + _autoregressive(0.9, 1.0, count, rng) + 8.0 * ((at / period + rng.uniform()) % 1.0)
        case Noise.ARENAS:
            # Each arena of 4 MB comes at random and stays for ten minutes on average.
            level = np.empty(count)
            held = int(rng.poisson(3.0))
            stays = np.exp(-1.0 / 60.0)
            for index in range(count):
                held = int(rng.binomial(held, stays)) + int(rng.poisson(3.0 * (1.0 - stays)))
                level[index] = held
            return small + 4.0 * level
        case Noise.WALK:
            # Reflected between empty and full: 25 MB, filled in about half an hour.
            walk = np.cumsum(rng.normal(0.0, 25.0 / np.sqrt(0.5 * SAMPLES_PER_HOUR), count))
            folded = np.abs(walk) % 50.0
            return small + np.where(folded > 25.0, 50.0 - folded, folded)


def _autoregressive(coefficient: float, deviation: float, count: int, rng: np.random.Generator) -> Floats:
    shocks = rng.normal(0.0, deviation * np.sqrt(1.0 - coefficient**2), count)
    shocks[0] = rng.normal(0.0, deviation)
    return np.asarray(lfilter([1.0], [1.0, -coefficient], shocks))
