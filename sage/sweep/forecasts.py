"""Forecasts that the runs of a sweep need, made once before the first of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from regime.actor import bar_input
from regime.signal import Level
from sage.backtest import for_market
from sage.config import BacktestConfig, as_dict
from sage.model import RunModel
from sage.progress import Progress, Silent
from sage.rig import Rig
from sage.sweep.places import here, is_remote, mirror_of
from sage.sweep.plan import MarketKey, Plan, market_key, market_of


@dataclass(frozen=True)
class ForecastJob:
    """Rows ``first`` to ``stop`` of a market, whose windows must all have forecasts; ``config`` says by which model."""

    config: BacktestConfig
    first: int
    stop: int


@dataclass(frozen=True)
class ForecastsMade:
    """What a job came to: forecasts that its bars need, and those that were not in the store; ``problem`` if any."""

    needed: int
    made: int
    problem: str = ""


def jobs_of(plan: Plan) -> list[ForecastJob]:
    """The jobs without which a run would miss forecasts; runs that ask no model need none."""
    widest: dict[tuple[MarketKey, str, int], ForecastJob] = {}
    for task in plan.tasks:
        pinned = task.config.regime.pinned_level
        if pinned is not None and pinned > Level.BASIC:
            continue
        window, market = task.window, market_key(task.config)
        first, stop = (0, plan.bars[market]) if window is None else (window.first, window.stop)
        key = (market, _asks(task.config), first)
        known = widest.get(key)
        if known is None or known.stop < stop:
            widest[key] = ForecastJob(task.config, first, stop)
    return list(widest.values())


def make_forecasts(job: ForecastJob, progress: Progress | None = None) -> ForecastsMade:
    """Let the model answer what the store does not know yet.

    Raises
    ------
    ModelUnavailable
        If there is none, or its process cannot be started.
    """
    show = progress or Silent()
    config = here(job.config)
    market = market_of(market_key(job.config)).part(job.first, job.stop)
    regime = for_market(config.regime, market)
    bars = [bar_input(bar) for bar in market.nautilus_bars]
    seconds = market.size.seconds
    with ExitStack() as stack:
        model = RunModel.open(dataclasses.replace(config, regime=regime), Rig(), stack)
        missing = model.count_missing(bars, regime, seconds)
        if missing:
            model.start(market.bars, show)
            missing = model.count_missing(bars, regime, seconds)
            model.forecast_ahead(bars, regime, seconds, show)
        model.close()
        store = job.config.model.store_dir
        if missing and store is not None and is_remote(store):
            mirror_of(store).publish()
        left = missing - model.known.made
        problem = model.known.error or (f"the model could not answer {left:,} of {missing:,} windows" if left else "")
        return ForecastsMade(model.total, model.known.made, problem)


def _asks(config: BacktestConfig) -> str:
    """What decides which windows are asked, and of whom."""
    regime = {
        item.name: getattr(config.regime, item.name)
        for item in dataclasses.fields(config.regime)
        if not dataclasses.is_dataclass(getattr(config.regime, item.name))
    }
    return json.dumps([regime, as_dict(config.model), as_dict(config.serving.engine)], sort_keys=True, default=str)


def total_of(made: Iterable[ForecastsMade]) -> ForecastsMade:
    """All jobs together."""
    every = list(made)
    problem = next((one.problem for one in every if one.problem), "")
    return ForecastsMade(sum(one.needed for one in every), sum(one.made for one in every), problem)
