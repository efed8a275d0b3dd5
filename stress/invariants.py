"""The architecture's invariants, held against what a run left. Each violation names the invariant and the bar."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from regime.config import RegimeConfig
from regime.signal import BarRejected, Level, Signal
from sage.config import BacktestConfig
from sage.run import BacktestRun
from sage.sizing import Move
from stress.level_judge import LevelJudge
from stress.shadow import Shadow
from stress.stage import Fault
from stress.witness import Seen

CAPS = {
    Level.FULL: 1.0,
    Level.BASIC: 0.75,
    Level.SMART: 0.5,
    Level.SIMPLE: 0.35,
    Level.HISTORICAL: 0.2,
    Level.EMERGENCY: 0.0,
}
"""The levels table of the architecture, once more."""

NAMES = {
    1: "one signal per accepted bar",
    2: "nothing depends on a later bar",
    3: "the level recorded is the one that answered",
    4: "a signal is out within its deadline",
    5: "exposure keeps its rules",
    6: "level 0 returns",
    7: "the same inputs give the same run",
}

_ROUNDING = 1e-9
_SLACK_BARS = 2
"""An order that is due may have to wait for one that is under way, and takes a bar to fill."""


@dataclass(frozen=True)
class Violation:
    """``bar`` is the market's, from 1; 0 where it is the run as a whole."""

    invariant: int
    bar: int
    what: str

    def __str__(self) -> str:
        where = f"bar {self.bar}" if self.bar else "the run as a whole"
        return f"invariant {self.invariant} ({NAMES[self.invariant]}), {where}: {self.what}"


@dataclass(frozen=True)
class Evidence:
    """What one run left, and what was seen of it.

    ``given_bars`` is how many bars were handed to the detector, ``faults`` are those of the schedule. ``back_by`` is
    the bar by which level 0 must have answered again, ``faults_end`` the first one after the last fault. ``orphans``
    counts model processes left behind. ``error`` is why the run did not reach its end, if so; ``run`` is then None.
    On the wall clock (``simulated_time`` False) lateness is not judged.
    """

    config: BacktestConfig
    bar_seconds: int
    market_bars: int
    run: BacktestRun | None
    seen: Sequence[Seen]
    given_bars: int
    faults: Mapping[str, Fault]
    faults_end: int
    back_by: int
    orphans: int = 0
    error: str = ""
    simulated_time: bool = True


class Memory:
    """What judges know of the bars before, where a detector goes on over several runs.

    Parameters
    ----------
    config
        The detector's.
    bar_seconds
        Length of a bar.
    faults
        By name, all that any of the runs may hold.
    """

    def __init__(self, config: RegimeConfig, bar_seconds: int, faults: Mapping[str, Fault]) -> None:
        self.shadow = Shadow(config, bar_seconds)
        self.judge = LevelJudge(config, bar_seconds, faults)

    def remembered(self) -> tuple[Shadow, dict[str, object]]:
        """All of it, without the faults, which no process can send to another."""
        return self.shadow, self.judge.remembered()

    def recall(self, remembered: tuple[Shadow, dict[str, object]]) -> None:
        """Go on from what another one remembered."""
        self.shadow = remembered[0]
        self.judge.recall(remembered[1])

    @classmethod
    def none(cls, evidence: Evidence) -> Memory:
        """Where the run is the detector's first."""
        return cls(evidence.config.regime, evidence.bar_seconds, evidence.faults)


def violations(evidence: Evidence, memory: Memory | None = None) -> list[Violation]:
    """All that one run violates, of what one run can show: invariants 1 and 3 to 6.

    ``memory`` is what earlier runs of the same detector left; this one is added to it.
    """
    memory = memory or Memory.none(evidence)
    found = [*one_answer_per_bar(evidence, memory), *level_is_true(evidence, memory), *in_time(evidence)]
    return sorted([*found, *exposure_obeys(evidence), *level_0_returns(evidence)], key=lambda one: one.bar)


