"""What was seen of a fault, held against what must be seen: one verdict, and the sentence that says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from regime.config import RegimeConfig
from regime.signal import BarRejected, Level, Reason, Signal
from sage.run import BacktestRun
from sage.strategy import SentOrder
from stress.cases import Answered, CaseResult, InjectConfig, Phase, Placement, Verdict
from stress.expectations import (
    Damage,
    expected,
    levels_allowed,
    levels_allowed_afterwards,
    must_be_seen,
    recovery_bound_bars,
)
from stress.stage import Failure, Fault

STEADY_BARS = 3
"""Level 0 is back with the first of so many answers at it in a row."""

STRAY_SHARE = 0.25
"""On a loaded machine a sound model is late now and then: so many of a fault's bars at most are laid to the machine."""

_LOAD_MARGIN = 2.0
"""A model loads so many times as long as at the start at most: others may have taken half of the machine."""

_ROUNDING = 1e-9
_SHOWN_BEFORE, _SHOWN_AFTER = 12, 180


@dataclass(frozen=True)
class Witnessed:
    """What a rig saw of one run. Bars count from 1; ``ended_at_bar`` is the first after the fault, 0 if none was."""

    answers: Sequence[Answered]
    given: int
    load_s: float
    began_at_bar: int
    ended_at_bar: int
    scores_at_end: int
    proof: str = ""

    def during(self) -> list[Answered]:
        """What was answered while the fault lasted."""
        return [each for each in self.answers if each.phase is Phase.DURING]

    def after(self) -> list[Answered]:
        """What was answered from its end on, until the run's end."""
        return [each for each in self.answers if each.phase in {Phase.AFTER, Phase.RECOVERED}]


def judge(fault: Fault, placement: Placement, config: InjectConfig, run: BacktestRun, seen: Witnessed) -> CaseResult:
    """The verdict on one run.

    Parameters
    ----------
    fault, placement, config
        What was asked for.
    run
        What the run left.
    seen
        What the rig saw of it.
    """
    result = CaseResult(fault.name, fault.failure, str(placement), expected(fault.failure))
    result.bars_lost = seen.given - len(run.signals) - len(run.rejections)
    if not seen.began_at_bar:
        result.verdict = Verdict.NOT_PLACED
        result.why = f"the place was never reached in {config.bars} bars; give more --bars or another --seed"
        return result
    regime, serving = run.config.regime, run.config.serving
    during, after = seen.during(), seen.after()
    result.began_at_bar = seen.began_at_bar
    result.for_bars = (seen.ended_at_bar or config.bars + 1) - seen.began_at_bar
    signals = [each.answer for each in during if isinstance(each.answer, Signal)]
    result.levels = Counter(signal.level for signal in signals)
    result.reasons = Counter(reason for signal in signals for reason in set(signal.reasons))
    result.reached = _reached(run.signals)
    result.worst_ms = max((each.total_ms for each in during), default=0.0)
    result.rejected = sum(isinstance(each.answer, BarRejected) for each in during)
    result.bars_to_full = _bars_to_full(after, seen.ended_at_bar)
    damage = _damage(fault, seen, run)
    result.bound_bars = recovery_bound_bars(damage, regime, serving, config.pace_ms / 1e3, _LOAD_MARGIN * seen.load_s)
    _count_orders(result, run, seen)
    _draw(result, seen)
    strays = [each for each in [*during, *after] if _is_stray(fault, each, damage, regime)]
    result.stray_timeouts = len(strays)
    problems = [
        *_lost_bars(result, run),
        *_wrong_levels(fault, during, after, strays, regime),
        *_not_felt(fault, result, seen),
        *_beside_the_level(fault, during, run),
        *_orders(result),
        *_recovery(result, after, strays, regime),
    ]
    result.verdict = Verdict.FAILED if problems else Verdict.PASSED
    result.why = "; ".join(problems) or _in_short(result)
    return result


