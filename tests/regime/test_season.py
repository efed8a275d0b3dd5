"""The season of the day: learned from the past alone, taken out before the model and given back after it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.config import RegimeConfig
from regime.season import Season, slot_of
from regime.signal import Level
from regime.window import BarInput, BarWindow
from tests.regime.streams import HOUR_NS, HOUR_S, START_NS, ScriptedForecaster, bars, detector, normal_forecast

DAY_FACTORS = np.exp(0.8 * np.sin(2 * np.pi * np.arange(24) / 24))


def seasonal_returns(days: int, seed: int = 1) -> np.ndarray:
    """Hourly returns whose volatility follows DAY_FACTORS."""
    rng = np.random.default_rng(seed)
    return 0.01 * np.tile(DAY_FACTORS, days) * rng.standard_normal(24 * days)


def fed(returns: np.ndarray, bar_seconds: int = HOUR_S) -> tuple[Season, np.ndarray]:
    """A season that saw these bars one after the other, and the factors that were known before each."""
    season = Season(bar_seconds)
    step = bar_seconds * 1_000_000_000
    start = START_NS // (24 * HOUR_NS) * 24 * HOUR_NS + step
    stamps = [start + index * step for index in range(len(returns))]
    slots = [slot_of(ts, ts - step, bar_seconds) for ts in stamps]
    return season, np.array([season.observe(slot, float(r)) for slot, r in zip(slots, returns, strict=True)])


def test_the_season_of_the_day_is_found() -> None:
    _, factors = fed(seasonal_returns(90))
    found = factors[-24:] / factors[-24:].mean()
    assert np.corrcoef(np.log(found), np.log(DAY_FACTORS))[0, 1] > 0.97
    np.testing.assert_allclose(found, DAY_FACTORS / DAY_FACTORS.mean(), rtol=0.35)


def test_where_there_is_no_season_hardly_any_is_found() -> None:
    rng = np.random.default_rng(2)
    _, factors = fed(0.01 * rng.standard_t(5, size=24 * 120))
    assert np.abs(np.log(factors)).mean() < 0.03
    assert np.abs(np.log(factors)).max() < 0.25


def test_the_outlook_is_the_season_of_the_hours_to_come() -> None:
    season, factors = fed(seasonal_returns(90)[:-5])
    # Nineteen hours of the last day have passed; the next ones were last seen the day before.
    expected = [season._factors[1 + hour % 24] for hour in range(19, 19 + 30)]
    np.testing.assert_array_equal(season.outlook(30), expected)
    assert factors.std() > 0.1


def test_minutes_of_one_half_hour_share_a_slot_and_its_outlook() -> None:
    rng = np.random.default_rng(4)
    per_day = 24 * 60
    busy = np.where(np.arange(per_day) // 30 % 2 == 0, 2.0, 1.0)
    season, _ = fed(0.001 * np.tile(busy, 8) * rng.standard_normal(8 * per_day), bar_seconds=60)
    ahead = season.outlook(90)
    assert len(set(ahead[0:30])) == len(set(ahead[30:60])) == 1
    assert ahead[0] > 1.2 * ahead[30]
    assert ahead[60] > 1.2 * ahead[30]


def test_days_have_no_season() -> None:
    season, factors = fed(seasonal_returns(4), bar_seconds=24 * HOUR_S)
    assert (factors == 1.0).all()
    assert (season.outlook(5) == 1.0).all()


def test_the_first_bar_after_a_closure_has_a_slot_of_its_own() -> None:
    assert slot_of(START_NS + 3 * HOUR_NS, START_NS, HOUR_S) == 0
    assert slot_of(START_NS + HOUR_NS, START_NS, HOUR_S) > 0


@given(seed=st.integers(0, 1000), cut=st.integers(1, 24 * 20), scale=st.sampled_from([1e-6, 1.0, 1e3]))
def test_factors_rest_on_the_past_alone_and_not_on_the_unit(seed: int, cut: int, scale: float) -> None:
    returns = seasonal_returns(20, seed)
    _, whole = fed(returns)
    changed = returns.copy()
    changed[cut:] = changed[cut:][::-1] * 7.0
    _, again = fed(changed)
    # A bar's own factor is known before it.
    np.testing.assert_array_equal(again[: cut + 1], whole[: cut + 1])
    np.testing.assert_allclose(fed(scale * returns)[1], whole, rtol=1e-9)
    assert np.isfinite(whole).all()
    assert (whole > 0).all()


def seasonal_bars(days: int) -> list[BarInput]:
    """Hourly bars with the season of DAY_FACTORS."""
    close = 100.0 * np.exp(np.cumsum(seasonal_returns(days)))
    stream = bars(len(close))
    start = START_NS // (24 * HOUR_NS) * 24 * HOUR_NS
    return [
        dataclasses.replace(bar, ts_ns=start + (i + 1) * HOUR_NS, open=c, high=c, low=c, close=c)
        for i, (bar, c) in enumerate(zip(stream, close.tolist(), strict=True))
    ]


def test_the_model_sees_returns_without_their_season_only_where_wanted() -> None:
    stream = seasonal_bars(60)
    contexts = {}
    for seasonal in (True, False):
        window = BarWindow(RegimeConfig(seasonal=seasonal), HOUR_S)
        for bar in stream:
            window.accept(bar)
        contexts[seasonal] = window.context()
    np.testing.assert_array_equal(contexts[False], window.returns.view().astype(np.float32))

    def spread_of_hours(context: np.ndarray) -> float:
        """How different the hours of the day are in size."""
        days = np.abs(context[-21 * 24 :].reshape(21, 24)).mean(axis=0)
        return float(np.log(days).std())

    assert spread_of_hours(contexts[True]) < 0.6 * spread_of_hours(contexts[False])


@pytest.mark.parametrize("seasonal", [True, False])
def test_the_forecast_gets_the_season_back(seasonal: bool) -> None:
    model = ScriptedForecaster(lambda call, horizon: normal_forecast(horizon))
    subject = detector(model, RegimeConfig(seasonal=seasonal))
    widths = {}
    for bar in seasonal_bars(90):
        signal = subject.step(bar)
        if signal.level is Level.FULL:  # type: ignore[union-attr]
            widths[bar.ts_ns // HOUR_NS % 24] = signal.forecast_volatility  # type: ignore[union-attr]
    # The next 16 hours hold the busy ones when asked early in the day, and the calm ones later.
    ratio = widths[0] / widths[12]
    assert ratio > 1.3 if seasonal else ratio == pytest.approx(1.0)
