"""What a volatility state has to hold its own against: hidden Markov models and a jump model, fitted once.

Each is fitted to the first part of a series and then follows the rest bar by bar, without looking ahead.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd

from sage.studies.two_state import BoolArray, FloatArray, TwoStateModel, log_densities

STARTS = 10
T_DEGREES_OF_FREEDOM = 5.0
"""Given to the t-HMM and not fitted: the truth where tails are heavy."""

JUMP_PENALTY = 1.0
"""The best of 1, 3, 6, 10, 30 and 60 by balanced accuracy on 36 other series of the simulation."""

JUMP_HALF_LIVES_BARS = (3, 10)
"""Likewise; beside absolute returns, half-lives of 5 and 20, and the package's example features for bull and bear."""

JUMP_STARTS = 3
JUMP_WARM_UP_BARS = 20

_FIRST_SWEEPS, _LAST_SWEEPS = 30, 150
_TOLERANCE = 1e-5
_LEAST_LEAVE = 1e-5


def fit_t_hmm(returns: FloatArray, rng: np.random.Generator, nu: float | None = T_DEGREES_OF_FREEDOM) -> TwoStateModel:
    """Two-state hidden Markov models by EM, ten starts each, all series at once.

    Every start gets some sweeps, the likeliest of each series goes on. Source of the M-step for Student-t: Peel and
    McLachlan (2000), Robust mixture modelling using the t distribution.

    Parameters
    ----------
    returns
        Shape (series, bars).
    rng
        Draws the starts.
    nu
        Degrees of freedom; None for a Gaussian model.
    """
    series = len(returns)
    repeated = np.repeat(returns, STARTS, axis=0)
    deviation = repeated.std(axis=1, keepdims=True)
    ratios = rng.uniform(0.3, 0.9, (len(repeated), 1)), rng.uniform(1.1, 2.5, (len(repeated), 1))
    model = TwoStateModel(
        means=repeated.mean(axis=1, keepdims=True) + 0.1 * deviation * rng.standard_normal((len(repeated), 2)),
        scales=deviation * np.hstack(ratios),
        leaves=np.exp(rng.uniform(np.log(0.002), np.log(0.1), (len(repeated), 2))),
        degrees_of_freedom=nu,
    )
    likelihood = np.full(len(repeated), -np.inf)
    for _ in range(_FIRST_SWEEPS):
        model, likelihood = em_sweep(repeated, model)
    best = np.arange(series) * STARTS + likelihood.reshape(series, STARTS).argmax(axis=1)
    model = TwoStateModel(model.means[best], model.scales[best], model.leaves[best], nu)
    before = likelihood[best]
    for _ in range(_LAST_SWEEPS):
        model, likelihood = em_sweep(returns, model)
        if float(np.max(likelihood - before)) < _TOLERANCE * returns.shape[1]:
            break
        before = likelihood
    return _calm_first(model)


