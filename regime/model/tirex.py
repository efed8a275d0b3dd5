"""TiRex in this process: load a checkpoint, forecast a batch. Imported by the model process only.

The architecture is tirex-ts's own; only its recurrent cell is replaced (see ``slstm.py``).
"""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tirex.models.tirex import TiRexZero

from regime.errors import ModelUnavailable
from regime.forecast import QUANTILE_LEVELS
from regime.model.checkpoint import Checkpoint
from regime.model.slstm import use_full_precision_cells

ENGINE = "torch-fp32"

CHUNK_ROWS = 64
"""Rows that go through the network together; larger batches are cut up."""


class TirexModel:
    """A loaded checkpoint."""

    def __init__(self, network: TiRexZero, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._network = network
        # Two small forwards side by side use two cores better than one forward split inside each operation. Their
        # threads alone flush denormals: that is a setting of the processor, and nobody else's business.
        self._pool = ThreadPoolExecutor(min(2, os.cpu_count() or 1), initializer=_flush_denormals)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> TirexModel:
        """Build the network and fill it.

        Raises
        ------
        ModelUnavailable
            If the file is damaged, or its tensors do not fit its configuration.
        """
        try:
            hyper_parameters, tensors = _read(checkpoint)
            network = TiRexZero(backend="torch", **hyper_parameters)
            use_full_precision_cells(network)
            network.load_state_dict(tensors)
        except pickle.UnpicklingError as error:
            raise ModelUnavailable(
                f"model {checkpoint.name!r}: {checkpoint.weights.name} is no plain checkpoint of weights; what else it "
                "holds might run code, and is not loaded"
            ) from error
        except Exception as error:  # safetensors, pickle, torch and tirex each raise their own
            raise ModelUnavailable(
                f"model {checkpoint.name!r}: {checkpoint.weights.name} is damaged or does not fit its configuration: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
        if tuple(network.config.quantiles) != QUANTILE_LEVELS:
            raise ModelUnavailable(f"model {checkpoint.name!r}: forecasts other quantiles than 0.1 to 0.9")
        network.requires_grad_(requires_grad=False)
        return cls(network.float().eval(), checkpoint)

    def forecast(self, contexts: NDArray[np.float32], horizon_bars: int) -> NDArray[np.float32]:
        """Quantiles of shape (rows, horizon_bars, 9) for contexts of shape (rows, bars), NaN where unknown."""
        chunks = [contexts[start : start + CHUNK_ROWS] for start in range(0, len(contexts), CHUNK_ROWS)]
        return np.concatenate(list(self._pool.map(self._forward, chunks, [horizon_bars] * len(chunks))))

    def _forward(self, contexts: NDArray[np.float32], horizon_bars: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer = self._network._forecast_tensor(torch.from_numpy(np.array(contexts)), horizon_bars)
        return np.ascontiguousarray(answer.transpose(1, 2).numpy())


def _flush_denormals() -> None:
    """Gates saturate, and arithmetic on denormal numbers is many times slower than on zeros. Per thread."""
    torch.set_flush_denormal(True)


def _read(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if checkpoint.hyper_parameters is not None:
        return checkpoint.hyper_parameters, load_file(checkpoint.weights)
    # weights_only keeps a pickle from running code; it could be bypassed before torch 2.6, which setup requires.
    document = torch.load(checkpoint.weights, map_location="cpu", weights_only=True)
    tensors = {name.replace("block_stack.", ""): tensor for name, tensor in document["state_dict"].items()}
    return document["hyper_parameters"], tensors
