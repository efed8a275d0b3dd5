"""No forecast knows a later bar, and the model is shown what the detector would show it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.bars import Bars, BarSize
from data.errors import DataError
from regime.config import RegimeConfig
from regime.errors import ModelUnavailable
from regime.forecast import FloatArray
from regime.model.checkpoint import find_checkpoint
from regime.model.engines import Engine, EngineSpec, load_engine
from regime.model.weights import load_weights
from regime.serving.ahead import contexts
from regime.window import BarInput
from sage.evaluation.baselines import BASELINES, GJR, HISTORICAL, Forecasts
from sage.evaluation.results import TASKS
from sage.evaluation.series import IntArray, Series, season_slots
from sage.evaluation.walk import (
    MODEL,
    WITHOUT_SEASON,
    evaluate_market,
    forecast_all,
    implied_variance,
    model_quantiles,
)
from sage.progress import Silent
from tests.sage.evaluation.simulated import SMALL, bars_of, changed_after, gjr_returns, market_of, without

REGIME = RegimeConfig(context_bars=SMALL.context_bars, horizon_bars=SMALL.horizon_bars)
HOURLY = BarSize(3600)
BARS = bars_of(gjr_returns(1_600, seed=21))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(load_weights(find_checkpoint("embedded")), EngineSpec())[0]


def made_on(bars: Bars, engine: Engine) -> tuple[IntArray, dict[str, Forecasts]]:
    series = Series.of(bars, REGIME, HOURLY.seconds)
    origins, _ = series.origins(SMALL.warm_up_bars, SMALL.horizon_bars, SMALL.forecasts)
    return origins, forecast_all(SMALL, series, origins, HOURLY, engine)


@pytest.fixture(scope="module")
def whole(engine: Engine) -> tuple[IntArray, dict[str, Forecasts]]:
    return made_on(BARS, engine)


@given(last_kept=st.integers(650, 1_590), seed=st.integers(0, 2**16))
@settings(max_examples=8)
def test_changing_bars_changes_no_forecast_made_before_them(
    engine: Engine, whole: tuple[IntArray, dict[str, Forecasts]], last_kept: int, seed: int
) -> None:
    origins, made = whole
    others, again = made_on(changed_after(BARS, last_kept, seed), engine)
    assert np.array_equal(origins, others)
    before = origins <= last_kept
    assert set(made) == {MODEL, WITHOUT_SEASON, *BASELINES}
    for name, forecasts in made.items():
        assert np.array_equal(forecasts.quantiles[before], again[name].quantiles[before]), name
        assert np.array_equal(forecasts.variance[before], again[name].variance[before]), name
        # And the test would notice: what comes after the change is another forecast.
        if before.sum() < len(origins) - 50:
            assert not np.array_equal(forecasts.quantiles[~before], again[name].quantiles[~before]), name


@pytest.mark.parametrize("end", [900, 1_313])
def test_cutting_the_future_off_changes_no_forecast(
    engine: Engine, whole: tuple[IntArray, dict[str, Forecasts]], end: int
) -> None:
    origins, made = whole
    fewer, again = made_on(BARS[:end], engine)
    assert np.array_equal(fewer, origins[: len(fewer)])
    for name, forecasts in made.items():
        assert np.array_equal(forecasts.quantiles[: len(fewer)], again[name].quantiles), name


def test_the_model_is_shown_what_the_detector_would_show_it() -> None:
    bars = without(without(BARS, 700, 760), 1_100, 1_110)
    series = Series.of(bars, REGIME, HOURLY.seconds)
    inputs = [BarInput(*values) for values in zip(*(column.tolist() for column in bars.columns()), strict=True)]
    theirs = np.stack(list(contexts(inputs, REGIME, HOURLY.seconds)))
    ready = np.flatnonzero(series.ready)
    assert np.array_equal(series.contexts(ready, REGIME.context_bars), theirs, equal_nan=True)
    assert np.isnan(theirs).any()


def test_no_forecast_looks_across_a_gap() -> None:
    # 60 bars missing end a run; 10 do not.
    bars = without(without(BARS, 1_200, 1_210), 900, 960)
    series = Series.of(bars, REGIME, HOURLY.seconds)
    origins, left_out = series.origins(SMALL.warm_up_bars, SMALL.horizon_bars, 9_000)
    assert np.isnan(series.returns[900]) and np.isfinite(series.returns[1_140])
    assert np.isfinite(series.outcomes(origins, SMALL.horizon_bars)).all()
    missing = sorted(set(range(int(origins[0]), int(origins[-1]) + 1)) - set(origins.tolist()))
    # Horizons that would reach the gap, and the bars after it until the model may be asked again.
    assert missing == list(range(900 - SMALL.horizon_bars, 900 + REGIME.model_min_bars - 1))
    assert left_out == len(missing)
    assert origins[-1] == len(bars) - 1 - SMALL.horizon_bars
    assert series.known[origins[0]] == SMALL.warm_up_bars


def test_outcomes_are_the_returns_that_followed() -> None:
    returns = gjr_returns(200, seed=22)
    series = Series.of(bars_of(returns), REGIME, HOURLY.seconds)
    assert series.outcomes(np.array([50, 100]), 3) == pytest.approx(
        np.stack([returns[51:54], returns[101:104]]), rel=1e-6
    )


def test_slots_are_the_time_of_day_by_the_open_and_one_for_after_a_closure() -> None:
    bars = without(bars_of(np.zeros(60)), 30, 40)
    slots = season_slots(bars.ts_close_ns, 3600)
    # The market starts with a bar from midnight to one.
    assert slots[:30].tolist() == [1 + hour % 24 for hour in range(30)]
    assert slots[30] == 0 and slots[31] == 1 + 41 % 24
    minutes = bars_of(np.zeros(61), 60)
    assert season_slots(minutes.ts_close_ns, 60).tolist() == [1] * 30 + [2] * 30 + [3]


def test_the_models_variance_is_the_references_where_the_intervals_are_equally_wide() -> None:
    quantiles = np.cumsum(np.full((3, 2, 9), 0.1), axis=2)
    reference = Forecasts(quantiles, np.full((3, 2), 0.25))
    assert implied_variance(quantiles, reference) == pytest.approx(np.full((3, 2), 0.25))
    assert implied_variance(2 * quantiles + 1, reference) == pytest.approx(np.full((3, 2), 1.0))
    assert implied_variance(-quantiles, reference) == pytest.approx(np.full((3, 2), 0.25 / 400))


class Foreteller:
    """An engine that answers the true quantiles of standard normal returns, or NaN."""

    def __init__(self, answer: FloatArray) -> None:
        self._answer = answer

    def forecast(self, contexts: FloatArray, horizon_bars: int) -> FloatArray:
        return np.broadcast_to(self._answer, (len(contexts), horizon_bars, 9))


def test_a_model_that_answers_nan_is_no_model() -> None:
    series = Series.of(BARS, REGIME, HOURLY.seconds)
    blind = Foreteller(np.full(9, np.nan))
    with pytest.raises(ModelUnavailable, match="2 of 2 windows"):
        model_quantiles(blind, series, np.array([700, 701]), SMALL, Silent())  # type: ignore[arg-type]


def test_a_market_is_evaluated_from_bars_to_scores(engine: Engine) -> None:
    stages: list[tuple[str, int]] = []
    steps: list[int] = []

    class Listening:
        def stage(self, name: str, total: int) -> None:
            stages.append((name, total))

        def advance(self, done: int, note: str = "") -> None:
            steps.append(done)

    result = evaluate_market(SMALL, market_of(BARS), engine, {}, Listening())
    # The first bar has no return.
    assert result.forecasts == 1_600 - 1 - SMALL.warm_up_bars - SMALL.horizon_bars + 1
    assert stages == [("SYNTHUSDT.SIM 1h", result.forecasts * (2 + len(BASELINES)))]
    assert sum(steps) == stages[0][1]
    assert list(result.baselines) == [*BASELINES, WITHOUT_SEASON]
    for task in TASKS:
        for name, forecaster in result.baselines.items():
            score, compared = forecaster.scores[task], forecaster.comparisons[task]
            assert score.crps == pytest.approx(2 * score.pinball)
            mine = result.model.scores[task].pinball
            assert compared.difference == pytest.approx(mine / score.pinball - 1)
            assert 0 <= compared.p_value <= 1
            # These bars have no season of the day, and none is found: both are then the same forecasts.
            assert compared.standard_error > 0 or name == WITHOUT_SEASON
            assert compared.broken == (score.pinball > result.baselines[HISTORICAL].scores[task].pinball), name
        assert result.so_far[task][-1] == pytest.approx(result.baselines[GJR].comparisons[task].difference)
    assert np.mean(result.model.pinball_by_step) == pytest.approx(result.model.scores["horizon"].pinball)
    assert result.model.scores["one_step"].coverage == pytest.approx(0.8, abs=0.06)


def test_daily_bars_have_no_diurnal_baseline(engine: Engine) -> None:
    market = market_of(bars_of(gjr_returns(900, seed=23), 86_400), 86_400)
    result = evaluate_market(SMALL, market, engine, {})
    assert set(result.baselines) == set(BASELINES) - {"diurnal GJR-GARCH-t"}


def test_too_few_bars_are_an_error_that_names_how_many_it_takes(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"600 bars give 0 forecasts after a warm-up of 600; it takes 644 bars"):
        evaluate_market(SMALL, market_of(BARS[:600]), engine, {})
    full = dataclasses.replace(SMALL, warm_up_bars=2_000, horizon_bars=16)
    with pytest.raises(DataError, match="it takes 2,176 bars"):
        evaluate_market(full, market_of(BARS), engine, {})
