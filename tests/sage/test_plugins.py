"""Strategies of the user's own: found, built, run, and what they raise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.bars import iso
from data.errors import OptionError
from data.market import synthetic_market
from regime.errors import UserCodeRaised
from regime.signal import Level
from sage import rundir
from sage.backtest import run_backtest
from sage.config import BacktestConfig, OwnConfig, load_config
from sage.plugins import bars_frame, build_strategy, load_plugin, load_strategy, own_digests
from sage.results import determinism_hash_of, summary, tables
from sage.run import BacktestRun
from tests.conftest import short_config
from tests.sage import own

NT_EXAMPLE = "nautilus_trader.examples.strategies.ema_cross:EMACross"


def with_own(bars: int = 400, **values: Any) -> BacktestConfig:
    """A run with classes of the user's on volatility alone, which needs no model."""
    config = short_config(bars)
    regime = dataclasses.replace(config.regime, pinned_level=Level.SIMPLE)
    return dataclasses.replace(config, regime=regime, own=OwnConfig(**values))


def run_flips(name: str = "Flips", **params: Any) -> BacktestRun:
    return run_backtest(with_own(strategy=f"tests.sage.own:{name}", params=params))


@pytest.fixture(scope="module")
def flips() -> BacktestRun:
    return run_flips()


def test_our_books_of_a_users_strategy_agree_with_nautilus(flips: BacktestRun) -> None:
    assert len(flips.ledger.fills) == 400 // 25 - 1 == len(flips.orders) - 1
    assert flips.orders[-1].status != "FILLED"  # sent at the last bar
    assert {order.status for order in flips.orders[:-1]} == {"FILLED"}
    closes = flips.market.bars.close
    assert flips.nautilus_equity == pytest.approx(flips.ledger.equity(closes[-1]), abs=1e-4)
    tabled = tables(flips)
    assert len(tabled.positions) == 8 and len(tabled.equity) == 400
    assert [entry.ts_ns for entry in flips.book] == flips.market.bars.ts_close_ns.tolist()
    held = [entry for entry in flips.book if entry.position]
    assert held and all(entry.exposure == entry.position * entry.close / entry.equity for entry in held)


def test_an_account_that_is_ruined_stays_so_whatever_its_positions_do_later() -> None:
    run = run_flips(quantity=5_000, every_bars=40)
    tabled = tables(run)
    worth = tabled.equity["equity"].to_numpy()
    ruined = int(np.argmax(worth <= 0))
    assert worth[ruined] <= 0 < worth[ruined:].max()  # it comes back, or this would test nothing
    figures = summary(run, tabled)
    assert figures["ruined_at"] == iso(int(tabled.equity["ts_ns"].iloc[ruined]))
    assert figures["total_return"] == -1.0 and figures["max_drawdown"] == -1.0 and figures["final_equity"] == 0.0
    assert figures["break_even"] == "none: the account was ruined"
    assert tabled.equity["drawdown"].min() == -1.0 and (tabled.equity["drawdown"].iloc[ruined:] == -1.0).all()