def one_answer_per_bar(evidence: Evidence, memory: Memory | None = None) -> Iterator[Violation]:
    """Invariant 1: a signal for each bar that can be used and a rejection for each other, recorded and published."""
    shadow = (memory or Memory.none(evidence)).shadow
    for seen in evidence.seen:
        accepted = shadow.accepts(seen.bar)
        if accepted != isinstance(seen.answer, Signal):
            due = "a signal" if accepted else "a rejection"
            yield Violation(1, seen.number, f"{due} was due, the answer is a {type(seen.answer).__name__}")
        elif seen.answer.ts_event != seen.bar.ts_ns:
            yield Violation(1, seen.number, f"the answer is of {seen.answer.ts_event}, the bar of {seen.bar.ts_ns}")
    run = evidence.run
    if run is None:
        yield Violation(1, evidence.seen[-1].number + 1 if evidence.seen else 1, f"no answer: {evidence.error}")
        return
    answers = len(run.signals) + len(run.rejections)
    if not evidence.given_bars == len(evidence.seen) == answers:
        told = f"{evidence.given_bars} bars in, {len(evidence.seen)} answers out, {answers} recorded"
        yield Violation(1, 0, told)
    published = sum(isinstance(seen.heard, Signal) for seen in evidence.seen)
    ignored = sum(run.ignored_signals.values())
    if len(run.book) + ignored != published:
        yield Violation(1, 0, f"{published} signals published, {len(run.book)} traded on, {ignored} refused")
    if evidence.orphans:
        yield Violation(1, 0, f"{evidence.orphans} model processes left behind")


def level_is_true(evidence: Evidence, memory: Memory | None = None) -> Iterator[Violation]:
    """Invariant 3: levels and reasons are those that follow from the bars and from what the model said."""
    judge = (memory or Memory.none(evidence)).judge
    for seen in evidence.seen:
        for what in judge.look(seen):
            yield Violation(3, seen.number, what)


def in_time(evidence: Evidence) -> Iterator[Violation]:
    """Invariant 4, on simulated time."""
    deadline_ms = evidence.config.regime.deadline_ms
    for seen in evidence.seen if evidence.simulated_time else ():
        if 1e3 * seen.took_s > deadline_ms:
            yield Violation(4, seen.number, f"took {1e3 * seen.took_s:.3f} ms, the deadline is {deadline_ms:g} ms")


def exposure_obeys(evidence: Evidence) -> Iterator[Violation]:
    """Invariant 5: caps, holding times, nothing opened where nothing is known, no order beyond what a volume bears."""
    sizing = evidence.config.sizing
    over_bars = emergency_bars = overdue_bars = 0
    caps: deque[float] = deque(maxlen=sizing.degrade_hold_bars + 1)
    for seen in evidence.seen:
        if not seen.book:
            if seen.orders:
                why = "a rejected bar" if isinstance(seen.heard, BarRejected) else "a signal that it refused"
                yield Violation(5, seen.number, f"{len(seen.orders)} orders on {why}")
            continue
        assert isinstance(seen.heard, Signal)
        level, before = seen.heard.level, seen.book[-1].exposure
        cap = CAPS[level] * sizing.max_exposure
        if level is Level.EMERGENCY:
            emergency_bars += 1
            due = emergency_bars >= sizing.emergency_flatten_bars and before != 0.0
        else:
            emergency_bars = 0
            caps.append(cap)
            over_bars = over_bars + 1 if abs(before) > cap + sizing.rebalance_band / 2 else 0
            # A cap counts once it has lasted: a poorer answer on the way down is held like the first one.
            due = over_bars > sizing.degrade_hold_bars and abs(before) > max(caps) + sizing.rebalance_band / 2
        overdue_bars = overdue_bars + 1 if due and not seen.orders and seen.book[-1].equity > 0 else 0
        if overdue_bars > _SLACK_BARS:
            yield Violation(5, seen.number, f"exposure {before:.4f} at level {level.name} still held, cap {cap:g}")
        for what in _orders(seen, level, cap, *_bearable(evidence, seen)):
            yield Violation(5, seen.number, what)
        if seen.orders and level is not Level.EMERGENCY and over_bars and not due:
            yield Violation(5, seen.number, f"reduced after {over_bars} bars over the cap, which held less long")
        if seen.orders and level is Level.EMERGENCY and emergency_bars < sizing.emergency_flatten_bars:
            yield Violation(5, seen.number, f"an order after {emergency_bars} bars of EMERGENCY")


