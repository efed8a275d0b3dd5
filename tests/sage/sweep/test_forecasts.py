"""Which forecasts a sweep makes before its runs, and how the work is shared out."""

from __future__ import annotations

import dataclasses

from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.config import BacktestConfig, DataConfig, with_keys
from sage.sweep.axes import Axis
from sage.sweep.forecasts import SHARE_BARS_MIN, ForecastJob, jobs_of
from sage.sweep.plan import SweepConfig, plan_of

BARS = 3 * SHARE_BARS_MIN
BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=BARS)))
SIZES = Axis("sizing.target_volatility", (0.1, 0.2, 0.4))
SEEDS = Axis("seed", (1, 2))


def jobs(workers: int, *axes: Axis, base: BacktestConfig = BASE) -> list[ForecastJob]:
    return jobs_of(plan_of(SweepConfig(base, axes)), workers)


def test_runs_on_the_same_bars_share_their_forecasts() -> None:
    assert [(job.first, job.stop) for job in jobs(1, SIZES)] == [(0, BARS)]
    assert [job.config.seed for job in jobs(1, SIZES, SEEDS)] == [1, 2]


def test_runs_that_ask_no_model_need_none() -> None:
    assert not jobs(2, SIZES, base=with_keys(BASE, {"regime.pinned_level": int(Level.SMART)}))


def test_each_worker_has_a_share_but_none_too_small_to_be_worth_a_model() -> None:
    assert [(job.share.part, job.share.parts) for job in jobs(2, SIZES)] == [(0, 2), (1, 2)]
    assert len(jobs(64, SIZES)) == 3
    assert len(jobs(2, SIZES, SEEDS)) == 2
    assert len(jobs(4, SIZES, SEEDS)) == 4
    short = dataclasses.replace(BASE, data=DataConfig(synthetic=SyntheticConfig(bars=SHARE_BARS_MIN)))
    assert len(jobs(4, SIZES, base=short)) == 1
