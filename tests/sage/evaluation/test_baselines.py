"""The baselines are what their names say, and strong where they should be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from arch.univariate import EWMAVariance, ZeroMean
from arch.univariate.base import ARCHModel

from data.errors import DataError
from regime.forecast import QUANTILE_LEVELS, FloatArray, pinball
from sage.evaluation.baselines import (
    BASELINES,
    DIURNAL,
    GJR,
    HISTORICAL,
    Forecasts,
    IntArray,
    Past,
    ewma_variances,
    season_of,
)
from sage.evaluation.garch import PERSISTENCE_MAX, Gjr, fit_gjr
from sage.evaluation.scores import coverage, qlike
from tests.sage.evaluation.simulated import TRUE, gjr_returns

STEPS = 8
RETURNS = gjr_returns(6_000, seed=11)


def past_of(returns: FloatArray, slots: IntArray | None = None) -> Past:
    return Past(returns, slots, np.arange(2_000, len(returns) - STEPS + 1), STEPS, 1_000, 2_000, 1_500)


def outcomes_of(past: Past) -> FloatArray:
    return past.returns[past.known[:, None] + np.arange(STEPS)]


def forecasts_of(name: str, past: Past) -> Forecasts:
    done: list[int] = []
    made = BASELINES[name](past, done.append)
    assert sum(done) == len(past.known)
    assert np.isfinite(made.quantiles).all()
    assert (np.diff(made.quantiles, axis=2) >= 0).all()
    assert (made.variance > 0).all()
    return made


@pytest.mark.parametrize("decay", [0.94, 0.97])
def test_the_ewma_recursion_is_a_loop_by_its_definition(decay: float) -> None:
    returns = RETURNS[:500]
    variance = returns[0] ** 2
    expected = [variance]
    for value in returns:
        variance = decay * variance + (1 - decay) * value**2
        expected.append(variance)
    assert ewma_variances(returns, decay) == pytest.approx(np.array(expected), rel=1e-12)


def test_the_ewma_recursion_is_archs() -> None:
    scaled = 1_000 * RETURNS[:1_000]
    model = ZeroMean(scaled, volatility=EWMAVariance(0.94))
    theirs = model.fit(disp="off").conditional_volatility ** 2
    assert ewma_variances(scaled, 0.94)[200:-1] == pytest.approx(theirs[200:], rel=1e-4)


def test_the_gjr_filter_is_archs_at_the_fitted_parameters() -> None:
    from arch import arch_model

    scaled = 100 * RETURNS[:3_000]
    fitted = fit_gjr(scaled, None)
    assert fitted.failure == ""
    unit = scaled / scaled.std()
    theirs = arch_model(unit, mean="Constant", vol="GARCH", p=1, o=1, q=1, dist="t", rescale=False).fit(disp="off")
    ours = fitted.parameters.variances(scaled, float(scaled.var()))
    assert np.sqrt(ours[300:-1]) / scaled.std() == pytest.approx(theirs.conditional_volatility[300:], rel=1e-6)


def test_a_fit_finds_the_parameters_of_simulated_returns() -> None:
    found = fit_gjr(gjr_returns(20_000, seed=12), None).parameters
    assert found.persistence == pytest.approx(TRUE.persistence, abs=0.02)
    assert found.gamma == pytest.approx(TRUE.gamma, abs=0.03)
    assert found.alpha == pytest.approx(TRUE.alpha, abs=0.02)


def test_gjr_garch_beats_unconditional_quantiles_on_its_own_process() -> None:
    past = past_of(RETURNS)
    outcomes = outcomes_of(past)
    gjr, unconditional = forecasts_of(GJR, past), forecasts_of(HISTORICAL, past)
    loss, other = pinball(outcomes, gjr.quantiles), pinball(outcomes, unconditional.quantiles)
    assert loss[:, 0].mean() < 0.99 * other[:, 0].mean()
    assert loss.mean() < 0.995 * other.mean()
    assert (
        qlike(gjr.variance[:, 0], outcomes[:, 0] ** 2).mean()
        < qlike(unconditional.variance[:, 0], outcomes[:, 0] ** 2).mean()
    )
    assert coverage(outcomes, gjr.quantiles) == pytest.approx(0.8, abs=0.02)
    assert gjr.refits == 4 and gjr.failures == []


@pytest.mark.parametrize("name", ["EWMA 0.94", "EWMA 0.97"])
def test_ewma_covers_80_percent_at_every_step(name: str) -> None:
    past = past_of(RETURNS)
    outcomes, made = outcomes_of(past), forecasts_of(name, past)
    for step in range(STEPS):
        assert coverage(outcomes[:, [step]], made.quantiles[:, [step]]) == pytest.approx(0.8, abs=0.025)


def test_historical_quantiles_are_those_of_the_window_before() -> None:
    past = past_of(RETURNS)
    made = forecasts_of(HISTORICAL, past)
    for row in (0, 255, 256, len(past.known) - 1):
        seen = RETURNS[past.known[row] - 2_000 : past.known[row]]
        assert made.quantiles[row, -1] == pytest.approx(np.quantile(seen, QUANTILE_LEVELS), rel=1e-12)
        assert made.variance[row, 0] == pytest.approx((seen**2).mean())


def test_variance_returns_to_the_windows_own_with_bounded_persistence() -> None:
    past = past_of(RETURNS)
    made = forecasts_of(GJR, past)
    first = next(rows for rows, at in past.blocks())
    long_run = RETURNS[:1_000].var()
    assert past.known[first].min() == 2_000 and next(at for _, at in past.blocks()) == 1_000
    gap = made.variance[first] - long_run
    kept = gap[:, 1:] / gap[:, :-1]
    assert kept == pytest.approx(kept[0, 0], rel=1e-4)
    assert 0.5 < kept[0, 0] <= PERSISTENCE_MAX


def test_fits_are_where_the_warm_up_puts_them_whatever_the_first_forecast() -> None:
    late = Past(RETURNS, None, np.arange(2_700, 3_000), STEPS, 1_000, 2_000, 1_500)
    assert [at for _, at in late.blocks()] == [2_500]
    whole = forecasts_of(GJR, past_of(RETURNS)).quantiles[700:1_000]
    # A fit that fails falls back on the one before, so only sound ones agree.
    assert np.array_equal(forecasts_of(GJR, late).quantiles, whole)


def test_the_diurnal_baseline_finds_the_season_and_gains_by_it() -> None:
    slots = 1 + np.arange(len(RETURNS)) % 24
    level = np.exp(0.8 * np.sin(2 * np.pi * slots / 24))
    past = past_of(RETURNS * level, slots)
    season = season_of(past, slots, 5_000)
    assert np.corrcoef(np.log(season[:24]), np.log(level[:24]))[0, 1] > 0.98
    outcomes = outcomes_of(past)
    diurnal, plain = forecasts_of(DIURNAL, past), forecasts_of(GJR, past)
    assert pinball(outcomes, diurnal.quantiles).mean() < 0.98 * pinball(outcomes, plain.quantiles).mean()
    assert coverage(outcomes, diurnal.quantiles) == pytest.approx(0.8, abs=0.02)


def test_a_slot_that_was_never_seen_counts_as_average() -> None:
    slots = np.zeros(len(RETURNS), dtype=np.int64)
    slots[-1] = 1
    assert season_of(past_of(RETURNS, slots), slots, 3_000)[-1] == pytest.approx(1.0)


class Stuck:
    """A result of an optimiser that did not get anywhere."""

    convergence_flag = 9

    def __init__(self) -> None:
        self.params = {"mu": 0.0, "omega": 5.0, "alpha[1]": 0.9, "gamma[1]": 0.0, "beta[1]": 0.0, "nu": 3.0}


def test_a_fit_that_does_not_converge_keeps_the_parameters_before_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from arch.utility.exceptions import ConvergenceWarning

    def stuck(self: ARCHModel, **options: object) -> Stuck:
        warnings.warn("The optimizer returned code 9", ConvergenceWarning, stacklevel=1)
        return Stuck()

    monkeypatch.setattr(ARCHModel, "fit", stuck)
    before = Gjr(0.0, 1e-6, 0.1, 0.0, 0.8)
    kept = fit_gjr(RETURNS[:1_000], before)
    assert kept.parameters is before
    assert "code 9" in kept.failure and "The optimizer returned" in kept.failure
    assert 0.9 < fit_gjr(RETURNS[:1_000], None).parameters.persistence < 1.0
    made = forecasts_of(GJR, past_of(RETURNS))
    assert made.refits == len(made.failures) == 4


def test_a_price_that_stands_still_is_no_series_to_forecast() -> None:
    with pytest.raises(DataError, match="does not move"):
        BASELINES[GJR](past_of(np.zeros(4_000)), lambda rows: None)
    with pytest.raises(ValueError, match="do not vary"):
        fit_gjr(np.zeros(1_000), None)


def test_ewma_bears_prices_that_stand_still_for_long() -> None:
    returns = RETURNS.copy()
    returns[2_500:3_500] = 0.0
    forecasts_of("EWMA 0.94", past_of(returns))