def _reached(signals: Sequence[Signal]) -> dict[Level, Counter[Reason]]:
    """Each level that answered, with the reasons of those passed over for a fault; warm-up does not count."""
    found: dict[Level, Counter[Reason]] = {}
    for signal in signals:
        if not signal.reasons or signal.reasons[-1].is_fault:
            found.setdefault(signal.level, Counter()).update(signal.reasons[-1:])
    return found


def _bars_to_full(after: Sequence[Answered], ended_at_bar: int) -> int | None:
    """Market bars from the end of the fault to the first of several answers at level 0 in a row; None if never."""
    in_a_row = 0
    for each in after:
        in_a_row = in_a_row + 1 if isinstance(each.answer, Signal) and each.answer.level is Level.FULL else 0
        if in_a_row == STEADY_BARS:
            return each.market_bar - STEADY_BARS + 1 - ended_at_bar
    return None


def _damage(fault: Fault, seen: Witnessed, run: BacktestRun) -> Damage:
    config = run.config.regime
    rejected = [isinstance(each.answer, BarRejected) for each in seen.during()]
    longest = max((len(list(same)) for refused, same in groupby(rejected) if refused), default=0)
    return Damage(
        # One that was late or stopped has its last answer yet to give before it is of use.
        process=run.model_restarts > 0 or Reason.TIMEOUT in fault.reasons,
        window=fault.window_lost or longest >= config.max_rejects,
        strange_bars=fault.strange_bars,
        health=fault.failure is Failure.FORECASTS_WORTHLESS,
        scores_short=max(0, config.calibration.min_scores - seen.scores_at_end),
    )


def _is_stray(fault: Fault, each: Answered, damage: Damage, config: RegimeConfig) -> bool:
    """Whether the machine was late with a sound answer: a time-out where a model that is well was to be heard."""
    answer = each.answer
    if not isinstance(answer, Signal) or not answer.reasons or answer.reasons[0] is not Reason.TIMEOUT:
        return False
    if each.phase is Phase.DURING:
        return levels_allowed(fault.failure, each.footing, config)[1] < answer.level
    return each.phase is Phase.RECOVERED or not damage.process


def _lost_bars(result: CaseResult, run: BacktestRun) -> Iterator[str]:
    if result.bars_lost:
        yield f"{result.bars_lost} bars were given that got neither a signal nor a rejection"
    lying = sum(len(signal.reasons) != signal.level for signal in run.signals)
    if lying:
        yield f"{lying} signals do not give one reason for each level passed over"


def _wrong_levels(
    fault: Fault,
    during: Sequence[Answered],
    after: Sequence[Answered],
    strays: Sequence[Answered],
    config: RegimeConfig,
) -> Iterator[str]:
    wrong = []
    for each in (*during, *after):
        if not isinstance(each.answer, Signal) or each in strays:
            continue
        if each.phase is Phase.DURING:
            best, worst = levels_allowed(fault.failure, each.footing, config)
        else:
            best, worst = levels_allowed_afterwards(fault.failure, each.footing, config)
        if not best <= each.answer.level <= worst:
            wrong.append((each, best, worst))
    if wrong:
        first, best, worst = wrong[0]
        assert isinstance(first.answer, Signal)
        due = best.name if best is worst else f"{best.name} to {worst.name}"
        because = ", ".join(first.answer.reasons) or "none"
        yield (
            f"{len(wrong)} bars answered at another level than they must, the first at bar {first.market_bar}: "
            f"{first.answer.level.name} (reasons: {because}), due was {due}"
        )
    late = sum(each.phase is Phase.DURING for each in strays)
    if late > max(1.0, STRAY_SHARE * len(during)):
        yield f"the machine was too slow for the deadline on {late} of {len(during)} bars: nothing can be said"
    needed = must_be_seen(fault.failure)
    levels = {each.answer.level for each in during if isinstance(each.answer, Signal)}
    if needed is not None and needed not in levels:
        yield f"level {needed.name} was never seen"


def _not_felt(fault: Fault, result: CaseResult, seen: Witnessed) -> Iterator[str]:
    """A fault that nobody noticed was not provoked, whatever else was seen."""
    if fault.reasons and not fault.reasons & set(result.reasons):
        found = ", ".join(sorted(result.reasons)) or "none"
        yield f"none of the reasons {', '.join(sorted(fault.reasons))} was recorded; found: {found}"
    if seen.proof:
        yield seen.proof


