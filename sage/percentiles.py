"""Latencies in an HdrHistogram, and percentiles that are printed only where there is enough to print them."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

from hdrh.histogram import HdrHistogram

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}

BEYOND = 10
"""A percentile is told only if so many answers lie beyond it: p99 needs 1,000 answers, p99.9 needs 10,000."""

EDGES_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper edges of the few wide buckets by which latencies of several runs or machines can be added up."""

_LONGEST_US = 3_600_000_000
_DIGITS = 3


class Latencies:
    """A histogram of latencies, exact to three digits between a microsecond and an hour."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
        self._counts = [0] * (len(EDGES_S) + 1)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def record(self, seconds: float) -> None:
        """Count one answer."""
        self.sum_s += seconds
        self._counts[bisect_left(EDGES_S, seconds)] += 1
        self._histogram.record_value(min(max(1, round(1e6 * seconds)), _LONGEST_US))

    def at(self, percentile: float) -> float | None:
        """Latency in milliseconds at a percentile, or None where there are too few answers for it."""
        if len(self) < answers_needed(percentile):
            return None
        return float(self._histogram.get_value_at_percentile(percentile)) / 1e3

    def summary(self) -> dict[str, float | None]:
        """The usual percentiles and the maximum, in milliseconds."""
        highest = self._histogram.get_max_value() / 1e3 if len(self) else None
        enough = [percentile for percentile in PERCENTILES.values() if len(self) >= answers_needed(percentile)]
        found = self._histogram.get_percentile_to_value_dict(enough)  # all in one pass
        told = {
            name: found[percentile] / 1e3 if percentile in found else None for name, percentile in PERCENTILES.items()
        }
        return told | {"max": highest}

    def buckets(self) -> tuple[int, ...]:
        """How many answers took at most so long, for each of ``EDGES_S``."""
        return tuple(accumulate(self._counts[:-1]))

    def encoded(self) -> str:
        """The histogram, in microseconds, in HdrHistogram's own compressed format (base64)."""
        return str(self._histogram.encode().decode())

    def curve(self) -> tuple[list[float], list[float]]:
        """Percentiles and their latencies in milliseconds, as far out as there is a single answer beyond."""
        percentiles, latencies = [], []
        beyond = 1.0
        while beyond >= 1.0 / max(1, len(self)):
            percentile = 100.0 * (1.0 - beyond)
            percentiles.append(percentile)
            latencies.append(float(self._histogram.get_value_at_percentile(percentile)) / 1e3)
            beyond /= 10**0.1
        return percentiles, latencies


def answers_needed(percentile: float) -> int:
    """How many answers it takes to tell a percentile."""
    return math.ceil(BEYOND / (1.0 - percentile / 100.0) - 1e-6)
