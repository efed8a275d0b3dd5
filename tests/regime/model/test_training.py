"""The training recipe makes a checkpoint that loads, and the same one again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import find_checkpoint
from regime.model.engines import EngineSpec, load_engine
from regime.model.simulation import simulate_returns
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


@pytest.mark.parametrize("seed", range(3))
def test_simulated_series_are_finite_alive_and_repeatable(seed: int) -> None:
    first = simulate_returns(np.random.default_rng(seed), 200, 300)
    again = simulate_returns(np.random.default_rng(seed), 200, 300)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (200, 300)
    assert np.isfinite(first).all(), f"seed {seed}"
    assert (first.std(axis=1) > 0).all(), f"seed {seed}"
