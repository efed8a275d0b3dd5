"""The network: full precision agrees with the stock cell, and the training recipe makes a checkpoint that loads."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regime.errors import ModelUnavailable
from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import CONFIG_FILE, Checkpoint, find_checkpoint

pytestmark = pytest.mark.model

HORIZON = 16


def windows(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.standard_t(4, size=(rows, 512)).astype(np.float32)
    found[0, :200] = np.nan
    return found


def test_full_precision_agrees_with_the_stock_cell_to_its_rounding_and_with_float64_to_ours() -> None:
    import torch
    from tirex.models.tirex import TiRexZero

    from regime.model.slstm import use_full_precision_cells
    from regime.model.tirex import TirexModel

    checkpoint = find_checkpoint("embedded")
    ours = TirexModel.load(checkpoint)
    weights = ours._network.state_dict()
    stock = TiRexZero(backend="torch", **checkpoint.hyper_parameters)
    stock.load_state_dict(weights)
    oracle = TiRexZero(backend="torch", **checkpoint.hyper_parameters)
    use_full_precision_cells(oracle)
    oracle.load_state_dict(weights)
    contexts = windows(8)
    found = ours.forecast(contexts, HORIZON)
    with torch.inference_mode():
        rounded = stock._forecast_tensor(torch.from_numpy(contexts), HORIZON).transpose(1, 2).numpy()
        tokens, state = oracle.tokenizer.input_transform(torch.from_numpy(contexts).double())
        exact = oracle.double()._forward_model_tokenized(tokens)[:, :, -1:, :]
        exact = oracle.tokenizer.output_transform(exact, state)[..., :HORIZON].transpose(1, 2).numpy()
    deviation = float(np.nanstd(contexts))
    assert np.abs(found - rounded).max() < 0.05 * deviation
    assert np.abs(found - exact).max() < 1e-4 * deviation
    # The comparison could fail: the stock cell's own rounding is larger than ours.
    assert np.abs(rounded - exact).max() > np.abs(found - exact).max()


def test_the_shipped_checkpoint_is_small_and_tells_how_it_was_made() -> None:
    checkpoint = find_checkpoint("embedded")
    directory = checkpoint.weights.parent
    assert sum(path.stat().st_size for path in directory.iterdir()) < 8_000_000
    training = json.loads((directory / CONFIG_FILE).read_text())["training"]
    assert {"seed", "steps", "recipe", "loss_last"} <= set(training)


def test_the_training_recipe_makes_a_checkpoint_that_forecasts(tmp_path: Path) -> None:
    from regime.model.tirex import TirexModel
    from regime.model.training import TrainingConfig, train

    config = TrainingConfig(
        seed=3, steps=4, batch_series=4, width=32, hidden_width=32, heads=2, blocks=1, context_bars=64
    )
    train(config, tmp_path / "one")
    train(config, tmp_path / "two")
    one, two = (find_checkpoint(str(tmp_path / name)) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    found = TirexModel.load(one).forecast(windows(2)[:, -64:], HORIZON)
    assert found.shape == (2, HORIZON, len(QUANTILE_LEVELS))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("seed", range(3))
def test_simulated_series_are_finite_alive_and_repeatable(seed: int) -> None:
    from regime.model.simulation import simulate_returns

    first = simulate_returns(np.random.default_rng(seed), 200, 300)
    again = simulate_returns(np.random.default_rng(seed), 200, 300)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (200, 300)
    assert np.isfinite(first).all(), f"seed {seed}"
    assert (first.std(axis=1) > 0).all(), f"seed {seed}"


class Bomb:
    """A pickle that would write a file when loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.target, "boom")


def test_a_pickle_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    from regime.model.tirex import TirexModel

    target, bomb = tmp_path / "ran", tmp_path / "model.ckpt"
    bomb.write_bytes(pickle.dumps({"state_dict": Bomb(target), "hyper_parameters": {}}, protocol=2))
    with pytest.raises(ModelUnavailable, match="might run code"):
        TirexModel.load(find_checkpoint(str(bomb)))
    assert not target.exists()


def test_a_checkpoint_as_nxai_publishes_it_is_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from regime.model.tirex import TirexModel

    shipped = find_checkpoint("embedded")
    published = tmp_path / "model.ckpt"
    document = {"hyper_parameters": shipped.hyper_parameters, "state_dict": load_file(shipped.weights)}
    torch.save(document, published)
    contexts = windows(2)
    np.testing.assert_array_equal(
        TirexModel.load(find_checkpoint(str(published))).forecast(contexts, HORIZON),
        TirexModel.load(shipped).forecast(contexts, HORIZON),
    )


def test_a_description_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("[]")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="no checkpoint description"):
        find_checkpoint(str(tmp_path))


def test_a_checkpoint_is_found_and_hashed_without_torch() -> None:
    code = (
        "import sys\n"
        "from regime.model.checkpoint import find_checkpoint\n"
        "find_checkpoint('embedded')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_identity_of_a_checkpoint_is_that_of_its_weights() -> None:
    checkpoint = find_checkpoint("embedded")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.sha256.startswith(checkpoint.id)
    assert len(checkpoint.sha256) == 64