def _beside_the_level(fault: Fault, during: Sequence[Answered], run: BacktestRun) -> Iterator[str]:
    if fault.failure is Failure.BAR_REJECTED:
        believed = sum(each.bad and isinstance(each.answer, Signal) for each in during)
        refused = sum(not each.bad and isinstance(each.answer, BarRejected) for each in during)
        if believed:
            yield f"{believed} bad bars were believed"
        if refused:
            yield f"{refused} good bars were refused"
        if not any(each.bad for each in during):
            yield "no bad bar was given"
    if fault.failure is Failure.SIGNAL_INVALID:
        spoilt = [each for each in during if each.spoilt]
        ignored = sum(run.ignored_signals.values())
        stamps = {each.bar.ts_ns for each in spoilt}
        traded = sum(order.ts_ns in stamps for order in run.sent_orders)
        if not spoilt or ignored != len(spoilt):
            yield f"{len(spoilt)} spoilt signals were sent, {ignored} ignored"
        if traded:
            yield f"{traded} orders were sent on signals that nobody should trade on"


def _orders(result: CaseResult) -> Iterator[str]:
    if result.orders_over_cap:
        yield f"{result.orders_over_cap} orders raised the exposure beyond the level's cap"


def _recovery(
    result: CaseResult, after: Sequence[Answered], strays: Sequence[Answered], config: RegimeConfig
) -> Iterator[str]:
    assert result.bound_bars is not None
    if result.bars_to_full is None:
        yield f"level 0 did not return in the {len(after)} bars that the run went on, {result.bound_bars} are allowed"
        return
    # A late answer may have opened the breaker again, which is the machine's doing and costs one wait more.
    late = any(each.phase is not Phase.DURING for each in strays)
    allowed = result.bound_bars + (config.breaker.open_bars + config.breaker.probes if late else 0)
    if result.bars_to_full > allowed:
        yield f"level 0 came back after {result.bars_to_full} bars, {allowed} are allowed"


def _count_orders(result: CaseResult, run: BacktestRun, seen: Witnessed) -> None:
    stamp_of = run.market.bars.ts_close_ns
    last = len(stamp_of)
    if result.bars_to_full is not None:
        last = min(last, seen.ended_at_bar + result.bars_to_full)
    begin, end = int(stamp_of[seen.began_at_bar - 1]), int(stamp_of[last - 1])
    result.orders_degraded = sum(order.level > Level.FULL and begin <= order.ts_ns <= end for order in run.sent_orders)
    result.orders_over_cap = sum(_exceeds_cap(order) for order in run.sent_orders)


def _exceeds_cap(order: SentOrder) -> bool:
    """More risk than before, and more than the cap allows."""
    before, after = abs(order.exposure_before), abs(order.exposure_after)
    crossed = order.exposure_before * order.exposure_after < 0
    return (after > before + _ROUNDING or crossed) and after > order.cap + _ROUNDING


def _draw(result: CaseResult, seen: Witnessed) -> None:
    """The level of each market bar from a little before the fault to a little after level 0 is back."""
    begin = max(1, seen.began_at_bar - _SHOWN_BEFORE)
    ended = seen.ended_at_bar or seen.answers[-1].market_bar + 1
    end = ended + min(result.bars_to_full if result.bars_to_full is not None else _SHOWN_AFTER, _SHOWN_AFTER) + 3
    levels = {
        each.market_bar: int(each.answer.level) if isinstance(each.answer, Signal) else -1 for each in seen.answers
    }
    last = min(end, max(levels, default=begin))
    result.timeline = [levels.get(bar) for bar in range(begin, last + 1)]
    result.fault_begins, result.fault_ends = seen.began_at_bar - begin, ended - begin


def _in_short(result: CaseResult) -> str:
    back = "at once" if result.bars_to_full == 0 else f"after {result.bars_to_full} bars of {result.bound_bars} allowed"
    return f"as expected; level 0 {back}"
