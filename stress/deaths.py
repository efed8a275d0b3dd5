"""Kill the model process again and again, wait for recovery each time, and see what is lost and what grows.

The detector, the client, the breaker and the model process are the real ones; bars come at a constant pace, because
back-off and loading take time and a backtest's bars do not.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import psutil
from scipy.stats import theilslopes

from data.errors import OptionError
from regime.config import RegimeConfig
from regime.detector import Detector
from regime.model.checkpoint import EMBEDDED, find_checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import BarRejected, Level
from sage.progress import Progress, Silent
from stress.cases import check_deadline
from stress.stream import endless_bars

GROWTH_LIMIT_MB = 5.0
"""Of resident memory over the whole run, by its robust slope's upper 95 % bound."""

_BAR_SECONDS = 3600
_FIRST_COUNTED = 0.2
"""Share of the kills that may warm up allocators and caches before memory is compared."""


@dataclass(frozen=True)
class DeathsConfig:
    """How often to kill, and after how many answers at level FULL each time."""

    kills: int = 250
    answers_between: int = 20
    bars_per_second: float = 400.0
    deadline_ms: float = 50.0
    patience_bars: int = 4_000
    model: str = EMBEDDED
    seed: int = 7


@dataclass
class DeathsReport:
    """What came of it; memory in bytes after each recovery, delays in bars from death to level FULL."""

    config: DeathsConfig
    kills: int = 0
    bars: int = 0
    signals: int = 0
    levels: Counter[Level] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    recovery_bars: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    children_left: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def growth_mb(self) -> tuple[float, float]:
        """Growth of resident memory over the run, MB (10**6 bytes): robust slope (Theil, 1950; Sen, 1968) and its
        upper 95 % bound."""
        kept = np.array(self.resident[int(_FIRST_COUNTED * len(self.resident)) :], dtype=float) / 1e6
        if len(kept) < 3:
            return 0.0, 0.0
        slope, _, _, high = theilslopes(kept, alpha=0.95)
        return float(slope) * len(self.resident), float(high) * len(self.resident)


def check(config: DeathsConfig) -> None:
    """Refuse numbers that make no sense. Raises OptionError."""
    if config.kills < 1:
        raise OptionError(f"--kills {config.kills}: 1 or more")
    check_deadline(config.deadline_ms, RegimeConfig().reserve_ms)


def kill_repeatedly(config: DeathsConfig, progress: Progress | None = None) -> DeathsReport:
    """Run it. Raises ModelUnavailable if the model does not start at all."""
    show = progress or Silent()
    report = DeathsReport(config)
    stream = endless_bars(config.seed, _BAR_SECONDS)
    me = psutil.Process()
    others = {child.pid for child in me.children()}
    with ModelClient(
        find_checkpoint(config.model), ServingConfig(back_off_s=0.02, back_off_max_s=1.0, watch_s=0.05)
    ) as client:
        client.start()
        waiting = Detector(RegimeConfig(), "DEATHS.SIM", _BAR_SECONDS, client)
        while waiting.step(next(stream)).level is not Level.FULL:  # type: ignore[union-attr]
            pass
        subject = Detector(RegimeConfig(deadline_ms=config.deadline_ms), "DEATHS.SIM", _BAR_SECONDS, client)
        subject.restore(waiting.snapshot())
        show.stage("killing the model process", config.kills)
        good = since_death = unkilled = 0
        due = time.perf_counter()
        while report.kills < config.kills or since_death:
            due = max(due + 1.0 / config.bars_per_second, time.perf_counter() - 1.0)
            time.sleep(max(0.0, due - time.perf_counter()))
            answer = subject.step(next(stream))
            report.bars += 1
            if isinstance(answer, BarRejected):
                report.problems.append(f"bar {report.bars} was rejected: {answer.why}")
                break
            report.signals += 1
            report.levels[answer.level] += 1
            report.reasons.update(set(answer.reasons))
            full = answer.level is Level.FULL
            if since_death:
                since_death += 1
                if full:
                    _recovered(report, me, since_death - 1)
                    since_death = 0
                    show.advance(1, f"back after {report.recovery_bars[-1]} bars")
                elif since_death > config.patience_bars:
                    report.problems.append(f"no recovery within {config.patience_bars} bars of kill {report.kills}")
                    break
            good = good + 1 if full and not since_death else 0
            if good >= config.answers_between and report.kills < config.kills and client.pid is not None:
                os.kill(client.pid, signal.SIGKILL)
                report.kills += 1
                good, since_death, unkilled = 0, 1, 0
            unkilled += not since_death
            if unkilled > config.patience_bars + config.answers_between:
                report.problems.append(
                    f"no {config.answers_between} answers at level FULL in a row within {unkilled} bars: the model is "
                    f"too slow for a deadline of {config.deadline_ms:g} ms on this machine"
                )
                break
    left = [child for child in me.children() if child.pid not in others]
    report.children_left = len([child for child in left if child.status() != psutil.STATUS_ZOMBIE])
    _judge(report)
    return report


def _recovered(report: DeathsReport, me: psutil.Process, after_bars: int) -> None:
    report.recovery_bars.append(after_bars)
    gc.collect()
    report.resident.append(me.memory_info().rss)
    report.descriptors.append(me.num_fds())
    report.threads.append(me.num_threads())


def _judge(report: DeathsReport) -> None:
    if report.signals != report.bars:
        report.problems.append(f"{report.bars} bars, {report.signals} signals")
    first = int(_FIRST_COUNTED * len(report.descriptors))
    for name, counts in (("descriptors", report.descriptors), ("threads", report.threads)):
        if counts and max(counts[first:]) > counts[first]:
            report.problems.append(f"{name} grew from {counts[first]} to {max(counts[first:])}")
    growth, high = report.growth_mb
    if high > GROWTH_LIMIT_MB:
        report.problems.append(f"resident memory grew by {growth:.1f} MB (up to {high:.1f})")
    if report.children_left:
        report.problems.append(f"{report.children_left} processes left")


def as_document(report: DeathsReport) -> dict[str, object]:
    """For ``--json``; keys as in README."""
    growth, high = report.growth_mb
    recovery = sorted(report.recovery_bars)
    return {
        "kills": report.kills,
        "bars": report.bars,
        "signals": report.signals,
        "levels": {level.name: report.levels[level] for level in Level},
        "reasons": {str(reason): count for reason, count in sorted(report.reasons.items())},
        "recovery_bars": {
            "median": recovery[len(recovery) // 2] if recovery else None,
            "max": recovery[-1] if recovery else None,
        },
        "resident_mb": {
            "first": report.resident[0] / 1e6 if report.resident else None,
            "last": report.resident[-1] / 1e6 if report.resident else None,
            "growth": growth,
            "growth_upper_95": high,
        },
        "descriptors": [report.descriptors[0], report.descriptors[-1]] if report.descriptors else None,
        "threads": [report.threads[0], report.threads[-1]] if report.threads else None,
        "processes_left": report.children_left,
        "problems": report.problems,
        "passed": not report.problems,
    }
