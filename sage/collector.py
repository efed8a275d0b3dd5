"""Fills a :class:`~sage.vitals.Vitals` from inside a run, while it goes on.

collector = VitalsCollector(tell=show)  # ``show`` gets one about twice a second
run_backtest(config, observer=collector)
"""

from __future__ import annotations

import dataclasses
import gc
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from regime.detector import Detector, Timing
from regime.recorded import RecordedDetector
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Level, Reason, Signal
from sage.ledger import BookEntry, Ledger
from sage.percentiles import Latencies
from sage.processes import MachineSample
from sage.vitals import NO_LATENCY, LatencyFigures, Vitals

MINUTE_S = 60.0
TELL_EVERY_S = 0.5

COVERAGE_BARS = 1_000
MIN_COVERAGE_BARS = 100
"""Outcomes without which their share says nothing."""

_RATE_OVER_S = 10
_COUNTED_AT_ONCE = 512
_OPENINGS, _RESTARTS, _RECYCLED, _ORDERS = "openings", "restarts", "recycled", "orders"


@dataclass(frozen=True)
class Insides:
    """What a run is made of, for whoever looks on. ``books`` grows by the bar, ``orders`` tells how many were sent."""

    bars: int
    detector: Detector | RecordedDetector
    client: ModelClient | None
    ledger: Ledger
    books: Sequence[BookEntry]
    orders: Callable[[], int]


class Observer(Protocol):
    """Looks on from inside while NT runs. What it does costs the run its time."""

    def attach(self, insides: Insides) -> None:
        """A run begins."""

    def hear(self, answer: Signal | BarRejected, timing: Timing) -> None:
        """The detector has answered a bar; the strategy has not heard of it yet."""

    def detach(self) -> None:
        """The run is over, well or not; its parts must not be kept."""


