"""The soak itself: real workers, a real model process, real engines, for some segments."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from data.errors import DataError, OptionError
from regime.alerts import Alert
from regime.errors import ModelUnavailable, UserCodeRaised
from sage.config import BacktestConfig, ModelConfig, OwnConfig
from sage.vitals import Vitals
from stress.soak import beside, soak
from stress.soak.config import FaultLoad, SoakConfig, check, soak_backtest
from stress.soak.journal import JOURNAL
from stress.soak.launch import Outcome, run_soak
from stress.soak.messages import Played, Ready
from stress.soak.plants import Plant
from stress.soak.report import HTML_FILE, JSON_FILE
from stress.soak.verdict import Status

SEGMENT_BARS = 500
SMALL = SoakConfig(bars=3 * SEGMENT_BARS, segment_bars=SEGMENT_BARS, faults=FaultLoad.HEAVY, seed=3)


class Onlooker:
    """Keeps the vitals, and does something at a count of bars."""

    def __init__(self, at_bars: int = 0, then: Callable[[], None] | None = None) -> None:
        self.vitals: list[Vitals] = []
        self.stages: list[str] = []
        self.alerts: tuple[Alert, ...] = ()
        self.before: Vitals | None = None
        self._at_bars, self._then = at_bars, then

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)

    def go_on_from(self, before: Vitals) -> None:
        self.before = before

    def update(self, vitals: Vitals) -> Sequence[Alert]:
        self.vitals.append(vitals)
        if self._then is not None and vitals.bars >= self._at_bars:
            then, self._then = self._then, None
            then()
        return self.alerts


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Onlooker]:
    looking = Onlooker()
    return run_soak(SMALL, tmp_path_factory.mktemp("soak") / "run", looking), looking


def checks(outcome: Outcome) -> dict[str, Status]:
    return {one.name: one.status for one in outcome.assessment.checks}


def children() -> list[psutil.Process]:
    """Workers and their model processes."""
    return [one for one in psutil.Process().children(recursive=True) if "resource_tracker" not in str(one.cmdline())]


def test_every_bar_is_answered_and_every_invariant_holds_under_heavy_faults(
    outcome: tuple[Outcome, Onlooker],
) -> None:
    found, _ = outcome
    assert [line["violations"] for line in found.record.segments] == [[], [], []]
    assert all(line["faults"] for line in found.record.segments)
    assert checks(found)["invariants"] is checks(found)["signals"] is checks(found)["steadiness"] is Status.PASSED
    assert not found.problems and not found.interrupted


def test_a_run_too_short_to_tell_is_undecided(outcome: tuple[Outcome, Onlooker]) -> None:
    found, _ = outcome
    assert checks(found)["memory of the trading process beyond NautilusTrader"] is Status.UNDECIDED
    # Whether answers came in time depends on what else the machine has to do.
    rest = [one for one in found.assessment.checks if one.name != "latency"]
    assert dataclasses.replace(found.assessment, checks=rest).status is Status.UNDECIDED


def test_memory_is_sampled_at_the_same_bars_of_each_segment_on_both_sides(outcome: tuple[Outcome, Onlooker]) -> None:
    samples = outcome[0].record.samples
    for side, roles in (("trading", {"trading", "model"}), ("control", {"control"})):
        places = [(line["segment"], line["phase"]) for line in samples[side]]
        assert places == [(segment, phase) for segment in range(3) for phase in (125, 250, 375, 500)]
        assert all({one["role"] for one in line["processes"]} >= roles for line in samples[side])
    bars = [line["bars"] for line in samples["trading"]]
    assert bars == [line["bars"] for line in samples["control"]] == [125 * (1 + number) for number in range(12)]


def test_who_looks_on_hears_of_bars_levels_and_processes(outcome: tuple[Outcome, Onlooker]) -> None:
    looking = outcome[1]
    last = looking.vitals[-1]
    assert looking.stages == ["starting the model process", "trading"]
    assert last.bars >= 1_500 and last.bars_total == 1_500 and last.levels["FULL"] > 500
    assert last.machine is not None
    assert {"watching", "trading", "model", "control"} <= {one.role for one in last.machine.processes}


def test_the_report_is_there_for_machines_and_for_people(outcome: tuple[Outcome, Onlooker]) -> None:
    directory = outcome[0].directory
    document = json.loads((directory / JSON_FILE).read_text())
    assert document["status"] == str(outcome[0].assessment.status) and document["bars"] == 1_500
    assert [one["status"] for one in document["checks"]] == [str(one.status) for one in outcome[0].assessment.checks]
    assert "SAGE soak" in (directory / HTML_FILE).read_text()


def test_it_goes_on_where_it_ended_and_only_with_the_same_configuration(
    outcome: tuple[Outcome, Onlooker],
) -> None:
    directory = outcome[0].directory
    other = dataclasses.replace(SMALL, seed=4)
    with pytest.raises(OptionError, match="another configuration: seed was 3, and is 4"):
        run_soak(other, directory, Onlooker(), resume=True)
    looking = Onlooker()
    longer = run_soak(dataclasses.replace(SMALL, bars=4 * SEGMENT_BARS), directory, looking, resume=True)
    assert [line["segment"] for line in longer.record.segments] == [0, 1, 2, 3]
    assert longer.record.event_count("resumed") == 1
    assert longer.record.seconds > outcome[0].record.seconds
    assert longer.record.segments[-1]["generation"] == 1
    # Who looks on is told what there was before, and only here: what happened by then is no news.
    assert outcome[1].before is None and looking.before is not None
    earlier, before = outcome[0].record, looking.before
    assert before.bars == earlier.total("bars") > 0 and before.levels == earlier.counts("levels")
    assert before.breaker_openings == earlier.total("breaker_openings")
    assert before.model_restarts == earlier.total("model_restarts")


def test_a_place_that_is_taken_or_empty_is_refused(tmp_path: Path, outcome: tuple[Outcome, Onlooker]) -> None:
    with pytest.raises(OptionError, match="--resume"):
        run_soak(SMALL, outcome[0].directory, Onlooker())
    with pytest.raises(DataError, match="No such file"):
        run_soak(SMALL, tmp_path / "nothing", Onlooker(), resume=True)


def test_at_its_end_a_process_that_has_just_begun_plays_the_same_segments_by_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "AGED_MIN_S", 0.0)
    monkeypatch.setattr(beside, "SHARE", 1e3)
    before = {one.pid for one in children()}
    looking = Onlooker()
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", looking)
    lines = found.record.beside
    assert [line["segment"] for line in lines] == [2 + number for number in range(beside.PAIRS)]
    assert all(line["aged_ms"] > 0 and line["fresh_ms"] > 0 for line in lines)
    (drift,) = [one for one in found.assessment.checks if one.name == "latency drift"]
    assert "8 segments by turns" in drift.told and drift.figures["pairs"] == 8
    # They count for nothing else.
    assert [line["segment"] for line in found.record.segments] == [0]
    assert {line["segment"] for line in found.record.samples["trading"]} == {0}
    assert looking.stages[-1] == "beside a process that has just begun"
    assert {one.pid for one in children()} == before


def test_a_comparison_that_fails_costs_no_verdict_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "AGED_MIN_S", 0.0)
    monkeypatch.setattr(beside, "SHARE", 1e3)
    real = soak.Worker

    def worker(role: str, target: Callable[..., None], *rest: Any) -> soak.Worker:
        return real(role, dies_at_once if role == "fresh" else target, *rest)

    monkeypatch.setattr(soak, "Worker", worker)
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", Onlooker())
    assert found.record.event_count("comparison_failed") == 1 and found.record.beside == []
    assert checks(found)["steadiness"] is Status.PASSED


def test_the_process_that_waits_may_die_in_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "AGED_MIN_S", 0.0)
    monkeypatch.setattr(beside, "SHARE", 1e3)
    real = beside._message

    def message(playing: soak.Worker, both: tuple[soak.Worker, soak.Worker], *rest: Any) -> object | None:
        if playing.role == "fresh" and both[0].exit_code is None:
            os.kill(both[0].pid, signal.SIGKILL)
        return real(playing, both, *rest)

    monkeypatch.setattr(beside, "_message", message)
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", Onlooker())
    assert found.record.event_count("trading_died") == 1 and found.record.beside == []
    assert found.assessment.status is Status.FAILED


def test_being_told_to_stop_leaves_a_report_and_no_process(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = {one.pid for one in children()}
    looking = Onlooker(SEGMENT_BARS + 50, interrupt)
    found = run_soak(dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=10**6), tmp_path / "run", looking)
    assert found.interrupted and len(found.record.segments) >= 1
    assert (tmp_path / "run" / HTML_FILE).exists() and found.record.event_count("interrupted") == 1
    assert {one.pid for one in children()} == before


def signalled(tmp_path: Path, number: signal.Signals) -> tuple[Outcome, Onlooker]:
    """A soak of two segments, in the second of which the trading process gets a signal."""

    def send() -> None:
        (trading,) = [one for one in psutil.Process().children() if _has_a_model(one)]
        os.kill(trading.pid, number)

    looking = Onlooker(SEGMENT_BARS + 50, send)
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=2 * SEGMENT_BARS)
    return run_soak(config, tmp_path / "run", looking), looking


def test_a_trading_process_that_is_killed_is_replaced_and_the_soak_fails(tmp_path: Path) -> None:
    found, _ = signalled(tmp_path, signal.SIGKILL)
    assert [line["segment"] for line in found.record.segments] == [0, 1]
    assert found.record.event_count("trading_died") == 1
    assert checks(found)["steadiness"] is Status.FAILED


def test_a_trading_process_that_hangs_is_told_of_given_up_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "STALL_S", 2.0)
    monkeypatch.setattr(soak, "GIVEN_UP_S", 3.0)
    monkeypatch.setattr(soak, "SAMPLE_S", 0.5)

    found, looking = signalled(tmp_path, signal.SIGSTOP)
    assert [line["segment"] for line in found.record.segments] == [0, 1]
    # A busy machine may keep the next one silent for two seconds, too.
    assert found.record.event_count("stalled") >= found.record.event_count("trading_died") == 1
    assert checks(found)["steadiness"] is Status.FAILED
    # Those who look on heard of it while nothing else was heard, and that it died.
    stalled = [vitals for vitals in looking.vitals if vitals.stalled]
    assert len(stalled) >= 3 and len({vitals.machine for vitals in stalled}) >= 2
    assert looking.vitals[-1].deaths == 1
    # Counts are of the whole soak, whoever traded, and never fall: what was half played was handled, too.
    counts = [vitals.bars for vitals in looking.vitals]
    assert counts == sorted(counts) and counts[-1] >= 2 * SEGMENT_BARS + 50
    assert sum(looking.vitals[-1].levels.values()) == looking.vitals[-1].signals


def test_a_trading_process_that_dies_again_and_again_ends_the_soak_which_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "DEATHS_MAX", 0)
    found, _ = signalled(tmp_path, signal.SIGKILL)
    assert len(found.record.segments) == 1 and not found.interrupted
    (ended,) = [line for line in found.record.events if line["event"] == "ended"]
    assert "dies too often" in ended["detail"]
    assert found.assessment.status is checks(found)["steadiness"] is Status.FAILED


def test_a_trading_process_that_never_lives_through_its_first_segment_fails_the_soak_which_has_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "trade_segments", dies_in_its_first_segment)
    monkeypatch.setattr(soak, "DEATHS_MAX", 1)
    found = run_soak(dataclasses.replace(SMALL, faults=FaultLoad.NONE), tmp_path / "run", Onlooker())
    assert found.record.segments == [] and found.record.event_count("trading_died") == 2
    (ended,) = [line for line in found.record.events if line["event"] == "ended"]
    assert "dies too often" in ended["detail"]
    assert found.assessment.status is checks(found)["steadiness"] is Status.FAILED
    assert json.loads((tmp_path / "run" / JSON_FILE).read_text())["status"] == "failed"
    assert (tmp_path / "run" / HTML_FILE).exists()


def dies_in_its_first_segment(pipe: Connection, config: SoakConfig) -> None:
    """In the place of a trading process: it can begin, and no more."""
    pipe.recv()
    pipe.send(Ready(os.getpid(), {}))
    pipe.recv()
    os._exit(3)


def test_one_soak_at_a_time_is_at_work_in_a_place(tmp_path: Path) -> None:
    refused: list[str] = []

    def meddle() -> None:
        for resume in (True, False):
            with pytest.raises(OptionError) as raised:
                run_soak(config, tmp_path / "run", Onlooker(), resume=resume)
            refused.append(str(raised.value))

    config = SoakConfig(bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", Onlooker(1, meddle))
    assert "another soak is at work there" in refused[0] and "not empty" in refused[1]
    assert not found.problems and found.record.event_count("resumed") == 0


def test_a_control_that_dies_before_anybody_listens_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "control_segments", dies_at_once)
    found = run_soak(dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=SEGMENT_BARS), tmp_path / "run", Onlooker())
    assert found.record.event_count("control_died") == 1
    (memory,) = [
        one for one in found.assessment.checks if one.name == "memory of the trading process beyond NautilusTrader"
    ]
    assert memory.status is Status.UNDECIDED and "there is no control" in memory.told


def test_a_control_that_falls_silent_is_given_up_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "control_segments", says_nothing)
    monkeypatch.setattr(soak, "START_PATIENCE_S", 1.0)
    before = {one.pid for one in children()}
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", Onlooker())
    (died,) = [line for line in found.record.events if line["event"] == "control_died"]
    assert "fell silent" in died["detail"]
    (memory,) = [
        one for one in found.assessment.checks if one.name == "memory of the trading process beyond NautilusTrader"
    ]
    assert memory.status is Status.UNDECIDED and "there is no control" in memory.told
    assert {one.pid for one in children()} == before


def test_a_trading_process_that_dies_while_the_control_finishes_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "control_segments", kills_the_trading_process)
    monkeypatch.setattr(beside, "AGED_MIN_S", 0.0)
    monkeypatch.setattr(beside, "SHARE", 1e3)
    before = {one.pid for one in children()}
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=150, segment_bars=150)
    found = run_soak(config, tmp_path / "run", Onlooker())
    assert found.record.event_count("trading_died") == 1 and found.record.event_count("control_died") == 0
    assert checks(found)["steadiness"] is Status.FAILED
    assert found.record.beside == [], "nothing is left to be compared with"
    assert {one.pid for one in children()} == before


def kills_the_trading_process(pipe: Connection, config: SoakConfig) -> None:
    """In the place of a control: it is given its segment when the trading process has played all of its own."""
    pipe.recv()
    play = pipe.recv()
    (trading,) = [one for one in psutil.Process(os.getppid()).children() if _has_a_model(one)]
    trading.kill()
    time.sleep(1.0)  # its end is heard of before this one is done
    pipe.send(Played(0, play.segment, config.bars_a_segment, 0, (), (), "", 1.0))
    pipe.recv()


def says_nothing(pipe: Connection, config: SoakConfig) -> None:
    """In the place of a control that hangs."""
    time.sleep(600.0)


def dies_at_once(pipe: Connection, config: SoakConfig) -> None:
    """In the place of a control."""
    os._exit(3)


def _has_a_model(process: psutil.Process) -> bool:
    return any("stress.faulty_server" in " ".join(child.cmdline()) for child in process.children())


def test_a_recycled_trading_process_goes_on_with_what_the_detector_knows(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, recycle_mb=50.0, bars=2 * SEGMENT_BARS)
    found = run_soak(config, tmp_path / "run", Onlooker())
    assert [line["generation"] for line in found.record.segments] == [0, 1]
    assert found.record.event_count("recycled") == 1
    # Warm-up is over once and for all: one level that needs scores, and one that needs bars.
    assert found.record.counts("reasons")["WARM_UP"] < 400
    assert not any(line["violations"] for line in found.record.segments)
    assert checks(found)["steadiness"] is Status.PASSED


def test_a_directory_that_becomes_unwritable_costs_the_report_and_not_the_run(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def take_away() -> None:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        place.write_text("in its way")

    config = dataclasses.replace(SMALL, faults=FaultLoad.NONE, bars=SEGMENT_BARS)
    found = run_soak(config, place, Onlooker(SEGMENT_BARS // 2, take_away))
    assert len(found.record.segments) == 1
    assert len(found.problems) == 2 and JOURNAL in found.problems[0] and "report was not written" in found.problems[1]


def test_a_strategy_of_the_users_own_is_soaked_without_a_witness(tmp_path: Path) -> None:
    own = BacktestConfig(own=OwnConfig(strategy="tests.sage.own:Flips"))
    config = SoakConfig(bars=400, segment_bars=200, backtest=soak_backtest(own))
    found = run_soak(config, tmp_path / "run", Onlooker())
    assert [line["answers"] for line in found.record.segments] == [200, 200]
    assert checks(found)["signals"] is Status.PASSED
    (invariants,) = [one for one in found.assessment.checks if one.name == "invariants"]
    assert "answers alone were counted" in invariants.told


def test_a_model_that_is_not_there_is_said_before_anything_is_written_down(tmp_path: Path) -> None:
    base = BacktestConfig(model=ModelConfig(name="no-such-model"))
    with pytest.raises(ModelUnavailable, match="no-such-model"):
        run_soak(dataclasses.replace(SMALL, backtest=soak_backtest(base)), tmp_path / "run", Onlooker())
    # Its place is free for the next try.
    assert not (tmp_path / "run").exists()


def test_what_a_users_strategy_raises_ends_the_soak_with_a_report_up_to_there(tmp_path: Path) -> None:
    own = OwnConfig(strategy="tests.sage.own:Flips", params={"raise_in": "on_bar", "raise_at": 150})
    config = SoakConfig(bars=400, segment_bars=200, backtest=soak_backtest(BacktestConfig(own=own)))
    with pytest.raises(UserCodeRaised, match="my own mistake in on_bar"):
        run_soak(config, tmp_path / "run", Onlooker())
    assert '"event":"ended"' in (tmp_path / "run" / JOURNAL).read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bars": None}, "say how long"),
        ({"hours": 1.0}, "exclude each other"),
        ({"bars": 0}, "--bars 0"),
        ({"bars": None, "hours": -1.0}, "--hours -1"),
        ({"rate": -1.0}, "--rate"),
        ({"rate": float("nan")}, "finite"),
        ({"segment_bars": 100}, "too short to mend in"),
        ({"leak_limit_mb_per_hour": 0.0}, "leak-limit"),
        ({"recycle_mb": 1.0}, "--recycle-mb"),
        ({"plants": (Plant.parse("native@model=5"),)}, "one at a time"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check(dataclasses.replace(SMALL, **values))
