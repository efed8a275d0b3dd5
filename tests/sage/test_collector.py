"""What a run tells of itself while it goes on, held against what it leaves in the end."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Sequence
from unittest.mock import ANY

import numpy as np
import pytest

from data.market import Market
from regime.config import RegimeConfig
from regime.detector import Detector, DetectorState, Timing
from regime.errors import ForecastFailed
from regime.forecast import KnownForecasts
from regime.serving.client import ModelClient
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from sage.backtest import run_backtest
from sage.collector import COVERAGE_BARS, MIN_COVERAGE_BARS, Insides, VitalsCollector
from sage.config import BacktestConfig
from sage.ledger import BookEntry, Ledger
from sage.rig import Rig
from sage.run import BacktestRun
from sage.vitals import Vitals
from tests.conftest import short_config
from tests.regime.streams import HOUR_S, ScriptedForecaster, bars, normal_forecast
from tests.sage.markets import market_of, without_model


class Hand:
    """A stopwatch that somebody turns."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A collector on a detector with a scripted model and books written by hand: no NT, and no time but the hand's."""

    def __init__(self, forecaster: ScriptedForecaster | None = None, **options: object) -> None:
        self.hand = Hand()
        self.collector = VitalsCollector(stopwatch=self.hand, **options)  # type: ignore[arg-type]
        self.forecaster = forecaster or ScriptedForecaster()
        self.begin()

    def begin(self, carried: DetectorState | None = None, cash: float = 100.0) -> None:
        self.detector = Detector(RegimeConfig(), "X.SIM", HOUR_S, self.forecaster)
        if carried is not None:
            self.detector.restore(carried)
        self.books: list[BookEntry] = []
        self.orders = 0
        insides = Insides(400, self.detector, None, Ledger(cash), self.books, lambda: self.orders)
        self.collector.attach(insides)

    def go(self, given: Sequence[BarInput], ms: float = 1.0, every_s: float = 0.1) -> list[Signal | BarRejected]:
        answers = []
        for bar in given:
            answers.append(self.detector.step(bar))
            self.collector.hear(answers[-1], Timing("model", ms, ms))
            self.hand.now += every_s
        return answers

    def earn(self, *equities: float) -> None:
        """Bars at which the books are worth so much."""
        for equity in equities:
            self.books.append(BookEntry(0, 1.0, equity, 0.5 * equity, 0.5))
            self.collector.hear(BarRejected("X.SIM", "out of order", 0, 0), Timing("none", 0.0, 0.0))


def levels_of(run: BacktestRun) -> Counter[str]:
    return Counter(signal.level.name for signal in run.signals)


def test_a_run_ends_with_the_vitals_that_its_results_say() -> None:
    seen: list[Vitals] = []
    collector = VitalsCollector(tell=seen.append)
    run = run_backtest(short_config(), observer=collector)
    last = collector.vitals()
    assert (last.bars, last.bars_total, last.signals, last.rejections) == (600, 600, 600, 0)
    assert last.levels == levels_of(run)
    assert last.reasons == Counter(str(reason) for signal in run.signals for reason in set(signal.reasons))
    assert last.ts_ns == run.signals[-1].ts_event
    assert last.orders == len(run.orders) > 0
    assert last.equity == run.book[-1].equity
    assert last.exposure == run.book[-1].exposure
    equity = np.array([run.config.cash] + [entry.equity for entry in run.book])
    assert last.drawdown == pytest.approx(1.0 - equity[-1] / equity.max(), abs=1e-12)
    assert last.latency.answers == 600
    assert last.latency.sum_s == pytest.approx(sum(timing.total_ms for timing in run.timings) / 1e3)
    assert last.nominal_coverage == 0.9
    closes = np.log(run.market.bars.close)
    inside = [signal.bar_interval_low <= move <= signal.bar_interval_high and math.isfinite(signal.bar_interval_low)
              for signal, move in zip(run.signals, np.diff(closes), strict=False)]  # fmt: skip
    assert last.coverage == pytest.approx(np.mean(inside))
    assert seen[0].bars == 1
    assert seen[-1] == dataclasses.replace(last, elapsed_s=seen[-1].elapsed_s, bars_per_s=seen[-1].bars_per_s,
                                           gc_collections=seen[-1].gc_collections)  # fmt: skip


def test_looking_on_changes_nothing() -> None:
    config, market = without_model(), market_of()
    plain = run_backtest(config, market=market)
    watched = run_backtest(config, market=market, observer=VitalsCollector(tell=lambda _: None, tell_every_s=0.0))
    assert watched.signals == plain.signals
    assert watched.book == plain.book
    assert watched.order_steps == plain.order_steps


