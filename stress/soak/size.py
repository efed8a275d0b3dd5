"""Whether a trading process has become too large: NautilusTrader grows by the order on some versions."""

from __future__ import annotations

from sage.processes import MachineSample

MB = 10**6
MEMORY_SHARE_MAX = 0.8
"""With more of all memory in use than that, memory is short."""

GROWN_MB = 100.0
"""Where memory is short a process is replaced once it has grown by so much: before, a new one would be no smaller."""


class Size:
    """The size of one trading process, from its first sample on; ``recycle_mb`` is the largest that it may have."""

    def __init__(self, recycle_mb: float) -> None:
        self._recycle_mb = recycle_mb
        self._first: float | None = None

    def too_large(self, sample: MachineSample | None, pid: int) -> str:
        """Why the process should make room for a new one; nothing while it need not."""
        sizes = [process.rss_bytes / MB for process in sample.processes if process.pid == pid] if sample else []
        if sample is None or not sizes:
            return ""
        self._first = sizes[0] if self._first is None else self._first
        grown = sizes[0] - self._first
        if sizes[0] > self._recycle_mb:
            return f"the trading process has come to {sizes[0]:,.0f} MB"
        if sample.used_bytes > MEMORY_SHARE_MAX * sample.limit_bytes and grown > GROWN_MB:
            return f"memory is short, and the trading process has grown by {grown:,.0f} MB"
        return ""
