"""From contexts of bars to the network's tokens, and from its answers back to quantiles; shared by our engines.

A context is cut, from its end, into patches. The network sees each patch as its scaled values and a mask of which
of them there are. Leading patches without any bar are left out: what they do depends on the weights alone, and an
engine starts from the states that they leave (see :class:`Tokens`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.forecast import QUANTILE_LEVELS

_SCALE_FLOOR = 1e-5
"""Added to the level of a series that does not vary, whose deviation is no scale (tirex-ts does the same)."""


@dataclass(frozen=True)
class Tokens:
    """A batch of tokens.

    ``values`` has shape (rows, steps, 2 x patch_bars); of row r the last ``counts[r]`` tokens are its own, and
    before them come as many empty ones as the network's longest context has room for. ``location`` and ``scale``
    have shape (rows,), in units of the context.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int32]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]


Forward = Callable[[Tokens], NDArray[np.float32]]
"""A forward pass: scaled quantiles of the patch that follows, shape (rows, 9, patch_bars)."""


def check_request(contexts: NDArray[np.generic], horizon_bars: int, max_horizon_bars: int) -> None:
    """Refuse what has no forecast. Raises ValueError that says what and where.

    Parameters
    ----------
    contexts
        Shape (rows, bars), floating point, NaN where unknown.
    horizon_bars, max_horizon_bars
        Bars to forecast, and the network's limit.
    """
    if contexts.ndim != 2 or contexts.shape[0] == 0:
        raise ValueError(f"contexts must have shape (rows, bars) with a row at least, not {contexts.shape}")
    if contexts.shape[1] == 0:
        raise ValueError("a context of zero bars has no forecast")
    if not np.issubdtype(contexts.dtype, np.floating):
        raise ValueError(f"contexts must be floating-point numbers, not {contexts.dtype}")
    infinite = np.isinf(contexts)
    if infinite.any():
        row, bar = np.argwhere(infinite)[0]
        raise ValueError(f"context {row} is infinite at bar {bar}")
    if not 1 <= horizon_bars <= max_horizon_bars:
        raise ValueError(f"horizon of {horizon_bars} bars: must lie between 1 and {max_horizon_bars}")


def tokenise(contexts: NDArray[np.floating], patch_bars: int, max_bars: int) -> Tokens:
    """Scale contexts of shape (rows, bars) and cut them into patches; only the last ``max_bars`` count.

    Location and scale are mean and standard deviation of the known values, taken in float64: a constant series
    then has a deviation of exactly zero. Raises ValueError for a context without any value.
    """
    contexts = contexts[:, -max_bars:]
    short = -contexts.shape[1] % patch_bars
    if short:
        contexts = np.pad(contexts, ((0, 0), (short, 0)), constant_values=np.nan)
    rows, bars = contexts.shape
    known = ~np.isnan(contexts)
    have = known.sum(axis=1)
    if not have.all():
        raise ValueError(f"context {int(np.argmin(have))} holds no value at all, only NaN")
    values = np.where(known, contexts, 0.0).astype(np.float64)
    location = values.sum(axis=1) / have
    deviation = np.where(known, values - location[:, None], 0.0)
    scale = np.sqrt((deviation * deviation).sum(axis=1) / have)
    scale = np.where(scale == 0.0, np.abs(location) + _SCALE_FLOOR, scale)
    shape = (rows, bars // patch_bars, patch_bars)
    scaled = (deviation / scale[:, None]).astype(np.float32).reshape(shape)
    mask = known.reshape(shape)
    counts = (shape[1] - mask.any(axis=2).argmax(axis=1)).astype(np.int32)
    return Tokens(np.concatenate([scaled, mask], axis=2, dtype=np.float32), counts, location, scale)


def forecast_patches(
    forward: Forward, contexts: NDArray[np.floating], horizon_bars: int, patch_bars: int, max_bars: int
) -> NDArray[np.float32]:
    """Quantiles of shape (rows, horizon_bars, 9) for contexts of shape (rows, bars).

    Beyond one patch the context grows by a patch of unknown bars and the network is asked again, as tirex-ts does;
    the context's oldest bars fall out where it is full.
    """
    answers: list[NDArray[np.float64]] = []
    for _ in range(-(-horizon_bars // patch_bars)):
        if answers:
            contexts = np.pad(contexts, ((0, 0), (0, patch_bars)), constant_values=np.nan)
        tokens = tokenise(contexts, patch_bars, max_bars)
        scaled = forward(tokens).reshape(len(contexts), len(QUANTILE_LEVELS), patch_bars)
        answers.append(scaled * tokens.scale[:, None, None] + tokens.location[:, None, None])
    quantiles = np.concatenate(answers, axis=2)[:, :, :horizon_bars]
    return np.ascontiguousarray(quantiles.transpose(0, 2, 1), dtype=np.float32)