class VitalsCollector:
    """An :class:`Observer` of one run or of several, one after the other; what it counts goes on from run to run.

    Takes the same memory however long it goes on.

    Parameters
    ----------
    bars_total, seconds_total
        How long all runs together will be; without either, the bars of those that have begun.
    target_ms
        What 99 of 100 signals should take at most.
    tell
        Gets the vitals every ``tell_every_s``, from the thread that trades and between two bars.
    machine
        Gives the newest sample of processes and memory, at once.
    stopwatch
        Seconds that pass.
    """

    def __init__(
        self,
        bars_total: int | None = None,
        seconds_total: float | None = None,
        target_ms: float = Vitals.target_ms,
        tell: Callable[[Vitals], None] | None = None,
        tell_every_s: float = TELL_EVERY_S,
        machine: Callable[[], MachineSample | None] = lambda: None,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._plan = bars_total, seconds_total, target_ms
        self._tell, self._tell_every_s, self._tell_at = tell, tell_every_s, -math.inf
        self._machine = machine
        self._stopwatch = stopwatch
        self._insides: Insides | None = None
        self._kept = Vitals(target_ms=target_ms)
        self._begun_bars = 0
        # Counts of the parts go on where those of the parts before ended, however these began.
        self._base: Counter[str] = Counter()
        self._pace = _Pace(stopwatch)
        self._bars = self._signals = self._rejections = self._degraded_bars = 0
        self._ts_ns = 0
        self._level = ""
        self._levels = [0] * len(Level)
        self._reasons: Counter[Reason] = Counter()
        self._waited_s, self._queue_bars = 0.0, 0
        self._coverage = _Coverage()
        self._growth = _Growth()

    def attach(self, insides: Insides) -> None:
        """A run begins: its detector, client and books take the place of those before."""
        self._insides = insides
        self._begun_bars += insides.bars
        self._base.subtract(self._counts(insides))
        self._coverage.forget()
        self._growth.begin(insides.ledger.cash)

    def due(self, waited_s: float, queue_bars: int) -> None:
        """Say of the bar to come how long it has been due, and how many others are: where bars come at a rate."""
        self._waited_s, self._queue_bars = waited_s, queue_bars

    def hear(self, answer: Signal | BarRejected, timing: Timing) -> None:
        """Take in what became of a bar."""
        insides = self._insides
        assert insides is not None
        now = self._pace.tick(self._bars)
        self._bars += 1
        self._ts_ns = answer.ts_event
        if isinstance(answer, Signal):
            self._take_in(answer)
            self._pace.answered(self._waited_s + timing.total_ms / 1e3)
            if isinstance(insides.detector, Detector):
                self._coverage.take_in(answer, insides.detector)
        else:
            self._rejections += 1
        if insides.books:
            self._growth.reach(insides.books[-1].equity)
        if self._tell is not None and now >= self._tell_at:
            self._tell(self.vitals())
            self._tell_at = self._stopwatch() + self._tell_every_s

    def detach(self) -> None:
        """The run is over: keep what it came to, and none of its parts."""
        if self._insides is None:
            return
        self._kept = self.vitals()
        self._base.update(self._counts(self._insides))
        self._insides = None
        if self._tell is not None:
            self._tell(self._kept)

    def vitals(self) -> Vitals:
        """How things are now; a few times a second at most, for percentiles take a millisecond or two."""
        bars_total, seconds_total, target_ms = self._plan
        planned = self._begun_bars if bars_total is None and seconds_total is None else bars_total
        found = dataclasses.replace(
            self._pace.read(self._kept, self._bars),
            ts_ns=self._ts_ns,
            seconds_total=seconds_total,
            bars=self._bars,
            bars_total=planned,
            signals=self._signals,
            rejections=self._rejections,
            levels={level.name: count for level, count in zip(Level, self._levels, strict=True) if count},
            reasons={str(reason): count for reason, count in dict(self._reasons).items()},
            level=self._level,
            degraded_bars=self._degraded_bars,
            target_ms=target_ms,
            queue_bars=self._queue_bars,
            coverage=self._coverage.share,
            drawdown=self._growth.drawdown,
            gc_collections=_collections(),
            machine=self._machine(),
        )
        return found if self._insides is None else self._with_parts(found, self._insides)

    def _take_in(self, signal: Signal) -> None:
        level = signal.level
        self._signals += 1
        self._levels[level] += 1
        self._level = level.name
        if level is Level.FULL:
            self._degraded_bars = 0
            return
        self._reasons.update(signal.reasons)
        faulty = any(reason.is_fault for reason in signal.reasons)
        self._degraded_bars = self._degraded_bars + 1 if faulty else 0

    def _with_parts(self, vitals: Vitals, insides: Insides) -> Vitals:
        """What detector, client and books know themselves."""
        counts = Counter(self._base)
        counts.update(self._counts(insides))
        newest = insides.books[-1] if insides.books else None
        vitals = dataclasses.replace(
            vitals,
            breaker_openings=counts.pop(_OPENINGS, 0),
            model_restarts=counts.pop(_RESTARTS, 0),
            model_recycled=counts.pop(_RECYCLED, 0),
            orders=counts.pop(_ORDERS, 0),
            forecast_failures={str(reason): count for reason, count in sorted(counts.items()) if count},
            equity=newest.equity if newest else insides.ledger.cash,
            exposure=newest.exposure if newest else 0.0,
        )
        if not isinstance(insides.detector, Detector):
            return vitals
        state = insides.detector.state
        alerts = tuple(state.alerts.active.values())
        return dataclasses.replace(
            vitals,
            breaker=str(state.breaker.state),
            nominal_coverage=1.0 - insides.detector.config.calibration.miscoverage,
            unhealthy=state.health.unhealthy,
            drifted=tuple(alert.name.removeprefix("drift.") for alert in alerts if alert.name.startswith("drift.")),
            alerts=alerts,
        )

    @staticmethod
    def _counts(insides: Insides) -> Mapping[str, int]:
        """What the parts of a run have counted, failures by their reasons."""
        detector, client = insides.detector, insides.client
        return dict(detector.failures) | {
            _OPENINGS: detector.state.breaker.times_opened if isinstance(detector, Detector) else 0,
            _RESTARTS: client.lost if client is not None else 0,
            _RECYCLED: client.recycled if client is not None else 0,
            _ORDERS: insides.orders(),
        }


class _Pace:
    """When the first bar was, how fast they come, and how long answers take: on the whole, and minute by minute.

    Vitals may be asked for by another thread than the one that trades, so that whoever finds a minute full closes it.
    """

    def __init__(self, stopwatch: Callable[[], float]) -> None:
        # Counted many at a time, which is cheaper by half. Appended to by the trading thread alone.
        self._uncounted: list[float] = []
        self._whole, self._minute = Latencies(), Latencies()
        self._last_minute = NO_LATENCY
        self._minutes = 0
        self._stopwatch = stopwatch
        self._first: float | None = None
        self._minute_ends = self._second_ends = math.inf
        # Bars by the second: (time, bars before it), the newest last.
        self._seconds: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER_S + 1)
        self._lock = threading.Lock()

    def tick(self, bars: int) -> float:
        """Another bar after so many; the time."""
        now = self._stopwatch()
        if self._first is None:
            self._first, self._minute_ends, self._second_ends = now, now + MINUTE_S, now
        if now >= self._second_ends:
            self._seconds.append((now, bars))
            self._second_ends = now + 1.0
        if now >= self._minute_ends:
            with self._lock:
                self._close_minutes(now)
        return now

    def answered(self, seconds: float) -> None:
        """A signal came after so long."""
        self._uncounted.append(seconds)
        if len(self._uncounted) >= _COUNTED_AT_ONCE:
            with self._lock:
                self._count()

    def read(self, vitals: Vitals, bars: int) -> Vitals:
        """The vitals with time, speed and latencies of now, after so many bars."""
        if self._first is None:
            return vitals
        now = self._stopwatch()
        with self._lock:
            self._count()
            self._close_minutes(now)
            since, before = self._seconds[0]
            return dataclasses.replace(
                vitals,
                elapsed_s=now - self._first,
                bars_per_s=(bars - before) / (now - since) if now > since else 0.0,
                latency=LatencyFigures.of(self._whole),
                latency_minute=self._last_minute,
                minutes=self._minutes,
            )

    def _count(self) -> None:
        for seconds in (found := self._uncounted[:]):
            self._whole.record(seconds)
            self._minute.record(seconds)
        del self._uncounted[: len(found)]

    def _close_minutes(self, now: float) -> None:
        if now < self._minute_ends:
            return
        self._count()
        passed = 1 + math.floor((now - self._minute_ends) / MINUTE_S)
        # Where more than one has passed there was no answer in the last of them.
        self._last_minute = LatencyFigures.of(self._minute if passed == 1 else Latencies())
        self._minute = Latencies()
        self._minutes += passed
        self._minute_ends += passed * MINUTE_S


