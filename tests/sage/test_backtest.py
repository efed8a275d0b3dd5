"""Real backtests: real NT engine, real model process, real checkpoint, short simulated market."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from data.bars import iso
from data.errors import OptionError
from data.market import synthetic_market
from regime.alerts import Alert, Severity
from regime.errors import ModelUnavailable
from regime.files import LOCK, alone_in
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineSpec, choose_engine
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput
from sage import rundir
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.costs import UNKNOWN_SPREAD_BPS
from sage.results import determinism_hash, summary, tables
from sage.rig import Rig
from sage.run import BacktestRun
from sage.tearsheet import fill_line
from stress.misbehaviour import Control, MisbehavingProcess, Misbehaviour
from tests.conftest import SHORT_BARS, clean_environment, short_config


def with_regime(config: BacktestConfig, **changes: object) -> BacktestConfig:
    return dataclasses.replace(config, regime=dataclasses.replace(config.regime, **changes))  # type: ignore[arg-type]


def without_model(bars: int = 400, **changes: object) -> BacktestConfig:
    """A run on the indicators alone, which needs no model process."""
    return with_regime(short_config(bars), pinned_level=Level.SMART, **changes)


def test_every_bar_gets_one_signal(short_run: BacktestRun) -> None:
    assert len(short_run.signals) == SHORT_BARS
    assert not short_run.rejections
    stamps = [signal.ts_event for signal in short_run.signals]
    assert stamps == short_run.market.bars.ts_close_ns.tolist()
    assert short_run.signals[-1].level is Level.FULL


def test_the_model_that_answered_is_the_one_that_ships(short_run: BacktestRun) -> None:
    assert short_run.checkpoint is not None
    assert short_run.signals[-1].checkpoint_id == short_run.checkpoint.id
    assert short_run.engine_name == choose_engine(EngineSpec()).name


def test_orders_fill_at_the_close_of_the_next_bar(short_run: BacktestRun) -> None:
    bars = short_run.market.bars
    row = {int(ts): index for index, ts in enumerate(bars.ts_close_ns)}
    decided = {order.order_id: order.ts_ns for order in short_run.orders}
    assert short_run.ledger.fills
    for fill in short_run.ledger.fills:
        assert row[fill.ts_ns] == row[decided[fill.order_id]] + 1
        assert fill.price == bars.close[row[fill.ts_ns]]


def test_without_latency_orders_fill_at_the_same_close() -> None:
    config = without_model()
    run = run_backtest(dataclasses.replace(config, costs=dataclasses.replace(config.costs, latency_ms=0.0)))
    decided = {order.order_id: order.ts_ns for order in run.orders}
    assert run.ledger.fills
    assert all(fill.ts_ns == decided[fill.order_id] for fill in run.ledger.fills)


@pytest.mark.parametrize(("latency_ms", "bars_later"), [(1.0, 1), (3_600_000.0, 1), (5_400_000.0, 2)])
def test_a_slow_line_to_the_venue_fills_later_and_the_report_says_so(latency_ms: float, bars_later: int) -> None:
    config = without_model()
    run = run_backtest(dataclasses.replace(config, costs=dataclasses.replace(config.costs, latency_ms=latency_ms)))
    row = {int(ts): index for index, ts in enumerate(run.market.bars.ts_close_ns)}
    decided = {order.order_id: order.ts_ns for order in run.orders}
    assert run.ledger.fills
    assert {row[fill.ts_ns] - row[decided[fill.order_id]] for fill in run.ledger.fills} == {bars_later}
    expected = "close of the next bar" if bars_later == 1 else f"ends {bars_later} bars later"
    assert expected in fill_line(latency_ms, run.market.size.seconds)


def test_fee_and_half_the_spread_are_charged_on_every_fill(short_run: BacktestRun) -> None:
    rate = (short_run.config.costs.fee_bps + UNKNOWN_SPREAD_BPS / 2) / 10_000
    for fill in short_run.ledger.fills:
        assert fill.commission == pytest.approx(rate * fill.quantity * fill.price, abs=1e-7)


def test_exposure_stays_under_its_maximum_which_nautilus_does_not_enforce() -> None:
    config = without_model(600)
    sizing = dataclasses.replace(config.sizing, target_volatility=50.0, conviction_gain=1e6)
    run = run_backtest(dataclasses.replace(config, sizing=sizing))
    books = {entry.ts_ns: entry for entry in run.book}
    ordered = []
    for order in run.orders:
        entry = books[order.ts_ns]
        after = entry.position + order.side * order.quantity
        if abs(after) > abs(entry.position):
            ordered.append(after * entry.close / entry.equity)
    # SMART supports half of the maximum exposure.
    assert 0.49 < max(ordered) <= 0.5


def test_a_spot_instrument_is_never_short(short_run: BacktestRun) -> None:
    assert not short_run.allow_short
    assert min(entry.position for entry in short_run.book) >= 0.0


def test_shorts_pass_through_flat_in_two_orders() -> None:
    config = without_model(1500)
    sizing = dataclasses.replace(config.sizing, allow_short=True, conviction_gain=50.0, rebalance_band=0.2)
    run = run_backtest(dataclasses.replace(config, sizing=sizing))
    assert min(entry.position for entry in run.book) < 0.0
    held = 0.0
    for fill in run.ledger.fills:
        after = round(held + fill.side * fill.quantity, 12)
        assert held * after >= 0.0
        held = after
    assert run.nautilus_equity == pytest.approx(run.ledger.equity(run.market.bars.close[-1]), abs=1e-4)


def test_cutting_the_last_third_off_changes_nothing_before_it(short_run: BacktestRun) -> None:
    whole = short_run.market
    kept = 2 * len(whole.bars) // 3
    cut = run_backtest(short_config(kept))
    assert cut.market.bars.sha256() == whole.bars[:kept].sha256()
    end = int(whole.bars.ts_close_ns[kept - 1])
    assert cut.signals == short_run.signals[:kept]
    assert cut.ledger.fills == [fill for fill in short_run.ledger.fills if fill.ts_ns <= end]
    # Orders of the last bar are still on their way when the data ends.
    sent = [(order.order_id, order.ts_ns, order.side, order.quantity) for order in cut.orders]
    before = [
        (order.order_id, order.ts_ns, order.side, order.quantity) for order in short_run.orders if order.ts_ns <= end
    ]
    assert sent == before
    assert cut.book == short_run.book[:kept]


def test_another_process_gives_the_same_hash_and_loads_no_torch(short_run: BacktestRun) -> None:
    code = (
        "import sys\n"
        "from tests.conftest import short_config\n"
        "from sage.backtest import run_backtest\n"
        "from sage.results import determinism_hash, summary, tables\n"
        "print(determinism_hash(tables(run_backtest(short_config()))))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == determinism_hash(tables(short_run))


def test_online_and_ahead_have_the_same_hash(short_run: BacktestRun) -> None:
    config = short_config(300)
    online = run_backtest(dataclasses.replace(config, model=dataclasses.replace(config.model, online=True)))
    ahead = run_backtest(config)
    assert online.forecasts_made == "online"
    assert {timing.source for timing in online.timings} == {"none", "model"}
    assert {timing.source for timing in ahead.timings} == {"none", "store"}
    if not online.engine_name.startswith("native"):  # torch's last digits depend on the batch; the run says so
        assert [signal.level for signal in online.signals] == [signal.level for signal in ahead.signals]
        return
    assert determinism_hash(tables(online)) == determinism_hash(tables(ahead))


class SlowModel(Rig):
    """A run whose model takes a twentieth of a second, however much the system gives to whom."""

    def __init__(self) -> None:
        self.slow = Control()
        self.slow.set(Misbehaviour.SLOW, 0.05)

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        return ModelClient(
            checkpoint, serving, self.stopwatch, lambda found, config: MisbehavingProcess(self.slow, found, config)
        )


def test_a_deadline_that_is_hardly_ever_met_degrades_bars_and_makes_the_run_depend_on_the_machine() -> None:
    rig = SlowModel()
    run = run_backtest(with_regime(short_config(120), deadline_ms=10.0), rig=rig)
    rig.slow.close()
    assert len(run.signals) == 120
    asked = run.signals[70:]
    degraded = [signal for signal in asked if signal.level is Level.SMART]
    assert len(degraded) > len(asked) / 2
    # Once enough calls were late the breaker opens, and nothing is asked for a while.
    late, spared = (Reason.TIMEOUT,) * 2, (Reason.BREAKER_OPEN,) * 2
    assert {signal.reasons for signal in degraded} <= {late, spared}
    assert set(run.forecast_failures) == {"TIMEOUT", "BREAKER_OPEN"}
    assert run.breaker_opened > 0
    assert not summary(run, tables(run))["reproducible"]


@pytest.mark.parametrize("level", [Level.BASIC, Level.SIMPLE, Level.EMERGENCY])
def test_a_pinned_level_is_the_best_that_answers(level: Level) -> None:
    run = run_backtest(with_regime(short_config(150), pinned_level=level))
    assert min(signal.level for signal in run.signals) == level


def test_a_missing_model_stops_the_run_unless_it_may_degrade() -> None:
    config = short_config(150)
    missing = dataclasses.replace(config, model=dataclasses.replace(config.model, name="no-such-checkpoint"))
    with pytest.raises(ModelUnavailable, match="no-such-checkpoint"):
        run_backtest(missing)
    allowed = dataclasses.replace(missing, model=dataclasses.replace(missing.model, allow_degraded=True))
    run = run_backtest(allowed)
    assert run.signals[-1].level is Level.SMART
    assert "no-such-checkpoint" in run.model_error
    assert run.forecasts_made == "none"


def test_equal_seeds_give_equal_markets_and_other_seeds_others() -> None:
    config = BacktestConfig().data.synthetic
    one, same = synthetic_market(config), synthetic_market(config)
    other = synthetic_market(dataclasses.replace(config, seed=config.seed + 1))
    assert one.bars.sha256() == same.bars.sha256() != other.bars.sha256()


def test_the_run_directory_is_complete_and_readable(short_run: BacktestRun, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    figures = rundir.write(short_run, directory)
    names = {path.name for path in directory.iterdir()}
    frames = {"signals", "rejections", "orders", "fills", "positions", "equity", "timing", "weights"}
    assert names == {f"{name}.parquet" for name in frames} | {
        "manifest.json", "summary.json", "alpha-latency.json", "run.jsonl", "report.html",
    }  # fmt: skip
    assert len(pd.read_parquet(directory / "signals.parquet")) == SHORT_BARS
    assert json.loads((directory / "summary.json").read_text())["determinism_hash"] == figures["determinism_hash"]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["checkpoint"]["sha256"] == short_run.checkpoint.sha256  # type: ignore[union-attr]
    assert manifest["data"]["sha256"] == short_run.market.bars.sha256()
    assert manifest["config"]["regime"]["context_bars"] == 512
    assert manifest["versions"]["nautilus_trader"]
    events = [json.loads(line) for line in (directory / "run.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "run_started"
    assert events[-1]["event"] == "run_finished"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_alerts_are_told_in_the_story_the_summary_and_the_report(short_run: BacktestRun, tmp_path: Path) -> None:
    stamps = [signal.ts_event for signal in short_run.signals]
    alerts = [
        Alert(stamps[at], "model.health", Severity.HIGH, raised, "because")
        for at, raised in ((300, True), (400, False))
    ]
    figures = rundir.write(dataclasses.replace(short_run, alerts=alerts), tmp_path / "run")
    assert figures["alerts"] == {"model.health": 1}
    events = [json.loads(line) for line in (tmp_path / "run" / "run.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"].startswith("alert")]
    assert [(event["event"], event["severity"], event["ts"]) for event in told] == [
        ("alert_raised", "HIGH", iso(stamps[300])),
        ("alert_cleared", "HIGH", iso(stamps[400])),
    ]
    assert "alert: model.health" in (tmp_path / "run" / "report.html").read_text()


def test_the_report_stands_alone(short_run: BacktestRun, tmp_path: Path) -> None:
    rundir.write(short_run, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    body = page[page.index("<body>") :]
    assert "src=" not in body
    assert 'rel="stylesheet"' not in page
    assert "fill at the close of the next bar" in page
    assert "Built with technology from NXAI" in page
    assert "buy and hold" in page


def test_an_earlier_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OptionError, match="not empty"):
        rundir.choose_directory(tmp_path, "x")
    assert (tmp_path / "manifest.json").read_text() == "{}"


def test_two_runs_begun_in_the_same_second_have_places_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rundir.time, "strftime", lambda *_: "20240131-120000")
    with rundir.claimed(None, "x") as one, rundir.claimed(None, "x") as other:
        assert one != other
        for place in (one, other):
            with rundir.whole(place) as partial:
                (partial / "manifest.json").write_text(str(place))
    assert [(place / "manifest.json").read_text() for place in (one, other)] == [str(one), str(other)]
    with pytest.raises(RuntimeError), rundir.claimed(None, "x") as third:
        raise RuntimeError("it went wrong")
    assert not third.exists() and one.exists()


def test_what_was_interrupted_before_it_began_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with alone_in(tmp_path, OSError()), pytest.raises(OptionError, match="another process is at work there"):
        rundir.choose_directory(tmp_path, "x")
    assert rundir.choose_directory(tmp_path, "x") == tmp_path and not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(
    short_run: BacktestRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir, "render", full)
    with pytest.raises(OSError, match="No space"):
        rundir.write(short_run, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_nothing_and_says_130(tmp_path: Path, how: str) -> None:
    code = (
        "import os, signal\n"
        "from sage import rig\n"
        "from cli.app import app\n"
        "class Interrupting(rig.Detector):\n"
        "    def step(self, bar):\n"
        f"        if self._state.accepted_bars == 300: os.kill(os.getpid(), signal.{how})\n"
        "        return super().step(bar)\n"
        "rig.Detector = Interrupting\n"
        f"app(['backtest', '--level', '2', '--out', {str(tmp_path / 'run')!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_rejected_bars_get_an_event_instead_of_a_signal_and_open_nothing() -> None:
    class Spoiling(Rig):
        """Breaks every fiftieth bar; NT itself would not let one in."""

        seen = 0

        def bars(self, bar: BarInput) -> Sequence[BarInput]:
            self.seen += 1
            return [dataclasses.replace(bar, close=math.nan) if self.seen % 50 == 0 else bar]

    run = run_backtest(without_model(400), rig=Spoiling())
    assert len(run.rejections) == 8
    assert len(run.signals) == 392
    rejected = {rejection.ts_event for rejection in run.rejections}
    assert rejected.isdisjoint(signal.ts_event for signal in run.signals)
    assert rejected.isdisjoint(order.ts_ns for order in run.orders)
    figures = summary(run, tables(run))
    assert (figures["rejected_bars"], figures["signals"], figures["bars"]) == (8, 392, 400)


def test_impossible_signals_are_counted_and_never_traded_on() -> None:
    class Lying(Rig):
        """Makes the strategy hear of signals that are surer than sure."""

        def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
            return dataclasses.replace(answer, confidence=2.0) if isinstance(answer, Signal) else answer

    run = run_backtest(without_model(200), rig=Lying())
    assert sum(run.ignored_signals.values()) == 200
    assert run.orders == []
    figures = summary(run, tables(run))
    assert figures["ignored_signals"] == 200
    assert figures["total_return"] == 0.0


def test_a_price_so_small_that_no_quantity_could_hold_the_money_is_survived() -> None:
    config = without_model(300)
    synthetic = dataclasses.replace(config.data.synthetic, start_price=2e-9, price_decimals=14, volume_decimals=0)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, synthetic=synthetic), cash=1e9)
    run = run_backtest(config)
    assert run.ledger.fills
    assert not run.refused_orders


def test_every_alpha_votes_and_the_record_of_it_is_kept(short_run: BacktestRun, tmp_path: Path) -> None:
    rundir.write(short_run, tmp_path / "run")
    frame = pd.read_parquet(tmp_path / "run" / "weights.parquet")
    assert frame["ts_ns"].tolist() == [entry.ts_ns for entry in short_run.book]
    names = short_run.config.ensemble.alphas
    weights = frame[[f"weight_{name}" for name in names]].to_numpy()
    voted = frame[[f"vote_{name}" for name in names]].notna().to_numpy()
    assert (weights[~voted] == 0.0).all()
    assert (weights[voted] >= 0.05 - 1e-12).all()
    assert weights[voted.any(axis=1)].sum(axis=1) == pytest.approx(1.0)
    assert voted[-1].all()
    latencies = json.loads((tmp_path / "run" / "alpha-latency.json").read_text())
    assert set(latencies) == set(names) and all(one["hdr_histogram_us"] for one in latencies.values())
    figures = json.loads((tmp_path / "run" / "summary.json").read_text())["ensemble"]
    assert all(regime["regret"] <= regime["bound"] for regime in figures["regimes"])


def test_without_its_model_a_run_gives_the_forecast_no_weight() -> None:
    run = run_backtest(without_model())
    assert run.ensemble is not None
    at = run.ensemble.names.index("forecast")
    assert {poll.weights[at] for poll in run.ensemble.polls} == {0.0}
    assert run.orders
