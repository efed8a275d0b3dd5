"""TiRex in float64, from its equations, with nothing left out: the padding is run, every token, every block.

Slow and plain on purpose. Engines are held against it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regime.model.weights import Weights

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def rms_norm(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * weight


def oracle_forecast(weights: Weights, contexts: NDArray[np.floating], horizon_bars: int) -> Array:
    """Quantiles, shape (rows, horizon_bars, 9), of contexts of shape (rows, bars)."""
    size = weights.architecture
    tensors = {name: tensor.astype(np.float64) for name, tensor in weights.tensors.items()}
    contexts = contexts.astype(np.float64)
    patches = []
    while len(patches) * size.patch_bars < horizon_bars:
        padded = np.full((len(contexts), size.context_bars), np.nan)
        used = contexts[:, -size.context_bars :]
        padded[:, size.context_bars - used.shape[1] :] = used
        patches.append(next_patch(tensors, weights, padded))
        contexts = np.hstack([contexts, np.full((len(contexts), size.patch_bars), np.nan)])
    return np.concatenate(patches, axis=2)[:, :, :horizon_bars].transpose(0, 2, 1)


def next_patch(tensors: dict[str, Array], weights: Weights, contexts: Array) -> Array:
    size = weights.architecture
    rows = len(contexts)
    location = np.nanmean(contexts, axis=1, keepdims=True)
    scale = np.sqrt(np.nanmean((contexts - location) ** 2, axis=1, keepdims=True))
    scale = np.where(scale == 0.0, np.abs(location) + 1e-5, scale)
    values = ((contexts - location) / scale).reshape(rows, size.tokens, size.patch_bars)
    known = ~np.isnan(values)
    x = embed(tensors, "input", np.concatenate([np.where(known, values, 0.0), known], axis=2))
    for block in range(size.blocks):
        name = f"blocks.{block}"
        x = x + slstm(tensors, name, rms_norm(x, tensors[f"{name}.norm_slstm.weight"]), size.heads)
        normed = rms_norm(x, tensors[f"{name}.norm_ffn.weight"])
        gate = normed @ tensors[f"{name}.ffn.proj_up_gate.weight"].T
        up = normed @ tensors[f"{name}.ffn.proj_up.weight"].T
        x = x + (gate * sigmoid(gate) * up) @ tensors[f"{name}.ffn.proj_down.weight"].T
    out = embed(tensors, "output", rms_norm(x[:, -1], tensors["out_norm.weight"]))
    return out.reshape(rows, 9, size.patch_bars) * scale[:, :, None] + location[:, :, None]


def embed(tensors: dict[str, Array], side: str, x: Array) -> Array:
    def layer(name: str, values: Array) -> Array:
        full = f"{side}_patch_embedding.{name}_layer"
        return values @ tensors[f"{full}.weight"].T + tensors[f"{full}.bias"]

    return layer("output", np.maximum(layer("hidden", x), 0.0)) + layer("residual", x)


def slstm(tensors: dict[str, Array], block: str, x: Array, heads: int) -> Array:
    """Beck et al., 2024, arXiv 2405.04517, equations 8 to 17; then a norm over each head."""
    rows, steps, width = x.shape
    head = width // heads
    layer, split = f"{block}.slstm_layer", x.reshape(rows, steps, heads, head)
    inputs = np.stack(
        [np.einsum("bthi,hoi->btho", split, tensors[f"{layer}.{gate}gate.weight"]) for gate in "fizo"], axis=2
    )
    bias = tensors[f"{layer}.slstm_cell._bias_"].reshape(heads, 4, head).transpose(1, 0, 2)
    recurrent = tensors[f"{layer}.slstm_cell._recurrent_kernel_"].reshape(heads, head, 4, head)
    y = c = n = m = np.zeros((rows, heads, head))
    outputs = []
    for step in range(steps):
        i, f, z, o = (inputs[:, step] + np.einsum("bhi,higo->bgho", y, recurrent) + bias).transpose(1, 0, 2, 3)
        kept = m - np.logaddexp(0.0, -np.minimum(f, 15.0))
        m_new = i if step == 0 else np.maximum(i, kept)
        i_gate, f_gate = np.minimum(np.exp(i - m_new), 1.0), np.minimum(np.exp(kept - m_new), 1.0)
        c, n, m = f_gate * c + i_gate * np.tanh(z), f_gate * n + i_gate, m_new
        y = sigmoid(o) * c / n
        outputs.append(y)
    stacked = np.stack(outputs, axis=1)
    centred = stacked - stacked.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return normed.reshape(rows, steps, width) * (1.0 + tensors[f"{layer}.group_norm.weight"])
