"""What of a running system people should hear of, and what they need not hear twice.

A rule looks at a :class:`~sage.vitals.Vitals` and reads one number. It is raised when that was over its mark for so
long, and cleared when it was under a lower one for so long; what lies between, or is not known, changes nothing. No
rule is raised twice within ``cool_down_s``. What the detector has found and sustained itself is taken over as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from regime.alerts import Alert, AlertBook, Severity
from sage.vitals import Vitals

_MARGIN = 0.05
"""A share is well again when it is so much under the mark that it was over, a latency by that part of its target."""

_GIB = 1 << 30

DRIFT_STREAMS = ("returns", "volatility", "dependence", "errors", "error_size")


@dataclass(frozen=True)
class WatchConfig:
    """When somebody is told.

    Memory is too much over ``memory_share`` of what the container or machine allows, the GPU's over ``gpu_share`` of
    its own. ``degraded_bars`` in a row below FULL are more than one round of the circuit breaker takes. Where a rule
    does not say otherwise it is raised after ``raise_after_s`` and cleared after ``clear_after_s``; none is raised
    twice within ``cool_down_s``. Seconds are those of the stopwatch.
    """

    memory_share: float = 0.85
    gpu_share: float = 0.95
    degraded_bars: int = 50
    raise_after_s: float = 10.0
    clear_after_s: float = 60.0
    cool_down_s: float = 300.0


@dataclass(frozen=True)
class Rule:
    """One thing to be told of.

    ``reading`` takes the vitals before and now and returns a number, None where it cannot be known. Over ``over``, for
    ``raise_after_s``, raises; under ``under``, for ``clear_after_s``, clears. ``told`` puts it in words: the vitals,
    the reading, and whether it is raised.
    """

    name: str
    severity: Severity
    over: float
    under: float
    raise_after_s: float
    clear_after_s: float
    reading: Callable[[Vitals, Vitals], float | None]
    told: Callable[[Vitals, float, bool], str]


class _Follower:
    """Whether a rule is on, and since when it has been about to change."""

    def __init__(self, rule: Rule, cool_down_s: float) -> None:
        self.rule = rule
        self.on = False
        self.held_back = 0
        self._cool_down_s = cool_down_s
        self._since: float | None = None
        self._raised_at: float | None = None
        self._counted = False

    def see(self, now_s: float, reading: float | None) -> bool:
        """Whether the rule is on after this reading."""
        if reading is None or not (reading < self.rule.under if self.on else reading > self.rule.over):
            self._since, self._counted = None, False
            return self.on
        if self._since is None:
            self._since = now_s
        if now_s - self._since >= (self.rule.clear_after_s if self.on else self.rule.raise_after_s):
            self._turn(now_s)
        return self.on

    def _turn(self, now_s: float) -> None:
        if self.on:
            self.on = False
        elif self._raised_at is None or now_s - self._raised_at >= self._cool_down_s:
            self.on, self._raised_at = True, now_s
        else:
            self.held_back += not self._counted
            self._counted = True
            return
        self._since, self._counted = None, False


class Watch:
    """Sees the vitals of one run, one after the other, and says what came and what went."""

    def __init__(self, config: WatchConfig | None = None) -> None:
        config = config or WatchConfig()
        self.raised: Counter[str] = Counter()
        self._followers = [_Follower(rule, config.cool_down_s) for rule in rules(config)]
        self._book = AlertBook()
        self._before = Vitals()
        self._now_s = 0.0

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts that are on, in the order in which they came."""
        return tuple(self._book.active.values())

    @property
    def held_back(self) -> int:
        """How often something would have been raised, had it not been raised a moment ago."""
        return sum(follower.held_back for follower in self._followers)

    def go_on_from(self, before: Vitals) -> None:
        """Take what is counted in these for known: a run goes on, and what was before is no news."""
        self._before = before

    def see(self, vitals: Vitals) -> list[Alert]:
        """Take the newest vitals in; the alerts that were raised or cleared by them."""
        before, self._before = self._before, vitals
        # A new worker may count its time from nought again: then nothing has passed as yet.
        self._now_s += max(0.0, vitals.elapsed_s - before.elapsed_s)
        return list(self._changes(before, vitals))

    def _changes(self, before: Vitals, now: Vitals) -> Iterator[Alert]:
        for follower in self._followers:
            rule = follower.rule
            reading = rule.reading(before, now)
            on = follower.see(self._now_s, reading)
            told = _words(rule, now, reading, on)
            alert = self._book.report(now.ts_ns, rule.name, rule.severity, on, told)
            if alert is not None:
                self.raised[rule.name] += alert.raised
                yield alert


def _words(rule: Rule, vitals: Vitals, reading: float | None, on: bool) -> Callable[[], str]:
    return lambda: rule.told(vitals, reading or 0.0, on)


