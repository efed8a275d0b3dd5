"""The training recipe makes a checkpoint that loads, and the same one again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from regime.errors import ModelUnavailable
from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import find_checkpoint
from regime.model.engines import EngineSpec, load_engine
from regime.model.simulation import mask_patches, simulate_returns, simulate_series
from regime.model.weights import load_weights

HORIZON = 16


@pytest.mark.torch
def test_the_training_recipe_makes_a_checkpoint_that_forecasts(tmp_path: Path) -> None:
    from regime.model.training import TrainingConfig, train

    config = TrainingConfig(
        seed=3, steps=4, batch_series=4, width=32, hidden_width=32, heads=2, blocks=1, context_bars=64
    )
    train(config, tmp_path / "one")
    train(config, tmp_path / "two")
    one, two = (find_checkpoint(str(tmp_path / name)) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    engine, _ = load_engine(load_weights(one), EngineSpec())
    contexts = simulate_returns(np.random.default_rng(0), 2, 64).astype(np.float32)
    found = engine.forecast(contexts, HORIZON)
    assert found.shape == (2, HORIZON, len(QUANTILE_LEVELS))
    assert np.isfinite(found).all()


@pytest.mark.torch
def test_what_was_trained_is_recorded_and_other_bytes_are_refused(tmp_path: Path) -> None:
    from regime.model.training import TrainingConfig, train

    out = tmp_path / "trained"
    train(TrainingConfig(steps=2, batch_series=4, width=32, hidden_width=32, heads=2, blocks=1, context_bars=64), out)
    assert find_checkpoint(str(out)).sha256 == json.loads((out / "config.json").read_text())["weights_sha256"]
    weights = out / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ModelUnavailable, match="recorded was"):
        find_checkpoint(str(out))


@pytest.mark.torch
def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regime.model import training

    config = training.TrainingConfig(
        seed=4, steps=4, batch_series=4, width=32, hidden_width=32, heads=2, blocks=1, context_bars=64
    )
    monkeypatch.setattr(training, "SAVE_EVERY_STEPS", 2)
    monkeypatch.setattr(training, "POOL_SERIES", 16)
    training.train(config, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    batches = training.SeriesPool.batch
    pools: list[training.SeriesPool] = []

    def fourth_batch_fails(pool: training.SeriesPool) -> object:
        if len(pools) == 3:
            raise Interrupted
        pools.append(pool)
        return batches(pool)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training.SeriesPool, "batch", fourth_batch_fails)
        training.train(config, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    steps: list[int] = []
    training.train(config, tmp_path / "part", on_step=lambda count, _: steps.append(count))
    assert steps == [2, 1, 1]
    whole, part = (find_checkpoint(str(tmp_path / name)) for name in ("whole", "part"))
    assert whole.sha256 == part.sha256
    assert not list(tmp_path.glob("*.resume*"))


@pytest.mark.parametrize("seed", range(3))
def test_simulated_series_are_finite_alive_and_repeatable(seed: int) -> None:
    first = simulate_series(np.random.default_rng(seed), 200, 300)
    again = simulate_series(np.random.default_rng(seed), 200, 300)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (200, 300)
    assert np.isfinite(first).all(), f"seed {seed}"
    assert (first.std(axis=1) > 0).all(), f"seed {seed}"


def test_hidden_patches_come_in_spans_and_leave_the_beginning() -> None:
    hidden = mask_patches(np.random.default_rng(0), 2_000, 32)
    assert not hidden[:, :2].any()
    assert 0.02 < hidden.mean() < 0.2
    assert 0.3 < hidden.any(axis=1).mean() < 0.7
    assert (hidden[:, 1:] & hidden[:, :-1]).any()
