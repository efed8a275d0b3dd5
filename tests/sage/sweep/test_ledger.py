"""Trials are counted once each, whatever becomes of them, and for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.config import BacktestConfig, with_keys
from sage.sweep.ledger import VARIABLE, Ledger, default_ledger, idea_of, question_of

BASE = BacktestConfig()


def test_an_idea_counts_once_however_often_it_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    ledger = Ledger(path)
    other = with_keys(BASE, {"sizing.target_volatility": 0.3})
    for config in (BASE, other, BASE):
        ledger.begin(config, "one")
    assert ledger.count([question_of(BASE)]) == 2
    again = Ledger(path)
    again.begin(BASE, "two")
    assert again.count([question_of(BASE)] * 3) == 2 and len(path.read_text().splitlines()) == 2


def test_other_days_and_another_place_of_the_catalog_are_the_same_idea() -> None:
    keys = {"data.source": "catalog", "data.instrument": "A.X", "data.bar": "1h"}
    one, other = (
        with_keys(BASE, keys | {"data.catalog": place, "data.start": start})
        for place, start in (("a", "2023-01-01"), ("b", None))
    )
    assert idea_of(one) == idea_of(other) and question_of(one) == question_of(other) == "A.X 1h"
    assert idea_of(one) != idea_of(with_keys(one, {"costs.fee_bps": 1.0}))


def test_trials_on_another_instrument_are_not_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.begin(BASE, "one")
    assert ledger.count(["A.X 1h"]) == 0


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    Ledger(path).begin(BASE, "one")
    path.write_text(path.read_text() + '{"question": 1\n[]\n')
    ledger = Ledger(path)
    assert ledger.damaged_lines == 2 and ledger.count([question_of(BASE)]) == 1


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Ledger(tmp_path)


def test_where_it_lies_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/some/where.jsonl")
    assert default_ledger() == Path("/some/where.jsonl")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_ledger() == Path("/data/sage/trials.jsonl")
