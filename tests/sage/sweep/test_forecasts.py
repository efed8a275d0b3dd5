"""Which forecasts a sweep makes before its runs, and how the work is shared out."""

from __future__ import annotations

import dataclasses

from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.config import BacktestConfig, DataConfig, with_keys
from sage.sweep.axes import Axis
from sage.sweep.forecasts import SHARE_BARS_MAX, SHARE_BARS_MIN, ForecastJob, jobs_of
from sage.sweep.plan import SweepConfig, plan_of
from sage.sweep.windows import WindowConfig

BARS = 3 * SHARE_BARS_MIN
BASE = BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=BARS)))
SIZES = Axis("sizing.target_volatility", (0.1, 0.2, 0.4))
SEEDS = Axis("seed", (1, 2))


def jobs(workers: int, *axes: Axis, base: BacktestConfig = BASE) -> list[ForecastJob]:
    return jobs_of(plan_of(SweepConfig(base, axes)), workers)


def test_runs_on_the_same_bars_share_their_forecasts() -> None:
    assert [job.rows for job in jobs(1, SIZES)] == [((0, BARS),)]
    assert [job.config.seed for job in jobs(1, SIZES, SEEDS)] == [1, 2]


def test_runs_that_ask_no_model_need_none() -> None:
    assert not jobs(2, SIZES, base=with_keys(BASE, {"regime.pinned_level": int(Level.SMART)}))


def test_anchored_windows_share_those_of_the_longest_and_neighbours_of_rolling_ones_a_job() -> None:
    def windowed(rolling: bool) -> list[ForecastJob]:
        config = SweepConfig(BASE, (SIZES,), windows=WindowConfig(1_000, 400, rolling))
        return jobs_of(plan_of(config), 2)

    anchored, rolling = windowed(False), windowed(True)
    assert [job.rows for job in anchored] == [((0, BARS),)] * 2
    assert [len(job.rows) for job in rolling] == [2, 3]
    assert [first for job in rolling for first, _ in job.rows] == [0, 416, 832, 1248, 1664]


def test_only_what_a_window_is_made_of_asks_for_forecasts_of_its_own() -> None:
    alike, unlike = Axis("regime.pinned_level", (None, 0)), Axis("regime.horizon_bars", (8, 16))
    assert len(jobs(1, alike)) == 1 and len(jobs(1, unlike)) == 2


def test_a_long_market_is_shared_out_so_that_people_see_how_far_it_is() -> None:
    long = dataclasses.replace(BASE, data=DataConfig(synthetic=SyntheticConfig(bars=2 * SHARE_BARS_MAX + 1)))
    assert len(jobs(1, SIZES, base=long)) == 3


def test_each_worker_has_a_share_but_none_too_small_to_be_worth_a_model() -> None:
    assert [(job.share.part, job.share.parts) for job in jobs(2, SIZES)] == [(0, 2), (1, 2)]
    assert len(jobs(64, SIZES)) == 3
    assert len(jobs(2, SIZES, SEEDS)) == 2
    assert len(jobs(4, SIZES, SEEDS)) == 4
    short = dataclasses.replace(BASE, data=DataConfig(synthetic=SyntheticConfig(bars=SHARE_BARS_MIN)))
    assert len(jobs(4, SIZES, base=short)) == 1
