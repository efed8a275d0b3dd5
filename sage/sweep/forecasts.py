"""Forecasts that the runs of a sweep need, made once before the first of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from regime.actor import bar_input
from regime.serving.ahead import ALL, Share
from regime.signal import Level
from sage.backtest import for_market
from sage.config import BacktestConfig, as_dict
from sage.model import RunModel
from sage.progress import Progress, Silent
from sage.rig import Rig
from sage.sweep.places import here, is_remote, mirror_of
from sage.sweep.plan import MarketKey, Plan, market_key, market_of

SHARE_BARS_MIN = 1_000
"""Bars below which no share of a job goes: a model process takes seconds to start, in which it makes that many."""


@dataclass(frozen=True)
class ForecastJob:
    """Rows ``first`` to ``stop`` of a market, whose windows must all have forecasts; ``config`` says by which model.

    ``share`` says which of the forecasts this job makes.
    """

    config: BacktestConfig
    first: int
    stop: int
    share: Share = ALL


@dataclass(frozen=True)
class ForecastsMade:
    """What a job came to: forecasts that its bars need, and those that were not in the store; ``problem`` if any."""

    needed: int
    made: int
    problem: str = ""


def jobs_of(plan: Plan, workers: int = 1) -> list[ForecastJob]:
    """The jobs without which a run would miss forecasts; runs that ask no model need none.

    Where there are fewer than workers to do them they are shared out.
    """
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
    parts = -(-workers // max(1, len(widest)))
    return [shared for job in widest.values() for shared in _shared(job, parts)]


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
        missing = model.count_missing(bars, regime, seconds, job.share)
        if missing:
            model.start(market.bars, show)
            missing = model.count_missing(bars, regime, seconds, job.share)
            model.forecast_ahead(bars, regime, seconds, show, job.share)
        model.close()
        store = job.config.model.store_dir
        if missing and store is not None and is_remote(store):
            mirror_of(store).publish()
        left = missing - model.known.made
        problem = model.known.error or (f"the model could not answer {left:,} of {missing:,} windows" if left else "")
        return ForecastsMade(model.total, model.known.made, problem)


def _shared(job: ForecastJob, parts: int) -> list[ForecastJob]:
    """So many jobs in place of one, or fewer where a share would not be worth the start of a model."""
    parts = max(1, min(parts, (job.stop - job.first) // SHARE_BARS_MIN))
    return [dataclasses.replace(job, share=Share(part, parts)) for part in range(parts)]


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
