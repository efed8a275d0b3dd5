"""Bars keep to a rate, and only what the system takes is late."""

from __future__ import annotations

from stress.soak import trading
from stress.soak.trading import Pace


class Clock:
    """Time that passes when it is told to; a sleep takes longer than it should."""

    def __init__(self, overslept_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._overslept_s = overslept_s

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self._overslept_s


def test_a_bar_that_waited_for_another_is_late_and_counted(monkeypatch: object) -> None:
    clock = Clock()
    pace = paced(clock, monkeypatch)
    pace.begin()
    late = []
    for took in (0.05, 0.35, 0.0, 0.0, 0.0, 0.0):
        late.append(round(pace.wait(), 6))
        clock.now_s += took
    # Due each tenth of a second; the second one took as long as three and a half.
    assert late == [0.0, 0.0, 0.25, 0.15, 0.05, 0.0]


def test_a_bar_that_was_woken_up_late_for_is_late(monkeypatch: object) -> None:
    pace = paced(Clock(overslept_s=0.25), monkeypatch)
    pace.begin()
    # Due each tenth of a second: those that fell due meanwhile are late for the same sleep, and need none themselves.
    assert [round(pace.wait(), 6) for _ in range(5)] == [0.0, 0.25, 0.15, 0.05, 0.25]


def test_what_goes_by_between_two_segments_is_nobodys_latency(monkeypatch: object) -> None:
    clock = Clock()
    pace = paced(clock, monkeypatch)
    for _ in range(3):
        pace.begin()
        assert [pace.wait() for _ in range(5)] == [0.0] * 5
        assert pace.queue_bars == 0
        clock.now_s += 0.9


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(0.0, Clock())
    assert [pace.wait(), pace.wait()] == [0.0, 0.0]


def paced(clock: Clock, monkeypatch: object) -> Pace:
    monkeypatch.setattr(trading.time, "sleep", clock.sleep)  # type: ignore[attr-defined]
    return Pace(10.0, clock)