class Carrying(Rig):
    """Lets a detector go on where the one before ended."""

    def __init__(self, state: DetectorState | None) -> None:
        self.state = state
        self.detector_used: Detector | None = None

    def detector(
        self,
        config: RegimeConfig,
        instrument_id: str,
        bar_seconds: int,
        client: ModelClient | None,
        known: KnownForecasts | None,
    ) -> Detector:
        found = super().detector(config, instrument_id, bar_seconds, client, known)
        if self.state is not None:
            found.restore(self.state)
        self.detector_used = found
        return found


def halves(market: Market) -> list[Market]:
    middle = len(market.bars) // 2
    return [
        dataclasses.replace(market, bars=market.bars[part], nautilus_bars=market.nautilus_bars[part])
        for part in (slice(0, middle), slice(middle, None))
    ]


def test_counts_go_on_from_one_engine_run_to_the_next() -> None:
    config: BacktestConfig = without_model()
    collector = VitalsCollector()
    state, signals, orders = None, 0, 0
    for market in halves(market_of(bars=600)):
        rig = Carrying(state)
        run = run_backtest(config, rig=rig, market=market, observer=collector)
        assert rig.detector_used is not None
        state = rig.detector_used.snapshot()
        signals, orders = signals + len(run.signals), orders + len(run.orders)
        found = collector.vitals()
        assert (found.bars, found.signals, found.orders) == (signals, signals, orders)
        assert found.equity == run.book[-1].equity
    assert found.bars_total == 600
    assert found.latency.answers == 600


def failing(horizon: int) -> np.ndarray:
    raise ForecastFailed(Reason.TIMEOUT)


def test_failures_and_breaker_count_once_whether_or_not_their_state_is_carried_over() -> None:
    stage = Stage(ScriptedForecaster(lambda call, horizon: failing(horizon)))
    given = bars(300)
    stage.go(given[:100])
    first = stage.collector.vitals()
    assert first.forecast_failures["TIMEOUT"] == stage.detector.failures[Reason.TIMEOUT] > 0
    assert first.breaker_openings == stage.detector.state.breaker.times_opened > 0
    assert first.breaker in {"open", "half-open"}
    carried = stage.detector.snapshot()
    stage.collector.detach()
    stage.begin(carried)
    unchanged = stage.collector.vitals()
    assert (unchanged.forecast_failures, unchanged.breaker_openings) == (
        first.forecast_failures, first.breaker_openings
    )  # fmt: skip
    stage.go(given[100:200])
    assert stage.collector.vitals().forecast_failures["TIMEOUT"] == stage.detector.failures[Reason.TIMEOUT]
    before = stage.collector.vitals().forecast_failures["TIMEOUT"]
    stage.collector.detach()
    stage.begin()
    assert stage.collector.vitals().forecast_failures["TIMEOUT"] == before
    stage.go(given[:100])
    assert stage.collector.vitals().forecast_failures["TIMEOUT"] == before + stage.detector.failures[Reason.TIMEOUT]


def test_bars_in_a_row_below_full_count_for_a_fault_and_not_for_warming_up() -> None:
    down = [False]
    script = lambda _, horizon: failing(horizon) if down[0] else normal_forecast(horizon)  # noqa: E731
    stage = Stage(ScriptedForecaster(script))
    given = bars(400)
    stage.go(given[:100])
    warming = stage.collector.vitals()
    assert warming.level != "FULL"
    assert warming.degraded_bars == 0
    stage.go(given[100:300])
    assert stage.collector.vitals().level == "FULL"
    down[0] = True
    stage.go(given[300:305])
    assert stage.collector.vitals().degraded_bars == 5
    assert stage.collector.vitals().level == "SMART"
    down[0] = False
    answers = stage.go(given[305:310])
    assert isinstance(answers[-1], Signal)
    assert answers[-1].level is Level.FULL
    assert stage.collector.vitals().degraded_bars == 0


def test_latencies_are_told_by_the_full_minute_and_on_the_whole() -> None:
    stage = Stage()
    given = bars(400)
    stage.go(given[:100], ms=1.0, every_s=0.5)
    assert stage.collector.vitals().latency_minute.answers == 0
    assert stage.collector.vitals().minutes == 0
    stage.go(given[100:200], ms=9.0, every_s=0.5)
    found = stage.collector.vitals()
    # 100 bars of 1 ms in the first 50 s, then 20 of 9 ms until the minute was full.
    assert (found.minutes, found.latency_minute.answers) == (1, 120)
    assert found.latency_minute.sum_s == pytest.approx(0.1 + 20 * 0.009)
    assert found.latency.answers == 200
    stage.hand.now += 300.0
    assert (stage.collector.vitals().minutes, stage.collector.vitals().latency_minute.answers) == (6, 0)
    assert stage.collector.vitals().latency.answers == 200


