"""Forecasts made ahead: kept as they come, made again only where missing, and no run depends on a disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from regime.config import RegimeConfig
from regime.errors import ForecastFailed
from regime.forecast import Context, window_key
from regime.serving.ahead import BATCH_ROWS, KEEP_ROWS, AheadForecasts, Share, contexts, forecast_ahead, missing_windows
from regime.serving.client import ModelClient
from regime.serving.store import ForecastStore, StoreKey
from regime.signal import Reason
from tests.regime.streams import HOUR_S, bars

CONFIG = RegimeConfig()
WARM_UP = CONFIG.model_min_bars - 1


class Counting:
    """The real model, which counts its batches, and from a given one on fails as told."""

    def __init__(self, model: ModelClient, failing_from: int = 10**9, failure: BaseException | None = None) -> None:
        self.batches = 0
        self._model, self._failing_from, self._failure = model, failing_from, failure

    @property
    def checkpoint_id(self) -> str:
        return self._model.checkpoint_id

    def forecast(self, contexts: Context, horizon_bars: int, timeout_s: float) -> NDArray[np.float32]:
        self.batches += 1
        if self.batches >= self._failing_from and self._failure is not None:
            raise self._failure
        return self._model.forecast(contexts, horizon_bars, timeout_s)


def opened(root: Path, model: ModelClient) -> AheadForecasts:
    key = StoreKey(model.checkpoint.sha256, model.engine, "float32", "cpu", CONFIG.context_bars, CONFIG.horizon_bars)
    return AheadForecasts(model.checkpoint_id, ForecastStore(root, key))


def test_what_is_kept_is_not_made_again(model: ModelClient, tmp_path: Path) -> None:
    stream = bars(WARM_UP + 2 * BATCH_ROWS + 9)
    forecast_ahead(stream, CONFIG, HOUR_S, model, opened(tmp_path, model))
    again, counting = opened(tmp_path, model), Counting(model)
    assert missing_windows(stream, CONFIG, HOUR_S, again) == (0, 2 * BATCH_ROWS + 9)
    forecast_ahead(stream, CONFIG, HOUR_S, counting, again)
    assert counting.batches == 0
    assert again.made == 0


def test_a_market_that_repeats_itself_is_forecast_once_for_each_window(model: ModelClient, tmp_path: Path) -> None:
    flat = bars(WARM_UP + KEEP_ROWS + 9)
    closes = [100.0 + index % 2 for index in range(len(flat))]
    stream = [
        dataclasses.replace(bar, open=close, high=close, low=close, close=close)
        for bar, close in zip(flat, closes, strict=True)
    ]
    known = opened(tmp_path, model)
    forecast_ahead(stream, CONFIG, HOUR_S, model, known)
    missing, total = missing_windows(stream, CONFIG, HOUR_S, opened(tmp_path, model))
    assert missing == 0 and total == KEEP_ROWS + 9
    assert 0 < known.made < total


def test_shares_of_the_work_come_to_all_of_it_and_to_nothing_twice(model: ModelClient, tmp_path: Path) -> None:
    stream = bars(WARM_UP + 3 * BATCH_ROWS + 9)
    whole, made = opened(tmp_path / "whole", model), 0
    forecast_ahead(stream, CONFIG, HOUR_S, model, whole)
    for part in range(3):
        shared = opened(tmp_path / "shared", model)
        forecast_ahead(stream, CONFIG, HOUR_S, model, shared, share=Share(part, 3))
        made += shared.made
    together = opened(tmp_path / "shared", model)
    assert missing_windows(stream, CONFIG, HOUR_S, together) == (0, made) == (0, whole.made)
    for context in contexts(stream, CONFIG, HOUR_S):
        found, wanted = together.get(window_key(context)), whole.get(window_key(context))
        assert found is not None and wanted is not None and np.array_equal(found, wanted)


def test_an_interruption_keeps_what_was_done(model: ModelClient, tmp_path: Path) -> None:
    stream = bars(WARM_UP + 5 * BATCH_ROWS)
    with pytest.raises(KeyboardInterrupt):
        forecast_ahead(stream, CONFIG, HOUR_S, Counting(model, 4, KeyboardInterrupt()), opened(tmp_path, model))
    again, counting = opened(tmp_path, model), Counting(model)
    assert missing_windows(stream, CONFIG, HOUR_S, again) == (2 * BATCH_ROWS, 5 * BATCH_ROWS)
    forecast_ahead(stream, CONFIG, HOUR_S, counting, again)
    assert counting.batches == 2


def test_forecasts_reach_the_store_while_the_work_goes_on(model: ModelClient, tmp_path: Path) -> None:
    stream = bars(WARM_UP + KEEP_ROWS + 2 * BATCH_ROWS)
    seen: list[int] = []
    forecast_ahead(
        stream, CONFIG, HOUR_S, model, opened(tmp_path, model), lambda _: seen.append(len(opened(tmp_path, model)))
    )
    assert seen[0] == 0
    assert KEEP_ROWS in seen


def test_bars_that_are_added_cost_their_own_forecasts_only(model: ModelClient, tmp_path: Path) -> None:
    shorter = WARM_UP + 2 * BATCH_ROWS
    forecast_ahead(bars(shorter), CONFIG, HOUR_S, model, opened(tmp_path, model))
    longer, counting = opened(tmp_path, model), Counting(model)
    forecast_ahead(bars(shorter + 30), CONFIG, HOUR_S, counting, longer)
    assert longer.made == 30
    assert counting.batches == 1


def test_a_store_that_cannot_be_written_costs_the_run_nothing(model: ModelClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    known = opened(tmp_path / "file", model)
    stream = bars(WARM_UP + BATCH_ROWS)
    forecast_ahead(stream, CONFIG, HOUR_S, model, known)
    assert missing_windows(stream, CONFIG, HOUR_S, known) == (0, BATCH_ROWS)
    assert str(tmp_path / "file") in known.error


def test_batches_that_fail_are_left_to_the_detector(model: ModelClient, tmp_path: Path) -> None:
    known = opened(tmp_path, model)
    stream = bars(WARM_UP + 3 * BATCH_ROWS)
    forecast_ahead(stream, CONFIG, HOUR_S, Counting(model, 2, ForecastFailed(Reason.MODEL_ERROR)), known)
    assert missing_windows(stream, CONFIG, HOUR_S, known) == (2 * BATCH_ROWS, 3 * BATCH_ROWS)
