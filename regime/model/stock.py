"""tirex-ts as it comes, to measure ours against; it pads every context and rounds its cell to bfloat16."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tirex.models.tirex import TiRexZero

from regime.errors import ModelUnavailable
from regime.model.tokens import check_request
from regime.model.weights import Weights


class StockEngine:
    """The package's own model and forecast."""

    def __init__(self, weights: Weights) -> None:
        self.architecture = weights.architecture
        try:
            network = TiRexZero(backend="torch", **weights.hyper_parameters)
            network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()})
        except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
            # Ours read only what they need of the hyper-parameters; tirex-ts takes all of them for arguments.
            raise ModelUnavailable(f"engine 'stock': tirex-ts refuses this model ({error}); --engine torch") from error
        network.requires_grad_(requires_grad=False)
        self._network = network.eval()

    def forecast(self, contexts: NDArray[np.floating], horizon_bars: int) -> NDArray[np.float32]:
        """Quantiles of shape (rows, horizon_bars, 9) for contexts of shape (rows, bars), NaN where unknown."""
        check_request(contexts, horizon_bars, self.architecture.context_bars)
        tensor = torch.from_numpy(np.array(contexts, dtype=np.float32))
        quantiles, _ = self._network._forecast_quantiles(tensor, horizon_bars)
        return np.asarray(quantiles.numpy(), dtype=np.float32)