def rules(config: WatchConfig) -> tuple[Rule, ...]:
    """All rules, in the order in which they are looked at."""
    after, clear = config.raise_after_s, config.clear_after_s
    found = [
        _taken_over("model.health", Severity.HIGH, lambda now: now.unhealthy, "forecasts are worse than a baseline"),
        *(_drift(stream) for stream in DRIFT_STREAMS),
        _share("machine.memory", Severity.HIGH, config.memory_share, _memory, after, clear),
        _share("machine.gpu_memory", Severity.MEDIUM, config.gpu_share, _gpu_memory, after, clear),
        Rule("latency.p99", Severity.MEDIUM, 1.0, 1.0 - _MARGIN, 0.0, clear, _p99, _told_p99),
        Rule("model.breaker", Severity.HIGH, 0.5, 0.5, 0.0, clear, _breaker, _told_breaker),
        # An event, not a state: it is over when there was no other one for a while.
        Rule("model.restarted", Severity.MEDIUM, 0.5, 0.5, 0.0, config.cool_down_s, _restarts, _told_restarts),
        _taken_over("run.stalled", Severity.HIGH, lambda now: now.stalled, "nothing is heard of the trading process"),
        Rule("run.died", Severity.HIGH, 0.5, 0.5, 0.0, config.cool_down_s, _deaths, _told_deaths),
        Rule("level.degraded", Severity.MEDIUM, config.degraded_bars - 1, 1, 0.0, clear, _degraded, _told_degraded),
    ]
    return tuple(found)


def _taken_over(name: str, severity: Severity, on: Callable[[Vitals], bool], words: str) -> Rule:
    """What the detector has found: sustained already, and in its words where they are there."""

    def told(vitals: Vitals, _: float, raised: bool) -> str:
        if not raised:
            return f"no longer: {words}"
        return next((alert.detail for alert in vitals.alerts if alert.name == name), words)

    return Rule(name, severity, 0.5, 0.5, 0.0, 0.0, lambda _, now: float(on(now)), told)


def _drift(stream: str) -> Rule:
    name = f"drift.{stream}"
    on = lambda now: not {stream, name}.isdisjoint(now.drifted)  # noqa: E731
    return _taken_over(name, Severity.MEDIUM, on, f"drift of {stream.replace('_', ' ')}")


def _share(
    name: str,
    severity: Severity,
    limit: float,
    amounts: Callable[[Vitals], tuple[int, int] | None],
    raise_after_s: float,
    clear_after_s: float,
) -> Rule:
    """So much of something that there is only so much of."""

    def reading(_: Vitals, now: Vitals) -> float | None:
        found = amounts(now)
        return found[0] / found[1] if found else None

    def told(vitals: Vitals, share: float, raised: bool) -> str:
        used, whole = amounts(vitals) or (0, 0)
        mark = f"over {limit:.0%}" if raised else f"under {limit - _MARGIN:.0%}"
        return f"{used / _GIB:.2f} of {whole / _GIB:.2f} GiB used ({share:.0%}), {mark}"

    return Rule(name, severity, limit, limit - _MARGIN, raise_after_s, clear_after_s, reading, told)


def _memory(vitals: Vitals) -> tuple[int, int] | None:
    machine = vitals.machine
    return (machine.used_bytes, machine.limit_bytes) if machine and machine.limit_bytes else None


def _gpu_memory(vitals: Vitals) -> tuple[int, int] | None:
    machine = vitals.machine
    if machine is None or machine.gpu_bytes is None or not machine.gpu_limit_bytes:
        return None
    return machine.gpu_bytes, machine.gpu_limit_bytes


def _p99(_: Vitals, now: Vitals) -> float | None:
    """The last full minute's, relative to the target; the run's where a minute has too few answers to tell."""
    if not now.latency_minute.answers or now.target_ms <= 0:
        return None
    p99_ms = now.latency_minute.p99 if now.latency_minute.p99 is not None else now.latency.p99
    return None if p99_ms is None else p99_ms / now.target_ms


def _told_p99(vitals: Vitals, share: float, raised: bool) -> str:
    beside = "over" if raised else "well under"
    return f"p99 is {share * vitals.target_ms:.3g} ms, {beside} the target of {vitals.target_ms:g} ms"


def _breaker(before: Vitals, now: Vitals) -> float:
    return float(now.breaker != "closed" or _grown(before.breaker_openings, now.breaker_openings) > 0)


def _told_breaker(vitals: Vitals, _: float, raised: bool) -> str:
    if not raised:
        return "closed again"
    again = ", and has closed since" if vitals.breaker == "closed" else ""
    return f"the breaker opened{again}; openings so far: {vitals.breaker_openings}"


def _restarts(before: Vitals, now: Vitals) -> float:
    return float(_grown(before.model_restarts, now.model_restarts))


def _told_restarts(vitals: Vitals, grown: float, raised: bool) -> str:
    if not raised:
        return "no other restart since"
    return f"the model process ended and was started anew ({grown:.0f} now, {vitals.model_restarts} in all)"


def _deaths(before: Vitals, now: Vitals) -> float:
    return float(_grown(before.deaths, now.deaths))


def _told_deaths(vitals: Vitals, grown: float, raised: bool) -> str:
    return f"the trading process died ({grown:.0f} now, {vitals.deaths} in all)" if raised else "no other death since"


def _degraded(_: Vitals, now: Vitals) -> float:
    return float(now.degraded_bars)


def _told_degraded(vitals: Vitals, bars: float, raised: bool) -> str:
    return f"{bars:.0f} signals in a row below FULL, the newest {vitals.level}" if raised else "FULL again"


def _grown(before: int, now: int) -> int:
    """By how much a count has grown; one that fell began at nought again."""
    return now - before if now >= before else now
