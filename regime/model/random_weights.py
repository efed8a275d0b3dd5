"""Checkpoints of a known architecture with seeded random weights, to measure speed where the real ones are not at hand.

What they forecast means nothing, but it is sound: the output's biases stand at the quantiles of a normal
distribution, so that forecasts take the way through calibration that a real model's take.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
from safetensors.numpy import save_file

from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from regime.model.weights import Architecture, Tensors

_OUTPUT_GAIN = 0.01
"""Keeps what the network adds to the output's biases small beside the distance between them."""


def random_weights(architecture: Architecture, seed: int) -> Tensors:
    """Weights of the size that training leaves: uniform with variance 1 / inputs, norms about 1."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, shape in architecture.shapes().items():
        if "norm" in name:
            drawn = rng.normal(0.0 if "group_norm" in name else 1.0, 0.1, shape)
        elif len(shape) == 1:
            drawn = rng.normal(0.0, 0.5, shape)
        else:
            inputs = shape[1] if "recurrent" in name else shape[-1]
            drawn = rng.uniform(-1.0, 1.0, shape) * np.sqrt(3.0 / inputs)
        if name.startswith("output_patch_embedding") and "hidden" not in name:
            drawn *= _OUTPUT_GAIN
        tensors[name] = drawn.astype(np.float32)
    normal = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS], dtype=np.float32)
    tensors["output_patch_embedding.output_layer.bias"] += np.repeat(normal, architecture.patch_bars)
    return tensors


def write_random_checkpoint(architecture: Architecture, seed: int, directory: Path) -> Path:
    """A checkpoint directory of random weights; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(random_weights(architecture, seed), directory / WEIGHTS_FILE)
    document = {"architecture": "TiRexZero", "hyper_parameters": architecture.hyper_parameters(), "random_seed": seed}
    (directory / CONFIG_FILE).write_text(json.dumps(document, indent=2))
    return directory
