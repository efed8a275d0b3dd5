"""Forecasts that the runs of a sweep need, made once before the first of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from regime.actor import bar_input
from regime.serving.ahead import ALL, Share
from regime.signal import Level
from sage.backtest import for_market
from sage.config import BacktestConfig
from sage.model import RunModel
from sage.progress import Progress, Silent
from sage.rig import Rig
from sage.sweep.places import here, is_remote, mirror_of
from sage.sweep.plan import MarketKey, Plan, asked, market_key, market_of

SHARE_BARS_MIN = 1_000
"""Bars below which no share of a job goes: a model process takes seconds to start, in which it makes that many."""
SHARE_BARS_MAX = 10_000
"""Bars above which a job is shared out whoever does it, so that people see how far it is."""

Rows = tuple[int, int]


@dataclass(frozen=True)
class ForecastJob:
    """Rows of a market, each from the first to one before the last, whose windows must all have forecasts.

    ``config`` says by which model, ``share`` which of the forecasts this job makes.
    """

    config: BacktestConfig
    rows: tuple[Rows, ...]
    share: Share = ALL

    @property
    def bars(self) -> int:
        """About how many forecasts it may have to make."""
        return sum(stop - first for first, stop in self.rows) // self.share.parts


@dataclass(frozen=True)
class ForecastsMade:
    """What a job came to: forecasts that its bars need, and those that were not in the store; ``problem`` if any.

    ``engine`` is the one whose forecasts are there now.
    """

    needed: int
    made: int
    problem: str = ""
    engine: str = ""


def jobs_of(plan: Plan, workers: int = 1) -> list[ForecastJob]:
    """The jobs without which a run would miss forecasts; runs that ask no model need none.

    Rows that begin at one bar have their forecasts in common, the longest serves all. Others may have some in common
    where they overlap: neighbours go to one job, which makes each once. Jobs are shared out where there are fewer than
    workers to do them.
    """
    widest: dict[tuple[MarketKey, str], dict[int, int]] = {}
    configs: dict[tuple[MarketKey, str], BacktestConfig] = {}
    for task in plan.tasks:
        pinned = task.config.regime.pinned_level
        if pinned is not None and pinned > Level.BASIC:
            continue
        window, market = task.window, market_key(task.config)
        first, stop = (0, plan.markets[market].bars) if window is None else (window.first, window.stop)
        key = (market, asked(task.config))
        configs.setdefault(key, task.config)
        stops = widest.setdefault(key, {})
        stops[first] = max(stop, stops.get(first, 0))
    at_once = -(-workers // max(1, len(widest)))
    return [
        job for key, stops in widest.items() for job in _shared_out(configs[key], tuple(sorted(stops.items())), at_once)
    ]


def make_forecasts(job: ForecastJob, progress: Progress | None = None) -> ForecastsMade:
    """Let the model answer what the store does not know yet.

    Raises
    ------
    ModelUnavailable
        If there is none, or its process cannot be started.
    """
    show = progress or Silent()
    config = here(job.config)
    whole = market_of(market_key(job.config))
    regime = for_market(config.regime, whole)
    needed = left = 0
    with ExitStack() as stack:
        model = RunModel.open(dataclasses.replace(config, regime=regime), Rig(), stack)
        started = False
        for first, stop in job.rows:
            market = whole.part(first, stop)
            bars = [bar_input(bar) for bar in market.nautilus_bars]
            missing = model.count_missing(bars, regime, market.size.seconds, job.share)
            if missing and not started:
                model.start(market.bars, show)
                started = True
                missing = model.count_missing(bars, regime, market.size.seconds, job.share)
            if missing:
                before = model.known.made
                model.forecast_ahead(bars, regime, market.size.seconds, show, job.share)
                left += missing - (model.known.made - before)
            needed += model.total
        model.close()
        store = job.config.model.store_dir
        if model.known.made and store is not None and is_remote(store):
            mirror_of(store).publish()
        problem = model.known.error or (f"the model could not answer {left:,} of {needed:,} windows" if left else "")
        return ForecastsMade(needed, model.known.made, problem, model.engine_name)


def total_of(made: Iterable[ForecastsMade]) -> ForecastsMade:
    """All jobs together."""
    every = list(made)
    problem = next((one.problem for one in every if one.problem), "")
    return ForecastsMade(sum(one.needed for one in every), sum(one.made for one in every), problem)


def _shared_out(config: BacktestConfig, rows: tuple[Rows, ...], at_once: int) -> Iterator[ForecastJob]:
    """Jobs for so many workers, or fewer where a share would not be worth the start of a model."""
    if len(rows) > 1:
        jobs = min(at_once, len(rows))
        edges = [len(rows) * number // jobs for number in range(jobs + 1)]
        yield from (ForecastJob(config, rows[edges[number] : edges[number + 1]]) for number in range(jobs))
        return
    bars = rows[0][1] - rows[0][0]
    parts = max(1, min(max(at_once, -(-bars // SHARE_BARS_MAX)), bars // SHARE_BARS_MIN))
    yield from (ForecastJob(config, rows, Share(part, parts)) for part in range(parts))
