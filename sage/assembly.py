"""Puts the ensemble of a run together."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from data.errors import OptionError
from data.market import Market
from sage.config import BacktestConfig
from sage.ensemble import Ensemble, EnsembleSettings
from sage.models.alpha import AlphaModel
from sage.models.built_in import built_in


def ensemble_of(
    config: BacktestConfig,
    market: Market,
    trade_rate: Callable[[int], float],
    stopwatch: Callable[[], float],
    own: Sequence[AlphaModel] = (),
    slow_votes: Collection[tuple[int, str]] | None = None,
) -> Ensemble:
    """The ensemble that a configuration describes, with alphas of the user's own after SAGE's.

    Raises
    ------
    OptionError
        If a name is unknown or used twice, or one of the user's own lacks the protocol.
    """
    alphas = [*(built_in(name, config.sizing.conviction_gain) for name in config.ensemble.alphas), *own]
    settings = EnsembleSettings(
        horizon_bars=config.regime.horizon_bars,
        fill_bars=math.ceil(config.costs.latency_ms / 1e3 / market.size.seconds),
        trade_rate=trade_rate,
        weights=config.ensemble.weights,
        # Without a deadline a run does not depend on its machine, and no vote may come too late.
        vote_limit_s=config.ensemble.vote_limit_ms / 1e3 if config.regime.deadline_ms else 0.0,
        slow_votes=slow_votes,
    )
    try:
        return Ensemble(alphas, settings, stopwatch)
    except ValueError as error:
        raise OptionError(f"ensemble: {error}") from error