def test_asking_before_the_first_bar_does_not_start_the_clock() -> None:
    stage = Stage()
    assert stage.collector.vitals() == Vitals(bars_total=400, equity=100.0, gc_collections=ANY)
    stage.hand.now += 500.0
    stage.go(bars(11), every_s=1.0)
    assert stage.collector.vitals().elapsed_s == 11.0
    assert stage.collector.vitals().minutes == 0


def test_another_thread_may_ask_while_bars_come_and_sees_counts_that_agree() -> None:
    stage = Stage()
    given = bars(400)
    over, wrong = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            found = stage.collector.vitals()
            if not found.bars == found.signals == sum(found.levels.values()) == found.latency.answers:
                wrong.append(found)

    asking = threading.Thread(target=ask)
    asking.start()
    stage.go(given)
    over.set()
    asking.join()
    assert wrong == []
    assert stage.collector.vitals().latency.answers == 400


def test_time_that_a_bar_has_waited_belongs_to_its_latency() -> None:
    stage = Stage()
    stage.collector.due(waited_s=0.5, queue_bars=7)
    stage.go(bars(1), ms=10.0)
    assert stage.collector.vitals().latency.sum_s == pytest.approx(0.51)
    assert stage.collector.vitals().queue_bars == 7


def test_speed_is_that_of_the_last_seconds() -> None:
    stage = Stage()
    given = bars(400)
    stage.go(given[:200], every_s=0.1)
    assert stage.collector.vitals().bars_per_s == pytest.approx(10.0, rel=0.05)
    stage.go(given[200:220], every_s=2.0)
    assert stage.collector.vitals().bars_per_s == pytest.approx(0.5, rel=0.1)


def test_coverage_is_of_the_last_outcomes_and_knows_nothing_before_there_are_enough() -> None:
    stage = Stage()
    given = bars(MIN_COVERAGE_BARS + COVERAGE_BARS + 500)
    stage.go(given[:MIN_COVERAGE_BARS])
    assert stage.collector.vitals().coverage is None
    answers = stage.go(given[MIN_COVERAGE_BARS:])
    moves = np.diff(np.log([bar.close for bar in given[MIN_COVERAGE_BARS:]]))[-COVERAGE_BARS:]
    signals = [answer for answer in answers[-COVERAGE_BARS - 1 : -1] if isinstance(answer, Signal)]
    inside = [one.bar_interval_low <= move <= one.bar_interval_high
              for one, move in zip(signals, moves, strict=True)]  # fmt: skip
    assert len(inside) == COVERAGE_BARS
    assert stage.collector.vitals().coverage == pytest.approx(np.mean(inside))


def test_an_outcome_behind_a_gap_is_nobodys() -> None:
    stage = Stage()
    stage.go(bars(MIN_COVERAGE_BARS))
    stage.go(bars(1, start=MIN_COVERAGE_BARS + 500))
    assert stage.collector.vitals().coverage is None
    stage.go(bars(2, start=MIN_COVERAGE_BARS + 501))
    assert stage.collector.vitals().coverage is not None


def test_drawdown_goes_on_when_a_run_begins_with_other_cash() -> None:
    stage = Stage()
    stage.earn(110.0, 99.0)
    assert stage.collector.vitals().drawdown == pytest.approx(0.1)
    assert stage.collector.vitals().equity == 99.0
    stage.collector.detach()
    stage.begin(cash=1_000.0)
    assert stage.collector.vitals().drawdown == pytest.approx(0.1)
    assert stage.collector.vitals().equity == 1_000.0
    stage.earn(1_112.0)
    assert stage.collector.vitals().drawdown == 0.0
    stage.earn(-5.0)
    assert stage.collector.vitals().drawdown == 1.0


def test_it_keeps_no_part_of_a_run_that_is_over() -> None:
    stage = Stage()
    stage.go(bars(10))
    stage.earn(90.0)
    stage.orders = 3
    stage.collector.detach()
    stage.orders = 100
    stage.books.append(BookEntry(0, 1.0, 5.0, 0.0, 0.0))
    found = stage.collector.vitals()
    assert (found.orders, found.equity, found.bars) == (3, 90.0, 11)


def test_vitals_are_told_now_and_then_and_at_the_end() -> None:
    seen: list[Vitals] = []
    stage = Stage(tell=seen.append, tell_every_s=1.0, seconds_total=60.0)
    stage.go(bars(101), every_s=0.1)
    assert len(seen) == 11
    stage.collector.detach()
    assert seen[-1].bars == 101
    assert (seen[-1].seconds_total, seen[-1].bars_total) == (60.0, None)
