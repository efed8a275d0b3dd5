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

_RATE_OVER_S, _RATE_FROM_S = 10, 0.25
_TAKEN_IN_AT_ONCE = 512
_OPENINGS, _RESTARTS, _RECYCLED, _ORDERS = "openings", "restarts", "recycled", "orders"

_Heard = tuple[Signal | BarRejected, float, float | None]
"""An answer, the seconds that it took, and by how much its bar moved, see :func:`_moved`."""


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
        # Taken in many at a time: between two bars the processor has forgotten how that goes. Vitals may be asked for
        # by another thread than the one that trades; whoever asks takes in what there is.
        self._heard: list[_Heard] = []
        self._lock = threading.Lock()
        self._look_at = -math.inf
        self._pace = _Pace()
        self._bars = self._signals = self._rejections = self._degraded_bars = 0
        self._ts_ns = 0
        self._level = ""
        self._levels = [0] * len(Level)
        self._reasons: Counter[Reason] = Counter()
        self._waited_s, self._queue_bars = 0.0, 0
        self._coverage = _Coverage()
        self._growth = _Growth()
        self._booked = 0

    def attach(self, insides: Insides) -> None:
        """A run begins: its detector, client and books take the place of those before."""
        self._insides = insides
        self._begun_bars += insides.bars
        self._base.subtract(self._counts(insides))
        self._coverage.forget()
        self._growth.begin(insides.ledger.cash)
        self._booked = 0

    def due(self, waited_s: float, queue_bars: int) -> None:
        """Say of the bar to come how long it has been due, and how many others are: where bars come at a rate."""
        self._waited_s, self._queue_bars = waited_s, queue_bars

    def hear(self, answer: Signal | BarRejected, timing: Timing) -> None:
        """Take in what became of a bar."""
        now = self._stopwatch()
        if now >= self._look_at or len(self._heard) >= _TAKEN_IN_AT_ONCE:
            with self._lock:
                self._pace.begin(now)
                self._catch_up(now)
                self._look_at = min(now + 1.0, self._pace.minute_ends)
        assert self._insides is not None
        moved = _moved(self._insides.detector)
        self._heard.append((answer, self._waited_s + timing.total_ms / 1e3, moved))
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
        with self._lock:
            return self._vitals(self._stopwatch())

    def _vitals(self, now: float) -> Vitals:
        self._catch_up(now)
        bars_total, seconds_total, target_ms = self._plan
        planned = self._begun_bars if bars_total is None and seconds_total is None else bars_total
        found = dataclasses.replace(
            self._pace.read(self._kept, now, self._bars),
            ts_ns=self._ts_ns,
            seconds_total=seconds_total,
            bars=self._bars,
            bars_total=planned,
            signals=self._signals,
            rejections=self._rejections,
            levels={level.name: count for level, count in zip(Level, self._levels, strict=True) if count},
            reasons={str(reason): count for reason, count in self._reasons.items()},
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

    def _catch_up(self, now: float) -> None:
        """Take in all that was heard and, at the turn of a minute, close it."""
        heard = self._heard[:]
        for answer, seconds, moved in heard:
            if isinstance(answer, Signal):
                self._take_in(answer)
                self._pace.answered(seconds)
                if moved is not None:
                    self._coverage.take_in(answer, moved)
            else:
                self._rejections += 1
            self._ts_ns = answer.ts_event
        del self._heard[: len(heard)]
        self._bars += len(heard)
        if self._insides is not None:
            entries = self._insides.books[self._booked :]
            for entry in entries:
                self._growth.reach(entry.equity)
            self._booked += len(entries)
        self._pace.look(now, self._bars)

    def _take_in(self, signal: Signal) -> None:
        level = signal.level
        self._signals += 1
        self._levels[level] += 1
        self._level = level.name
        if level is Level.FULL:
            self._degraded_bars = 0
            return
        self._reasons.update(set(signal.reasons))
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


def _moved(detector: Detector | RecordedDetector) -> float | None:
    """The newest bar's log return: NaN where it is nobody's outcome, None where there is no window to look into."""
    if not isinstance(detector, Detector):
        return None
    window = detector.state.window
    return math.nan if window.restarted_now else window.returns.newest


class _Pace:
    """When the first bar was, how fast they come, and how long answers take: on the whole, and minute by minute."""

    def __init__(self) -> None:
        self._whole, self._minute = Latencies(), Latencies()
        self._last_minute = NO_LATENCY
        self._minutes = 0
        self._first: float | None = None
        self.minute_ends = math.inf
        # Bars by the second: (time, bars before it), the newest last.
        self._seconds: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER_S + 1)

    def begin(self, now: float) -> None:
        """A bar is here; the clock starts at the first."""
        if self._first is None:
            self._first, self.minute_ends = now, now + MINUTE_S
            self._seconds.append((now, 0))

    def answered(self, seconds: float) -> None:
        """A signal came after so long."""
        self._whole.record(seconds)
        self._minute.record(seconds)

    def look(self, now: float, bars: int) -> None:
        """So many bars by now: see whether a second or a minute has passed."""
        if self._seconds and now - self._seconds[-1][0] >= 1.0:
            self._seconds.append((now, bars))
        if now < self.minute_ends:
            return
        passed = 1 + math.floor((now - self.minute_ends) / MINUTE_S)
        # Where more than one has passed there was no answer in the last of them.
        self._last_minute = LatencyFigures.of(self._minute if passed == 1 else Latencies())
        self._minute = Latencies()
        self._minutes += passed
        self.minute_ends += passed * MINUTE_S

    def read(self, vitals: Vitals, now: float, bars: int) -> Vitals:
        """The vitals with time, speed and latencies of now, after so many bars."""
        if self._first is None:
            return vitals
        since, before = self._seconds[0]
        return dataclasses.replace(
            vitals,
            elapsed_s=now - self._first,
            bars_per_s=(bars - before) / (now - since) if now - since >= _RATE_FROM_S else 0.0,
            latency=LatencyFigures.of(self._whole),
            latency_minute=self._last_minute,
            minutes=self._minutes,
        )


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

    def take_in(self, signal: Signal, moved: float) -> None:
        """The bar of this signal moved by so much, which is the outcome of the signal before unless it is NaN."""
        if self._interval is not None and not math.isnan(moved):
            low, high = self._interval
            # An interval without bounds promises nothing, and counts as missed.
            held = -math.inf < low <= moved <= high < math.inf
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
