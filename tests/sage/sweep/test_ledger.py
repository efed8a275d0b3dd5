"""Trials are counted once each, whatever becomes of them, and for good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import OptionError
from sage.config import BacktestConfig, with_keys
from sage.sweep.ledger import VARIABLE, DailyReturns, Ledger, default_ledger, idea_of

BASE = idea_of(BacktestConfig())
OTHER = idea_of(with_keys(BacktestConfig(), {"sizing.target_volatility": 0.3}))
HERE = "BTCUSDT.TEST"


def test_an_idea_counts_once_however_often_it_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    ledger = Ledger(path)
    for idea in (BASE, OTHER, BASE):
        ledger.begin(HERE, idea, "one")
    assert ledger.count([HERE]) == 2
    again = Ledger(path)
    again.begin(HERE, BASE, "two")
    assert again.count([HERE] * 3) == 2 and len(path.read_text().splitlines()) == 2


def test_other_days_and_another_place_of_the_catalog_are_the_same_idea() -> None:
    keys = {"data.source": "catalog", "data.instrument": "A.X"}
    one, other = (
        with_keys(BacktestConfig(), keys | {"data.catalog": place, "data.start": start, "data.bar": bar})
        for place, start, bar in (("a", "2023-01-01", "1h"), ("b", None, "60m"))
    )
    assert idea_of(one) == idea_of(other) != idea_of(with_keys(one, {"costs.fee_bps": 1.0}))
    assert idea_of(with_keys(one, {"seed": 9})) == idea_of(one)


def test_other_code_or_weights_are_another_idea_under_whatever_name() -> None:
    config = BacktestConfig()
    assert len({idea_of(config), idea_of(config, ["weights"]), idea_of(config, ["weights", "code"])}) == 3


def test_what_an_idea_has_earned_is_kept_and_the_last_word_stands(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    ledger, days = Ledger(path), np.arange(20_000, 20_300)
    earned = [DailyReturns(days, 0.01 * np.random.default_rng(seed).standard_normal(300)) for seed in (1, 2)]
    ledger.begin(HERE, BASE, "one")
    for found in earned:
        ledger.finish(HERE, BASE, found)
    ledger.begin(HERE, OTHER, "one")
    (kept,) = Ledger(path).earlier([HERE], set())
    assert np.array_equal(kept.days, days) and np.allclose(kept.returns, earned[1].returns, rtol=1e-6)
    assert Ledger(path).count([HERE]) == 2
    assert not Ledger(path).earlier([HERE], {(HERE, BASE)})
    lines = len(path.read_text().splitlines())
    Ledger(path).finish(HERE, BASE, earned[1])
    assert len(path.read_text().splitlines()) == lines


def test_what_another_sweep_writes_meanwhile_counts(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "trials.jsonl"), Ledger(tmp_path / "trials.jsonl")
    other.begin(HERE, BASE, "other")
    assert one.count([HERE]) == 0
    one.refresh()
    assert one.count([HERE]) == 1


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    Ledger(path).begin(HERE, BASE, "one")
    path.write_bytes(path.read_bytes()[:-5])
    Ledger(path).begin(HERE, OTHER, "two")
    ledger = Ledger(path)
    assert ledger.damaged_lines == 1 and ledger.count([HERE]) == 1


def test_trials_on_another_instrument_are_not_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.begin(HERE, BASE, "one")
    assert ledger.count(["A.X"]) == 0


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    Ledger(path).begin(HERE, BASE, "one")
    path.write_text(path.read_text() + '{"question": 1\n[]\n')
    ledger = Ledger(path)
    assert ledger.damaged_lines == 2 and ledger.count([HERE]) == 1


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError):
        Ledger(tmp_path / "file" / "trials.jsonl")


def test_a_directory_is_refused_with_the_way_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is a directory.*--ledger"):
        Ledger(tmp_path)


def test_where_it_lies_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/some/where.jsonl")
    assert default_ledger() == Path("/some/where.jsonl")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_ledger() == Path("/data/sage/trials.jsonl")
    # As the specification wants it; else the count would depend on where the command is run.
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert default_ledger() == Path.home() / ".local" / "share" / "sage" / "trials.jsonl"
