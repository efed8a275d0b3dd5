"""The benchmark measures what it says; how fast that is, is no test."""

from __future__ import annotations

from data.market import synthetic_market
from data.synthetic import SyntheticConfig
from sage.backtest import STAGES
from stress.bench import bare_seconds, measure
from tests.conftest import short_config


def test_a_bare_run_takes_some_time() -> None:
    assert bare_seconds(synthetic_market(SyntheticConfig(bars=50))) > 0.0


def test_the_runs_and_their_parts_are_told_apart() -> None:
    heard: list[str] = []
    result = measure(short_config(60), 1, heard.append)
    assert result["bars"] == 60
    assert len(heard) == 1
    seconds = result["seconds"]
    assert isinstance(seconds, dict)
    for name in ("first", "again", "recorded"):
        assert 0.0 < sum(seconds[name][stage] for stage in STAGES) <= seconds[name]["total"]
    assert seconds["first"]["start_model"] > 0.0
    assert seconds["again"]["start_model"] == seconds["recorded"]["start_model"] == 0.0
