"""Checkpoints: found and hashed by name, read without running code, and refused where they do not fit."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from regime.errors import ModelUnavailable
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, find_checkpoint
from regime.model.weights import ARCHITECTURES, Architecture, load_weights
from tests.regime.model.bomb import Bomb


def shipped_copy(into: Path) -> Path:
    shutil.copytree(find_checkpoint("embedded").weights.parent, into)
    return into


def test_the_shipped_checkpoint_is_small_and_tells_how_it_was_made() -> None:
    checkpoint = find_checkpoint("embedded")
    directory = checkpoint.weights.parent
    assert sum(path.stat().st_size for path in directory.iterdir()) < 8_000_000
    training = json.loads((directory / CONFIG_FILE).read_text())["training"]
    assert {"seed", "steps", "recipe", "loss_last"} <= set(training)


def test_a_description_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("[]")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="no checkpoint description"):
        find_checkpoint(str(tmp_path))


def test_a_safetensors_checkpoint_is_found_and_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from regime.model.checkpoint import find_checkpoint\n"
        "from regime.model.weights import load_weights\n"
        "load_weights(find_checkpoint('embedded'))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_identity_of_a_checkpoint_is_that_of_its_weights() -> None:
    checkpoint = find_checkpoint("embedded")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.sha256.startswith(checkpoint.id)
    assert len(checkpoint.sha256) == 64


def test_known_architectures_have_the_sizes_that_were_published() -> None:
    parameters = {
        name: sum(int(np.prod(shape)) for shape in architecture.shapes().values())
        for name, architecture in ARCHITECTURES.items()
    }
    assert parameters["tirex-35m"] == 35_291_200
    assert parameters["compact"] == 858_784
    assert load_weights(find_checkpoint("embedded")).architecture == ARCHITECTURES["compact"]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_architecture_survives_the_way_through_a_configuration_file(name: str) -> None:
    architecture = ARCHITECTURES[name]
    assert Architecture.of(json.loads(json.dumps(architecture.hyper_parameters()))) == architecture


def test_a_tensor_of_another_shape_than_the_configuration_says_is_named(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    tensors = load_file(directory / WEIGHTS_FILE)
    tensors["blocks.1.ffn.proj_up.weight"] = np.ascontiguousarray(tensors["blocks.1.ffn.proj_up.weight"][:-1])
    save_file(tensors, directory / WEIGHTS_FILE)
    with pytest.raises(ModelUnavailable, match=r"blocks\.1\.ffn\.proj_up\.weight has shape \(383, 128\), expected"):
        load_weights(find_checkpoint(str(directory)))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ('"num_blocks": 4', "tensor blocks.4.norm_slstm.weight is missing"),
        ('"num_blocks": 4.5', "does not fit"),
        ('"num_heads": 4', "heads must divide"),
        ('"output_patch_size": 16', "patches differ"),
        ("0.9\n", "other quantiles"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, found: str, said: str) -> None:
    directory = shipped_copy(tmp_path / "model")
    swapped = {
        '"num_blocks": 4': '"num_blocks": 5',
        '"num_blocks": 4.5': None,
        '"num_heads": 4': '"num_heads": 5',
        '"output_patch_size": 16': '"output_patch_size": 8',
        "0.9\n": "0.95\n",
    }[found]
    text = (directory / CONFIG_FILE).read_text()
    old, new = (found, swapped) if swapped is not None else ('"num_blocks": 4', '"num_blocks": 3')
    assert old in text
    (directory / CONFIG_FILE).write_text(text.replace(old, new))
    with pytest.raises(ModelUnavailable, match=said):
        load_weights(find_checkpoint(str(directory)))


def test_a_truncated_weights_file_is_called_damaged(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    weights = directory / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors is damaged"):
        load_weights(find_checkpoint(str(directory)))


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    tensors = load_file(directory / WEIGHTS_FILE)
    tensors["out_norm.weight"][3] = np.nan
    save_file(tensors, directory / WEIGHTS_FILE)
    with pytest.raises(ModelUnavailable, match=r"out_norm\.weight holds NaN"):
        load_weights(find_checkpoint(str(directory)))


@pytest.mark.torch
def test_a_pickle_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    target, bomb = tmp_path / "ran", tmp_path / "model.ckpt"
    bomb.write_bytes(pickle.dumps({"state_dict": Bomb(target), "hyper_parameters": {}}, protocol=2))
    with pytest.raises(ModelUnavailable, match="might run code"):
        load_weights(find_checkpoint(str(bomb)))
    assert not target.exists()


@pytest.mark.torch
def test_a_checkpoint_as_nxai_publishes_it_is_read(tmp_path: Path) -> None:
    import torch

    shipped = load_weights(find_checkpoint("embedded"))
    state = {
        name.replace("blocks.", "block_stack.blocks.", 1): torch.from_numpy(tensor)
        for name, tensor in shipped.tensors.items()
    }
    published = tmp_path / "model.ckpt"
    torch.save({"hyper_parameters": shipped.hyper_parameters, "state_dict": state}, published)
    read = load_weights(find_checkpoint(str(published)))
    assert read.architecture == shipped.architecture
    for name, tensor in shipped.tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
