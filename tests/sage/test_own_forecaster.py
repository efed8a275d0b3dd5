"""Forecasters of the user's own, in the model's place and process."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from data.errors import OptionError
from regime.errors import ModelUnavailable, UserCodeRaised
from regime.signal import Level, Reason
from sage.backtest import run_backtest
from sage.config import BacktestConfig, OwnConfig
from sage.lookahead import Verdict, check_lookahead
from sage.results import determinism_hash_of
from sage.run import BacktestRun
from tests.conftest import short_config


def with_forecaster(name: str, bars: int = 300, **regime: Any) -> BacktestConfig:
    config = short_config(bars)
    return dataclasses.replace(
        config,
        regime=dataclasses.replace(config.regime, **regime),
        own=OwnConfig(forecaster=f"tests.sage.own_forecasters:{name}"),
    )


@pytest.fixture(scope="module")
def plain() -> BacktestRun:
    return run_backtest(with_forecaster("Plain"))


def test_its_forecasts_are_calibrated_classified_and_signed(plain: BacktestRun) -> None:
    last = plain.signals[-1]
    assert last.level is Level.FULL and last.checkpoint_id == "plain-1"
    assert plain.forecasts_made == "online" and plain.forecasts_computed > 250
    assert plain.engine_name == "own"
    assert plain.own["--forecaster"].file.endswith("own_forecasters.py")
    assert plain.checkpoint is not None and plain.checkpoint.sha256 == plain.own["--forecaster"].sha256
    assert not plain.forecast_failures


def test_the_same_forecaster_gives_the_same_hash_and_a_name_given_late_counts(plain: BacktestRun) -> None:
    assert determinism_hash_of(run_backtest(with_forecaster("Plain"))) == determinism_hash_of(plain)
    assert run_backtest(with_forecaster("Named")).signals[-1].checkpoint_id == "named-2"


def test_the_trading_process_does_not_run_its_module_and_the_store_gets_nothing(plain: BacktestRun) -> None:
    assert "tests.sage.own_forecasters" not in sys.modules
    kept = [
        path for path in Path(os.environ["SAGE_STORE"]).rglob("*") if plain.own["--forecaster"].sha256[:8] in str(path)
    ]
    assert plain.known is None and not kept


def test_what_it_raises_costs_that_forecast_and_is_told() -> None:
    run = run_backtest(with_forecaster("RaisesNowAndThen"))
    assert run.forecast_failures == {Reason.MODEL_ERROR: pytest.approx(40, abs=3)}
    assert len(run.signals) == 300
    (note,) = [note for note in run.notes if "raised first" in note]
    assert "LookupError('my own mistake')" in note and "own_forecasters.py:" in note


def test_what_it_has_no_memory_for_is_told_as_such() -> None:
    run = run_backtest(with_forecaster("WantsTooMuch"))
    assert set(run.forecast_failures) == {Reason.OUT_OF_MEMORY}


def test_a_hang_and_a_death_cost_bars_and_not_the_run() -> None:
    run = run_backtest(with_forecaster("Hangs", 100, deadline_ms=100.0))
    assert len(run.signals) == 100 and run.forecast_failures[Reason.TIMEOUT] > 0
    run = run_backtest(with_forecaster("Dies", 130))
    assert len(run.signals) == 130 and run.forecast_failures == {Reason.MODEL_DIED: 1}
    assert run.model_restarts == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoForecast", r"is no forecaster: it lacks forecast\(contexts, horizon_bars, timeout_s\)"),
        ("OtherArguments", r"lacks forecast that takes \(contexts, horizon_bars, timeout_s\)"),
        ("NoName", "is no forecaster: it lacks checkpoint_id"),
        ("Plane", "has no class Plane; it has Plain"),
        ("WantsMore", "asks for moon; what it can be given is bars"),
    ],
)
def test_what_is_no_forecaster_is_refused(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"--forecaster .*{message}"):
        run_backtest(with_forecaster(name, 60))


def test_no_such_module_is_refused_before_anything_starts() -> None:
    config = dataclasses.replace(short_config(60), own=OwnConfig(forecaster="nowhere_at_all:Mine"))
    with pytest.raises(OptionError, match="--forecaster nowhere_at_all:Mine: no module"):
        run_backtest(config)


def test_a_constructor_that_raises_is_told_with_its_traceback() -> None:
    with pytest.raises(UserCodeRaised, match="the constructor raised FileNotFoundError: my weights are gone") as found:
        run_backtest(with_forecaster("RaisesWhenBuilt", 60))
    assert "own_forecasters.py" in found.value.trace


def test_nonsense_in_the_start_up_check_is_a_model_unavailable() -> None:
    with pytest.raises(ModelUnavailable, match=r"must have the shape \(rows, horizon_bars, 9\), not \(1, 16, 5\)"):
        run_backtest(with_forecaster("WrongShape", 60))


def test_a_forecaster_fitted_on_all_bars_is_caught() -> None:
    found = check_lookahead(run_backtest(with_forecaster("FitsOnAll", 60)), 1)
    assert found.finding is not None and found.finding.difference.table == "signals"
    assert found.finding.bar <= 40  # the first bars of which the model is asked


def test_an_honest_forecaster_that_is_handed_the_bars_passes() -> None:
    assert check_lookahead(run_backtest(with_forecaster("TakesBarsHonestly", 50)), 1).verdict is Verdict.CLEAN