class _Coverage:
    """Of the last outcomes, how many lay in the interval that the signal before had given for them."""

    def __init__(self) -> None:
        self._held: deque[bool] = deque(maxlen=COVERAGE_BARS)
        self._inside = 0
        self._interval: tuple[float, float] | None = None

    @property
    def share(self) -> float | None:
        """None before there are enough."""
        return self._inside / len(self._held) if len(self._held) >= MIN_COVERAGE_BARS else None

    def forget(self) -> None:
        """What the last interval was about will not come."""
        self._interval = None

    def take_in(self, signal: Signal, detector: Detector) -> None:
        """The bar of this signal is the outcome of the one before, unless a gap lies between."""
        window, interval = detector.state.window, self._interval
        if interval is not None and not window.restarted_now:
            low, high = interval
            # An interval without bounds promises nothing, and counts as missed.
            held = -math.inf < low <= float(window.returns.view(1)[0]) <= high < math.inf
            if len(self._held) == COVERAGE_BARS:
                self._inside -= self._held[0]
            self._held.append(held)
            self._inside += held
        self._interval = signal.bar_interval_low, signal.bar_interval_high


class _Growth:
    """Drawdown over several runs, whatever cash each of them began with."""

    def __init__(self) -> None:
        self._before = self._now = self._peak = 1.0
        self._cash = 1.0

    @property
    def drawdown(self) -> float:
        """Share lost since the peak."""
        return 1.0 - self._now / self._peak

    def begin(self, cash: float) -> None:
        """A run begins with so much."""
        self._before, self._cash = self._now, cash

    def reach(self, equity: float) -> None:
        """The equity at a bar."""
        self._now = self._before * max(0.0, equity) / self._cash
        self._peak = max(self._peak, self._now)


def _collections() -> tuple[int, int, int]:
    first, second, third = (generation["collections"] for generation in gc.get_stats())
    return first, second, third
