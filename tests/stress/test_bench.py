"""The benchmark measures what it says; how fast that is, is no test."""

from __future__ import annotations

import pytest

from data.market import synthetic_market
from data.synthetic import SyntheticConfig
from stress.bench import STAGES, bare_seconds, measure
from tests.conftest import short_config


def test_a_bare_run_takes_some_time() -> None:
    assert bare_seconds(synthetic_market(SyntheticConfig(bars=50))) > 0.0


def test_the_parts_of_a_run_are_told_apart() -> None:
    heard: list[str] = []
    result = measure(short_config(60), 1, heard.append)
    assert result["bars"] == 60
    assert len(heard) == 1
    seconds = result["seconds"]
    assert isinstance(seconds, dict)
    assert 0.0 < sum(seconds[stage] for stage in STAGES) <= seconds["total"]
