"""Checkpoints: found and hashed by name, read without running code, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from regime.errors import ModelUnavailable
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, find_checkpoint
from regime.model.weights import ARCHITECTURES, Architecture, load_weights
from regime.serving.store import StoreKey
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


def test_weights_that_are_asked_about_another_context_are_another_network(tmp_path: Path) -> None:
    shipped, shorter = find_checkpoint("embedded"), shipped_copy(tmp_path / "shorter")
    config = shorter / CONFIG_FILE
    document = json.loads(config.read_text())
    document["hyper_parameters"]["train_ctx_len"] //= 2
    config.write_text(json.dumps(document))
    other = find_checkpoint(str(shorter))
    assert other.sha256 == shipped.sha256 and other.network != shipped.network
    assert find_checkpoint(str(shipped_copy(tmp_path / "same"))).network == shipped.network
    keys = [StoreKey(one.sha256, "e", "float32", "cpu", 512, 16, one.network) for one in (shipped, other)]
    assert keys[0].digest != keys[1].digest


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


MODEL, BLOCK = "model_config", "model_config.block_kwargs"
MISSING = object()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train_ctx_len", 10**12, "is 1000000000000; it must be a multiple of 16 (input_patch_size), from 16 to 16384"),
        ("train_ctx_len", -512, "is -512; it must be a multiple of 16"),
        ("train_ctx_len", 511, "is 511; it must be a multiple of 16"),
        ("train_ctx_len", "512", "is '512'; it must be a multiple of 16"),
        ("train_ctx_len", 512.0, "is 512.0; it must be a multiple of 16"),
        ("train_ctx_len", True, "is True; it must be a multiple of 16"),
        ("train_ctx_len", MISSING, "is missing; it must be a multiple of 16"),
        (f"{MODEL}.input_patch_size", 0, "is 0; it must be a whole number from 1 to 1024"),
        (f"{MODEL}.output_patch_size", 8, "is 8; it must be 16, as input_patch_size is"),
        (f"{MODEL}.quantiles", [0.1, 0.5, 0.9], "is [0.1, 0.5, 0.9]; it must be the nine from 0.1 to 0.9"),
        (f"{MODEL}.quantiles", 9, "is 9; it must be the nine from 0.1 to 0.9"),
        (f"{MODEL}.quantiles", MISSING, "is missing; it must be the nine from 0.1 to 0.9"),
        (f"{MODEL}.input_ff_dim", 10**15, "is 1000000000000000; it must be a whole number from 1 to 65536"),
        (f"{BLOCK}.embedding_dim", None, "is None; it must be a whole number from 1 to 65536"),
        (f"{BLOCK}.num_heads", 5, "is 5; it must be a divisor of embedding_dim (128)"),
        (f"{BLOCK}.num_heads", 0, "is 0; it must be a whole number from 1 to 128"),
        (f"{BLOCK}.num_blocks", -4, "is -4; it must be a whole number from 1 to 1024"),
        (f"{BLOCK}.num_blocks", 10**9, "is 1000000000; it must be a whole number from 1 to 1024"),
        (f"{BLOCK}.num_blocks", 4.5, "is 4.5; it must be a whole number from 1 to 1024"),
        (f"{BLOCK}.ffn_proj_factor", float("nan"), "is nan; it must be a number from"),
        (f"{BLOCK}.ffn_proj_factor", float("inf"), "is inf; it must be a number from"),
        (BLOCK, [1], "is [1]; it must be a table of names and values"),
        (MODEL, MISSING, "is missing; it must be a table of names and values"),
        ("train_ctx_len", "9" * 500, "9…; it must be a multiple of 16"),
    ],
    ids=lambda value: "missing" if value is MISSING else str(value)[:30],
)
def test_a_hyper_parameter_that_makes_no_network_is_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    config = shipped_copy(tmp_path / "model") / CONFIG_FILE
    document = json.loads(config.read_text())
    *tables, name = ["hyper_parameters", *key.split(".")]
    table = document
    for each in tables:
        table = table[each]
    table[name] = value
    if value is MISSING:
        del table[name]
    config.write_text(json.dumps(document))
    with pytest.raises(ModelUnavailable) as raised:
        find_checkpoint(str(config.parent))
    begin, end = str(raised.value).split(f"{config}: hyper_parameters.{key} ")
    assert begin.endswith(": ")
    assert said in end
    assert WEIGHTS_FILE not in str(raised.value)


def test_sizes_that_the_tensors_have_not_are_told_of_the_tensors(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    text = (directory / CONFIG_FILE).read_text()
    for blocks, said in ((5, "tensor blocks.4.norm_slstm.weight is missing"), (3, "has no place in it")):
        (directory / CONFIG_FILE).write_text(text.replace('"num_blocks": 4', f'"num_blocks": {blocks}'))
        with pytest.raises(ModelUnavailable, match=rf"model\.safetensors does not fit config\.json: .*{said}"):
            load_weights(find_checkpoint(str(directory)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must hold architecture and hyper_parameters"),
        (b'{"architecture": "TiRexZero"}', "must hold architecture and hyper_parameters"),
    ],
    ids=["empty", "binary", "nested", "a list", "half"],
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    directory = shipped_copy(tmp_path / "model")
    (directory / CONFIG_FILE).write_bytes(content)
    with pytest.raises(ModelUnavailable, match=rf"config\.json is no checkpoint description: .*{said}"):
        find_checkpoint(str(directory))


def test_another_architecture_is_named(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    text = (directory / CONFIG_FILE).read_text()
    (directory / CONFIG_FILE).write_text(text.replace("TiRexZero", "Chronos"))
    with pytest.raises(ModelUnavailable, match=r"config\.json: architecture 'Chronos' is unknown; TiRexZero is"):
        find_checkpoint(str(directory))


def test_a_truncated_weights_file_is_called_damaged(tmp_path: Path) -> None:
    directory = shipped_copy(tmp_path / "model")
    weights = directory / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors is damaged"):
        load_weights(find_checkpoint(str(directory)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full(128, np.nan), "holds NaN or infinity"),
        (np.full(128, 1e300), "holds NaN or infinity"),
        (np.ones(128, dtype=np.int64), "holds int64, not floating-point numbers"),
    ],
    ids=["NaN", "more than float32 holds", "integers"],
)
def test_weights_that_are_not_numbers_are_refused(
    tmp_path: Path, values: np.ndarray[tuple[int], np.dtype[np.generic]], said: str
) -> None:
    directory = shipped_copy(tmp_path / "model")
    tensors = load_file(directory / WEIGHTS_FILE)
    save_file(tensors | {"out_norm.weight": values}, directory / WEIGHTS_FILE)
    with pytest.raises(ModelUnavailable, match=rf"model\.safetensors is damaged: out_norm\.weight {said}"):
        load_weights(find_checkpoint(str(directory)))


@pytest.mark.parametrize(
    "name", ["x" * 300, "~nobody-of-this-name/model", "nowhere/at/all"], ids=["too long", "unknown home", "no path"]
)
def test_a_name_that_leads_nowhere_is_told(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=name[:30]):
        find_checkpoint(name)


@pytest.mark.parametrize("locked", [CONFIG_FILE, WEIGHTS_FILE, "."])
def test_a_model_without_permission_is_told_with_what_may_not_be_read(locked: str) -> None:
    # Not in pytest's own directories: whoever is not root may not even pass through them.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        directory = shipped_copy(Path(place) / "model")
        (directory / locked).chmod(0o000)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65_534)
        try:
            with pytest.raises(ModelUnavailable, match=r"Permission denied") as raised:
                find_checkpoint(str(directory))
        finally:
            os.seteuid(user)
            (directory / locked).chmod(0o755)
        assert str(directory / locked) in str(raised.value)


@pytest.mark.torch
def test_a_pickle_with_code_in_it_does_not_run(tmp_path: Path) -> None:
    target, bomb = tmp_path / "ran", tmp_path / "model.ckpt"
    bomb.write_bytes(pickle.dumps({"state_dict": Bomb(target), "hyper_parameters": {}}, protocol=2))
    with pytest.raises(ModelUnavailable, match="might run code"):
        load_weights(find_checkpoint(str(bomb)))
    assert not target.exists()


def published_copy(into: Path) -> Path:
    """The shipped checkpoint as NX-AI would publish it."""
    import torch

    shipped = load_weights(find_checkpoint("embedded"))
    state = {
        name.replace("blocks.", "block_stack.blocks.", 1): torch.from_numpy(tensor)
        for name, tensor in shipped.tensors.items()
    }
    torch.save({"hyper_parameters": shipped.hyper_parameters, "state_dict": state}, into)
    return into


@pytest.mark.torch
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("hyper_parameters", "train_ctx_len"),
            10**12,
            r"hyper_parameters\.train_ctx_len is 1000000000000; it must be",
        ),
        (("hyper_parameters",), [1], "must hold state_dict and hyper_parameters"),
        (("state_dict",), 3, "must hold state_dict and hyper_parameters"),
        (("state_dict", "out_norm.weight"), "many", r"out_norm\.weight in its state_dict is no tensor"),
        (("state_dict", "spare"), 1.0, "spare in its state_dict is no tensor"),
    ],
    ids=["size", "list", "number", "text", "extra"],
)
def test_a_pickle_that_is_no_checkpoint_is_told_with_what_it_should_hold(
    tmp_path: Path, path: tuple[str, ...], value: object, said: str
) -> None:
    import torch

    published = published_copy(tmp_path / "model.ckpt")
    document = torch.load(published, weights_only=True)
    table = document
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value
    torch.save(document, published)
    with pytest.raises(ModelUnavailable, match=rf"{published}.* {said}"):
        load_weights(find_checkpoint(str(published)))


@pytest.mark.torch
@pytest.mark.parametrize("kept_bytes", [0, 100, 200_000])
def test_a_truncated_pickle_is_called_damaged(tmp_path: Path, kept_bytes: int) -> None:
    published = published_copy(tmp_path / "model.ckpt")
    published.write_bytes(published.read_bytes()[:kept_bytes])
    with pytest.raises(ModelUnavailable, match=r"model\.ckpt is (damaged, or no|no plain) checkpoint"):
        load_weights(find_checkpoint(str(published)))


@pytest.mark.torch
def test_numbers_that_numpy_has_not_are_told(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file as save_tensors

    weights = shipped_copy(tmp_path / "model") / WEIGHTS_FILE
    save_tensors({name: each.to(torch.bfloat16) for name, each in load_tensors(weights).items()}, weights)
    with pytest.raises(ModelUnavailable, match=r"bfloat16.*; tensors must be float16, float32 or float64"):
        load_weights(find_checkpoint(str(weights.parent)))


@pytest.mark.torch
def test_a_checkpoint_as_nxai_publishes_it_is_read(tmp_path: Path) -> None:
    shipped = load_weights(find_checkpoint("embedded"))
    read = load_weights(find_checkpoint(str(published_copy(tmp_path / "model.ckpt"))))
    assert read.architecture == shipped.architecture
    for name, tensor in shipped.tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