def _bearable(evidence: Evidence, seen: Seen) -> tuple[float, float]:
    """What the volume of a bar lets be ordered at it, and the step of sizes; simulated volumes are all known."""
    share = evidence.config.costs.participation
    if evidence.run is None or not share:
        return math.inf, 0.0
    market = evidence.run.market
    return share * float(market.bars.volume[seen.number - 1]), market.instrument.size_increment.as_double()


def _orders(seen: Seen, level: Level, cap: float, bearable: float, step: float) -> Iterator[str]:
    held = seen.book[-1].exposure
    ordered = sum(abs(order.quantity) for order in seen.orders)
    if ordered > bearable * (1.0 + _ROUNDING):
        yield f"orders of {ordered:g} at a bar whose volume bears {bearable:g}"
    cut_short = ordered > bearable - 1.01 * step
    for order in seen.orders:
        if abs(order.exposure_before - held) > 1e-6:
            yield f"an order from exposure {order.exposure_before:.6f}, held was {held:.6f}"
        held = order.exposure_after
        reduces = abs(order.exposure_after) < abs(order.exposure_before)
        if not reduces and abs(order.exposure_after) > cap + _ROUNDING:
            yield f"an order to exposure {order.exposure_after:.6f}, the cap of {level.name} is {cap:g}"
        if order.reduce_only != reduces:
            yield f"an order {order.quantity} is marked reduce_only={order.reduce_only}"
        # To nothing, be it in several bars where the volume of one does not bear it.
        flattens = order.move is Move.FLATTEN and (abs(order.exposure_after) <= _ROUNDING or (reduces and cut_short))
        if level is Level.EMERGENCY and not flattens:
            yield f"an order to {order.exposure_after:.6f} ({order.move}) at EMERGENCY"
        if order.level is not level:
            yield f"an order of level {order.level.name}, the signal is of {level.name}"


def level_0_returns(evidence: Evidence) -> Iterator[Violation]:
    """Invariant 6: level 0 answers again, at the latest, when everything that was lost can have been built up again."""
    if evidence.run is None or evidence.back_by > evidence.market_bars:
        return
    for seen in evidence.seen:
        if seen.number >= evidence.faults_end and isinstance(seen.answer, Signal) and seen.answer.level is Level.FULL:
            if seen.number > evidence.back_by:
                yield Violation(6, seen.number, f"level 0 only now, at the latest it was due at bar {evidence.back_by}")
            return
    yield Violation(6, evidence.back_by, f"level 0 never again after the last fault ended at bar {evidence.faults_end}")


def same_before_cut(whole: BacktestRun, part: BacktestRun) -> Iterator[Violation]:
    """Invariant 2: a run whose market ends early is, up to its end, the run whose market goes on."""
    last_ns = part.market.nautilus_bars[-1].ts_init
    number = len(part.market.nautilus_bars)
    if whole.answer_stamps[: len(part.answer_stamps)] != part.answer_stamps:
        yield Violation(2, number, "other bars are answered where the market ends at this bar")
    pairs = (
        ("signals", whole.signals[: len(part.signals)], part.signals),
        ("rejections", whole.rejections[: len(part.rejections)], part.rejections),
        ("orders", [order for order in whole.sent_orders if order.ts_ns <= last_ns], part.sent_orders),
        ("fills", [fill for fill in whole.ledger.fills if fill.ts_ns <= last_ns], part.ledger.fills),
        ("books", whole.book[: len(part.book)], part.book),
    )
    for name, of_whole, of_part in pairs:
        if repr(of_whole) != repr(of_part):
            at = next((i for i, (a, b) in enumerate(zip(of_whole, of_part, strict=False)) if repr(a) != repr(b)), -1)
            yield Violation(2, number, f"{name} differ where the market ends at this bar, first at {name} {at}")
