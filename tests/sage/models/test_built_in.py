"""Every alpha that comes with SAGE: causal, bounded, blind to the scale of prices, and with an opinion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data.bars import Bars
from data.errors import OptionError
from sage.models.alpha import AlphaModel, problem_with_alpha
from sage.models.built_in import BUILT_IN, built_in
from tests.sage.models.views import market, scaled, votes

BARS = 420


def alpha(name: str) -> AlphaModel:
    return built_in(name, 4.0)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return market(BARS)


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_has_the_protocol_and_votes_within_bounds_from_its_first_bar_on(name: str, bars: Bars) -> None:
    subject = alpha(name)
    assert problem_with_alpha(subject) is None
    said = votes([subject], bars)[:, 0]
    assert np.isnan(said[: subject.min_bars - 1]).all()
    assert (np.abs(said[subject.min_bars - 1 :]) <= 1.0).all()


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "forecast"])
def test_it_says_different_things_at_different_times(name: str, bars: Bars) -> None:
    said = votes([alpha(name)], bars)[alpha(name).min_bars :, 0]
    assert said.std() > 0.01
    assert said.min() < 0.0 < said.max()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_vote_does_not_change_when_the_future_does(name: str, bars: Bars) -> None:
    whole = votes([alpha(name)], bars)[:, 0]
    cut = 300
    assert np.array_equal(votes([alpha(name)], bars[:cut])[:, 0], whole[:cut], equal_nan=True)
    other = market(BARS, seed=99)
    spliced = Bars(*(np.concatenate([a[:cut], b[cut:]]) for a, b in zip(bars.columns(), other.columns(), strict=True)))
    told = votes([alpha(name)], spliced)[:, 0]
    assert np.array_equal(told[:cut], whole[:cut], equal_nan=True)
    if name != "forecast":  # it looks at the signal alone
        assert not np.array_equal(told[cut:], whole[cut:])


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("factor", [2.0**-20, 3.0e-7, 1.7e5])
def test_the_scale_of_prices_and_volumes_means_nothing(name: str, factor: float, bars: Bars) -> None:
    plain = votes([alpha(name)], bars)
    larger = dataclasses.replace(scaled(bars, factor), volume=bars.volume * 1e3)
    assert votes([alpha(name)], larger) == pytest.approx(plain, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "forecast"])
def test_a_market_that_stands_still_moves_nobody(name: str) -> None:
    still = market(200)
    flat = np.full(200, 50.0)
    said = votes([alpha(name)], Bars(still.ts_close_ns, flat, flat, flat, flat, flat))
    assert (said[alpha(name).min_bars :] == 0.0).all()


def ramp(step: float) -> Bars:
    """Prices that rise by ``step`` a bar, in wobbles, with a jump of ten steps near the end."""
    rng = np.random.default_rng(0)
    changes = step + 0.5 * abs(step) * rng.standard_normal(200)
    changes[-3] = 10 * step
    close = 100.0 * np.exp(np.cumsum(changes))
    before = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(close, before), np.minimum(close, before)
    return Bars(market(200).ts_close_ns, before, high, low, close, np.full(200, 7.0))


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_trend_and_breakout_go_with_a_move_and_reversal_against_it(way: float) -> None:
    trend, breakout, reversal = votes([alpha("trend"), alpha("breakout"), alpha("reversal")], ramp(way * 0.002))[-1]
    assert way * trend > 0.5
    assert way * breakout > 0.5
    assert way * reversal < -0.3


def test_features_learn_a_market_in_which_looks_foretell_the_future() -> None:
    rng = np.random.default_rng(4)
    # Every 200 bars calm drift up and wild drift down take turns.
    wild = (np.arange(4000) // 200) % 2 == 1
    changes = np.where(wild, -0.004, 0.002) + np.where(wild, 0.01, 0.002) * rng.standard_t(4, 4000)
    close = 100.0 * np.exp(np.cumsum(changes))
    stamps = market(4000).ts_close_ns
    said = votes([alpha("features")], Bars(stamps, close, close, close, close, np.ones(4000)))[2000:, 0]
    ahead = np.log(close[16:] / close[:-16])[2000:]
    assert np.corrcoef(said[:-16], ahead)[0, 1] > 0.2


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(OptionError, match="no alpha 'carry'; there are forecast, trend"):
        built_in("carry", 4.0)
