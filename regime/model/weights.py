"""A checkpoint's weights as plain arrays, checked against the architecture that its configuration names.

No torch here, unless the file is a pickle: the model process of a safetensors checkpoint needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from regime.errors import ModelUnavailable
from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import CONFIG_FILE, Checkpoint
from regime.model.hyper_parameters import read_sizes

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Architecture:
    """A TiRex network's sizes.

    ``context_bars`` is the longest context, ``hidden`` the width inside the residual blocks at the input and the
    output, ``up`` that inside a block's feed-forward part.
    """

    width: int
    heads: int
    blocks: int
    patch_bars: int
    hidden: int
    up: int
    context_bars: int

    @property
    def head_width(self) -> int:
        """Units of a head."""
        return self.width // self.heads

    @property
    def outputs(self) -> int:
        """Nine quantiles of each bar in a patch."""
        return len(QUANTILE_LEVELS) * self.patch_bars

    @property
    def tokens(self) -> int:
        """Patches in the longest context."""
        return self.context_bars // self.patch_bars

    @classmethod
    def of(cls, hyper_parameters: dict[str, Any]) -> Architecture:
        """Read it from a checkpoint's hyper-parameters. Raises ValueError naming what SAGE does not serve."""
        return cls(**read_sizes(hyper_parameters))

    def hyper_parameters(self) -> dict[str, Any]:
        """The same as tirex-ts writes it, for a configuration file."""
        return {
            "model_config": {
                "input_patch_size": self.patch_bars,
                "output_patch_size": self.patch_bars,
                "quantiles": list(QUANTILE_LEVELS),
                "block_kwargs": {"embedding_dim": self.width, "num_heads": self.heads, "num_blocks": self.blocks},
                "input_ff_dim": self.hidden,
            },
            "train_ctx_len": self.context_bars,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, under tirex-ts's names and in the order that the native engine takes them in."""
        width, heads, head, up = self.width, self.heads, self.head_width, self.up
        found: dict[str, tuple[int, ...]] = {}
        for side, inputs, outputs in (("input", 2 * self.patch_bars, width), ("output", width, self.outputs)):
            for layer, shape in (
                ("hidden_layer", (self.hidden, inputs)),
                ("output_layer", (outputs, self.hidden)),
                ("residual_layer", (outputs, inputs)),
            ):
                found[f"{side}_patch_embedding.{layer}.weight"] = shape
                found[f"{side}_patch_embedding.{layer}.bias"] = shape[:1]
        found["out_norm.weight"] = (width,)
        for block in range(self.blocks):
            prefix = f"blocks.{block}"
            cell = f"{prefix}.slstm_layer.slstm_cell"
            found[f"{prefix}.norm_slstm.weight"] = (width,)
            # The cell takes its gates by place, and the layer hands them over in this order.
            for gate in ("fgate", "igate", "zgate", "ogate"):
                found[f"{prefix}.slstm_layer.{gate}.weight"] = (heads, head, head)
            found[f"{cell}._recurrent_kernel_"] = (heads, head, 4 * head)
            found[f"{cell}._bias_"] = (4 * width,)
            found[f"{prefix}.slstm_layer.group_norm.weight"] = (width,)
            found[f"{prefix}.norm_ffn.weight"] = (width,)
            found[f"{prefix}.ffn.proj_up_gate.weight"] = (up, width)
            found[f"{prefix}.ffn.proj_up.weight"] = (up, width)
            found[f"{prefix}.ffn.proj_down.weight"] = (width, up)
        return found


ARCHITECTURES = {
    "tirex-35m": Architecture(width=512, heads=4, blocks=12, patch_bars=32, hidden=2048, up=1408, context_bars=2048),
    "compact": Architecture(width=128, heads=4, blocks=4, patch_bars=16, hidden=256, up=384, context_bars=512),
}
"""Known architectures: NX-AI's published TiRex, and the one that ships with SAGE."""


@dataclass(frozen=True)
class Weights:
    """A network: its sizes, its tensors (float32, by tirex-ts's names) and the hyper-parameters they came with."""

    architecture: Architecture
    tensors: Tensors
    hyper_parameters: dict[str, Any]


def load_weights(checkpoint: Checkpoint) -> Weights:
    """Read a checkpoint.

    Raises
    ------
    ModelUnavailable
        If the file is damaged, or its tensors do not fit its configuration; the first that does not is named.
    """
    where = f"model {checkpoint.name!r}: {checkpoint.weights}"
    if checkpoint.hyper_parameters is None:
        # Pickles are torch's own format, and only they need it here.
        from regime.model.pickled import read_pickled

        hyper_parameters, tensors = read_pickled(checkpoint)
        described_in, described_by = str(checkpoint.weights), "its own hyper-parameters"
    else:
        hyper_parameters, tensors = checkpoint.hyper_parameters, _read(checkpoint.weights, where)
        described_in, described_by = str(checkpoint.weights.with_name(CONFIG_FILE)), CONFIG_FILE
    try:
        architecture = Architecture.of(hyper_parameters)
    except ValueError as error:
        raise ModelUnavailable(f"model {checkpoint.name!r}: {described_in}: {error}") from error
    return Weights(architecture, _checked(architecture, tensors, where, described_by), hyper_parameters)


def _read(path: Path, where: str) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(path))
    except OSError as error:
        raise ModelUnavailable(f"{where} cannot be read ({error.strerror or error})") from error
    except TypeError as error:
        raise ModelUnavailable(f"{where}: {error}; tensors must be float16, float32 or float64") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{where} is damaged ({error}); fetch it again") from error


def _checked(architecture: Architecture, tensors: dict[str, NDArray[Any]], where: str, described_by: str) -> Tensors:
    shapes = architecture.shapes()
    misfit, checked = f"{where} does not fit {described_by}", {}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelUnavailable(f"{misfit}: tensor {name} is missing")
        found = tensors[name]
        if found.shape != shape:
            raise ModelUnavailable(f"{misfit}: {name} has shape {found.shape}, expected {shape}")
        if not np.issubdtype(found.dtype, np.floating):
            raise ModelUnavailable(f"{where} is damaged: {name} holds {found.dtype}, not floating-point numbers")
        with np.errstate(over="ignore"):
            checked[name] = np.ascontiguousarray(found, dtype=np.float32)
        if not np.isfinite(checked[name]).all():
            raise ModelUnavailable(f"{where} is damaged: {name} holds NaN or infinity")
    stray = sorted(set(tensors) - set(shapes))
    if stray:
        raise ModelUnavailable(f"{misfit}: tensor {stray[0]} has no place in it")
    return checked