def em_sweep(returns: FloatArray, model: TwoStateModel) -> tuple[TwoStateModel, FloatArray]:
    """One sweep of EM: the next model, and the log likelihood (series,) of the one given."""
    nu = model.degrees_of_freedom
    logs = log_densities(returns, model.means, model.scales, nu)
    turbulent, moves, likelihood = _smoothed(logs, model)
    smoothed = np.stack([1.0 - turbulent, turbulent], axis=2)
    if nu is None:
        weights = smoothed
    else:
        z = (returns[:, :, None] - model.means[:, None, :]) / model.scales[:, None, :]
        weights = smoothed * (nu + 1.0) / (nu + z**2)
    means = (weights * returns[:, :, None]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    squares = (weights * (returns[:, :, None] - means[:, None, :]) ** 2).sum(axis=1)
    scales = np.sqrt(squares / np.maximum(smoothed.sum(axis=1), 1e-300))
    floor = 0.02 * returns.std(axis=1, keepdims=True)
    leaves = np.clip(moves / np.maximum(smoothed[:, :-1].sum(axis=1), 1e-300), _LEAST_LEAVE, 1.0 - _LEAST_LEAVE)
    return TwoStateModel(means, np.maximum(scales, floor), leaves, nu), likelihood


def _smoothed(logs: FloatArray, model: TwoStateModel) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Probabilities of turbulence given all returns (series, bars), expected leaves (series, 2), log likelihoods.

    Forward by Hamilton's filter, backward by Kim's smoother (1994, Dynamic linear models with Markov-switching).
    """
    series, bars, _ = logs.shape
    odds = np.exp(np.clip(logs[:, :, 1] - logs[:, :, 0], -500.0, 500.0)).T.copy()
    leave_calm, leave_turbulent = model.leaves.T
    stay_turbulent = 1.0 - leave_turbulent
    foretold, filtered, norms = (np.empty((bars, series)) for _ in range(3))
    probability = model.turbulent_share
    for bar in range(bars):
        if bar:
            probability = probability * stay_turbulent + (1.0 - probability) * leave_calm
        foretold[bar] = probability
        weighted = probability * odds[bar]
        norms[bar] = weighted + (1.0 - probability)
        probability = filtered[bar] = weighted / norms[bar]
    smoothed = filtered.copy()
    for bar in range(bars - 2, -1, -1):
        up = smoothed[bar + 1] / foretold[bar + 1]
        down = (1.0 - smoothed[bar + 1]) / (1.0 - foretold[bar + 1])
        smoothed[bar] = filtered[bar] * (stay_turbulent * up + leave_turbulent * down)
    up = ((1.0 - filtered[:-1]) * leave_calm * smoothed[1:] / foretold[1:]).sum(axis=0)
    down = (filtered[:-1] * leave_turbulent * (1.0 - smoothed[1:]) / (1.0 - foretold[1:])).sum(axis=0)
    likelihood = np.log(norms).sum(axis=0) + logs[:, :, 0].sum(axis=1)
    return np.clip(smoothed.T, 0.0, 1.0), np.stack([up, down], axis=1), likelihood


def fit_gaussian_hmm(returns: FloatArray) -> TwoStateModel:
    """hmmlearn's GaussianHMM on each series (series, bars): the likeliest of ten starts, gone on with."""
    from hmmlearn.hmm import GaussianHMM

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
    means, scales, leaves = [], [], []
    for row in returns:
        unit = row.std()
        fits = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for start in range(STARTS):
                model = GaussianHMM(
                    2,
                    covariance_type="diag",
                    min_covar=1e-6,
                    implementation="scaling",
                    n_iter=_FIRST_SWEEPS,
                    random_state=start,
                )
                model.fit(row[:, None] / unit)
                fits.append((model.monitor_.history[-1], -start, model))
            _, _, best = max(fits, key=lambda fit: fit[:2])
            best.init_params, best.n_iter, best.tol = "", _LAST_SWEEPS, 1e-3
            best.fit(row[:, None] / unit)
        means.append(unit * best.means_.ravel())
        scales.append(unit * np.sqrt(best.covars_.ravel()))
        leaves.append(np.clip([best.transmat_[0, 1], best.transmat_[1, 0]], _LEAST_LEAVE, 1.0 - _LEAST_LEAVE))
    return _calm_first(TwoStateModel(np.array(means), np.array(scales), np.array(leaves), None))


def online_jump_model(returns: FloatArray, fitted_bars: int, penalty: float = JUMP_PENALTY) -> BoolArray:
    """``jumpmodels``' discrete model on one series: fitted to the first bars, ``predict_online`` on all of them.

    Features are the logarithms of two exponentially weighted volatilities; they are clipped at three
    standard deviations and standardised with what is known of the first bars, as in the package's own example. Only
    the bars after ``fitted_bars`` are to be used of the result.
    """
    from jumpmodels.jump import JumpModel
    from jumpmodels.preprocess import DataClipperStd, StandardScalerPD

    row = pd.Series(returns)
    features = {bars: np.log(np.sqrt((row**2).ewm(halflife=bars).mean())) for bars in JUMP_HALF_LIVES_BARS}
    table = pd.DataFrame(features).iloc[JUMP_WARM_UP_BARS:]
    first = table.iloc[: fitted_bars - JUMP_WARM_UP_BARS]
    clipper, scaler = DataClipperStd(mul=3.0), StandardScalerPD()
    known = scaler.fit_transform(clipper.fit_transform(first))
    model = JumpModel(n_components=2, jump_penalty=penalty, n_init=JUMP_STARTS)
    model.fit(known, ret_ser=row.loc[known.index], sort_by="vol")
    states = model.predict_online(scaler.transform(clipper.transform(table)))
    found = np.zeros(len(returns), dtype=bool)
    found[JUMP_WARM_UP_BARS:] = np.asarray(states) == 1
    return found


def _calm_first(model: TwoStateModel) -> TwoStateModel:
    order = np.argsort(model.scales, axis=1, kind="stable")
    means, scales, leaves = (
        np.take_along_axis(part, order, axis=1) for part in (model.means, model.scales, model.leaves)
    )
    return TwoStateModel(means, scales, leaves, model.degrees_of_freedom)