def test_the_run_names_the_users_file_and_its_digest(flips: BacktestRun, tmp_path: Path) -> None:
    rundir.write(flips, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    file = Path(own.__file__)
    expected = {
        "spec": "tests.sage.own:Flips",
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert manifest["own"] == {"--strategy": expected}
    assert manifest["partial"] is None
    assert "tests.sage.own:Flips" in (tmp_path / "run" / "report.html").read_text()


def test_a_module_that_was_changed_has_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "own_alpha_of_plugins.py"
    module.write_text("class Mine: ...\n")
    mine = OwnConfig(alphas=("own_alpha_of_plugins:Mine",))
    before = own_digests(mine)
    assert list(before) == ["--alpha own_alpha_of_plugins:Mine"]
    module.write_text("class Mine:\n    more = 1\n")
    assert own_digests(mine) != before


def test_the_same_strategy_and_parameters_give_the_same_hash_and_other_parameters_another(flips: BacktestRun) -> None:
    assert determinism_hash_of(run_flips()) == determinism_hash_of(flips)
    assert determinism_hash_of(run_flips(every_bars="24")) != determinism_hash_of(flips)


def test_a_signal_comes_before_the_bar_that_it_is_of() -> None:
    plugin = load_strategy("tests.sage.own:Flips")
    assert plugin.cls is own.Flips
    seen: list[Any] = []

    class Watched(own.Flips):
        def on_bar(self, bar: Any) -> None:
            super().on_bar(bar)
            seen.append((len(self.signals), self.signals[-1].ts_event == bar.ts_event))

    watched = sys.modules[own.__name__]
    watched.Watched = Watched  # type: ignore[attr-defined]
    try:
        run_flips("Watched")
    finally:
        del watched.Watched  # type: ignore[attr-defined]
    assert seen == [(bar, True) for bar in range(1, 401)]


def test_a_strategy_of_nautilus_traders_own_runs_unchanged() -> None:
    run = run_backtest(with_own(strategy=NT_EXAMPLE, params={"trade_size": "1", "fast_ema_period": 5}))
    assert run.own["--strategy"].file.endswith("ema_cross.py")
    assert len(run.ledger.fills) > 2
    assert run.nautilus_equity == pytest.approx(run.ledger.equity(run.market.bars.close[-1]), abs=1e-4)


def test_a_strategy_without_configuration_is_built_without() -> None:
    run = run_backtest(with_own(strategy="tests.sage.own:WithoutConfig"))
    assert len(run.signals) == 400 and not run.orders


def test_bars_are_handed_over_by_the_time_of_their_close() -> None:
    market = synthetic_market(short_config(50).data.synthetic)
    strategy = build_strategy(load_strategy("tests.sage.own:TakesBars"), market, {})
    assert isinstance(strategy, own.TakesBars)
    frame = strategy.frame
    assert list(frame.columns) == ["open", "high", "low", "close", "volume"]
    assert frame.index[3] == pd.Timestamp(int(market.bars.ts_close_ns[3]), unit="ns", tz="UTC")
    # What it does to them is nobody else's business.
    frame.iloc[:, :] = 0.0
    assert bars_frame(market.bars)["close"].to_numpy() == pytest.approx(market.bars.close)


@pytest.mark.parametrize(
    ("spec", "params", "message"),
    [
        ("Flips", {}, "names no class; write package.module:Class"),
        ("tests/sage/own.py:Flips", {}, "name the module, not its file"),
        ("tests.sage.own:", {}, "names no class"),
        ("nowhere_at_all:Flips", {}, "no module nowhere_at_all; it is looked for in the current directory"),
        ("tests.sage.nowhere:Flips", {}, "no module tests.sage.nowhere"),
        ("data.mine:Flips", {}, "data is a package of SAGE's own"),
        ("tests.sage.own:Flip", {}, "has no class Flip; it has Flips"),
        ("tests.sage.own:Zebra", {}, r"has no class Zebra; it has BuiltTwiceOnly, .*, \.\.\.$"),
        ("tests.sage.own:NotAStrategy", {}, "is no NautilusTrader strategy"),
        ("tests.sage.own:NeedsMore", {}, "needs trade_size: --param trade_size=VALUE"),
        ("tests.sage.own:NeedsMore", {"trade_size": "much"}, "NeedsMoreConfig: .*float.*trade_size"),
        ("tests.sage.own:Flips", {"evry_bars": 3}, "evry_bars: FlipsConfig has no such field; near it: every_bars"),
        ("tests.sage.own:Unannotated", {}, "annotate config"),
        ("tests.sage.own:WantsTheMoon", {}, "asks for moon; what it can be given is config, bars"),
    ],
)  # fmt: skip
def test_what_is_no_usable_strategy_is_refused_by_name(spec: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run_backtest(with_own(10, strategy=spec, params=params))


def test_parameters_without_a_strategy_are_refused() -> None:
    with pytest.raises(OptionError, match="--strategy"):
        run_backtest(with_own(10, params={"every_bars": 3}))


def test_a_module_that_raises_when_imported_is_told_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken_at_import.py").write_text("import no_such_dependency_of_mine\n")
    (tmp_path / "broken_syntax.py").write_text("def (:\n")
    with pytest.raises(UserCodeRaised, match="broken_at_import cannot be imported") as found:
        load_plugin("--alpha", "broken_at_import:Mine")
    assert "no_such_dependency_of_mine" in found.value.trace
    with pytest.raises(UserCodeRaised) as found:
        load_plugin("--alpha", "broken_syntax:Mine")
    assert "SyntaxError" in found.value.trace


@pytest.mark.parametrize("where", ["__init__", "on_start"])
def test_a_strategy_that_raises_before_the_first_bar_leaves_nothing_but_its_traceback(where: str) -> None:
    with pytest.raises(UserCodeRaised, match=r"ArithmeticError.*my own mistake") as found:
        run_flips(raise_in=where)
    assert "own.py" in found.value.trace


@pytest.mark.parametrize(
    ("where", "bars_seen"),
    [("on_data", 121), ("on_bar", 120), ("on_order_filled", 126), ("on_timer", 121), ("on_stop", 400)],
)
def test_a_strategy_that_raises_ends_the_run_with_all_there_is_up_to_that_bar(
    flips: BacktestRun, tmp_path: Path, where: str, bars_seen: int
) -> None:
    run = run_flips(raise_in=where, raise_at=120)
    assert run.stopped is not None and f"raised ArithmeticError at bar {bars_seen}" in str(run.stopped)
    assert "own.py" in run.stopped.trace and f"in {where}" in run.stopped.trace
    assert run.signals == flips.signals[:bars_seen]
    end = run.signals[-1].ts_event
    sent = [(order.order_id, order.ts_ns, order.quantity) for order in flips.orders if order.ts_ns <= end]
    assert [(order.order_id, order.ts_ns, order.quantity) for order in run.orders] == sent
    known = [fill for fill in flips.ledger.fills if fill.ts_ns <= end]
    assert run.ledger.fills == known
    figures = rundir.write(run, tmp_path / "run")
    assert figures["partial"] == {
        "bars_seen": bars_seen, "last_bar": pd.Timestamp(end, tz="UTC").isoformat().replace("+00:00", "Z"),
        "why": str(run.stopped),
    }  # fmt: skip
    assert len(pd.read_parquet(tmp_path / "run" / "equity.parquet")) == bars_seen
    last = json.loads((tmp_path / "run" / "run.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "run_stopped"
    assert "Partial." in (tmp_path / "run" / "report.html").read_text()


def test_parameters_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[own]\nstrategy = "tests.sage.own:Flips"\nalphas = ["a:B"]\n[own.params]\nevery_bars = 9\n')
    assert load_config(file).own == OwnConfig("tests.sage.own:Flips", {"every_bars": 9}, None, ("a:B",))
