"""GJR-GARCH(1,1) with Student-t innovations, fitted by ``arch`` and filtered forward with fixed parameters.

Glosten, Jagannathan and Runkle (1993): ``h[i+1] = omega + (alpha + gamma * (e[i] < 0)) * e[i]**2 + beta * h[i]``.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from arch import arch_model
from numpy.typing import NDArray
from scipy.signal import lfilter

FloatArray = NDArray[np.float64]

PERSISTENCE_MAX = 0.995
"""A window of a few thousand bars cannot tell a persistence above from one of exactly one."""


@dataclass(frozen=True)
class Gjr:
    """Parameters in units of the returns: ``mean`` per bar, ``omega`` a variance; the others have no unit."""

    mean: float
    omega: float
    alpha: float
    gamma: float
    beta: float

    @property
    def persistence(self) -> float:
        """What is left of a deviation from the long-run variance after a bar, for symmetric innovations."""
        return self.alpha + self.gamma / 2.0 + self.beta

    def variances(self, returns: FloatArray, start: float) -> FloatArray:
        """One-step variances, shape (returns + 1,): entry i rests on the first i returns alone.

        ``start`` is the variance before the first.
        """
        surprise = returns - self.mean
        news = self.omega + (self.alpha + self.gamma * (surprise < 0.0)) * surprise * surprise
        filtered, _ = lfilter([1.0], [1.0, -self.beta], news, zi=[self.beta * start])
        return np.concatenate([[start], filtered])


@dataclass(frozen=True)
class Fit:
    """A refit's parameters; ``failure`` says why they are those of the refit before, if they are."""

    parameters: Gjr
    failure: str = ""


def fit_gjr(returns: FloatArray, before: Gjr | None) -> Fit:
    """Fit to returns of shape (bars,), or keep the parameters ``before`` where the optimiser does not converge.

    With none before, they are usual ones for financial returns, at the variance of these.

    Raises
    ------
    ValueError
        If the returns do not vary.
    """
    scale = float(returns.std())
    if not scale > 0.0:
        raise ValueError("returns that do not vary have no GARCH")
    # At unit variance, where the optimiser works best.
    model = arch_model(returns / scale, mean="Constant", vol="GARCH", p=1, o=1, q=1, dist="t", rescale=False)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        # A line search may pass by parameters without a likelihood, and numpy then warns; the flag tells the end.
        result = model.fit(disp="off")
    values = {name: float(value) for name, value in result.params.items()}
    fitted = Gjr(
        mean=values["mu"] * scale,
        omega=values["omega"] * scale * scale,
        alpha=values["alpha[1]"],
        gamma=values["gamma[1]"],
        beta=values["beta[1]"],
    )
    failure = ""
    if result.convergence_flag != 0:
        said = "; ".join(" ".join(str(warning.message).split()) for warning in heard)
        failure = f"optimiser ended with code {result.convergence_flag}: {said or 'no message'}"
    elif not all(map(math.isfinite, values.values())) or fitted.persistence > 1.0 + 1e-6:
        failure = f"parameters make no stationary model: {values}"
    if not failure:
        return Fit(fitted)
    return Fit(before or _guess(returns), failure)


def _guess(returns: FloatArray) -> Gjr:
    alpha, gamma, beta = 0.03, 0.04, 0.93
    return Gjr(float(returns.mean()), float(returns.var()) * (1.0 - alpha - gamma / 2.0 - beta), alpha, gamma, beta)
