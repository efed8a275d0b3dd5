"""Leaks planted in real processes are found, and where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from stress.soak.config import SoakConfig
from stress.soak.launch import Outcome, run_soak
from stress.soak.plants import Plant
from stress.soak.verdict import Status
from tests.stress.soak.test_soak import Onlooker

TRADING, MODEL = "memory of the trading process beyond NautilusTrader", "memory of the model process"
FILES = "file descriptors of the trading process"
FAST = 20_000
"""Megabytes, or descriptors, an hour: half a minute must be enough."""


def found(tmp_path: Path, *plants: str) -> set[str]:
    """What a soak of some seconds finds broken."""
    config = SoakConfig(bars=4_000, segment_bars=100, plants=tuple(Plant.parse(f"{plant}={FAST}") for plant in plants))
    outcome = run_soak(config, tmp_path / "run", Onlooker())
    return leaks(outcome)


def leaks(outcome: Outcome) -> set[str]:
    """What is found to grow; of latency a busy machine may say what it likes."""
    failed = {one.name for one in outcome.assessment.checks if one.status is Status.FAILED}
    return {name for name in failed if name.startswith(("memory", "file descriptors", "threads"))}


def test_native_memory_of_the_model_and_descriptors_of_the_trading_process_are_told_apart(tmp_path: Path) -> None:
    assert found(tmp_path, "native@model", "files@trading") == {MODEL, FILES}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["objects", "native", "cache"])
def test_memory_that_the_trading_process_holds_is_found_there(tmp_path: Path, kind: str) -> None:
    assert found(tmp_path, f"{kind}@trading") == {TRADING}


@pytest.mark.long
def test_where_nothing_is_planted_nothing_is_found(tmp_path: Path) -> None:
    config = SoakConfig(bars=20_000)
    outcome = run_soak(config, tmp_path / "run", Onlooker())
    assert not leaks(outcome)
