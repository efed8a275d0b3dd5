"""Reads a ``.ckpt`` file as NX-AI publishes it: a pickle, from which nothing but weights is taken."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint


def read_pickled(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Hyper-parameters and tensors. Raises ModelUnavailable for a damaged file, or one that holds more than weights."""
    where = f"model {checkpoint.name!r}: {checkpoint.weights.name}"
    try:
        # weights_only keeps a pickle from running code; it could be bypassed before torch 2.6, which setup requires.
        document = torch.load(checkpoint.weights, map_location="cpu", weights_only=True)
        state, hyper_parameters = document["state_dict"], dict(document["hyper_parameters"])
        return hyper_parameters, {
            name.replace("block_stack.", ""): tensor.float().numpy() for name, tensor in state.items()
        }
    except pickle.UnpicklingError as error:
        raise ModelUnavailable(
            f"{where} is no plain checkpoint of weights; what else it holds might run code, and is not loaded"
        ) from error
    except Exception as error:  # torch, zipfile and whatever the document turns out to be each raise their own
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(f"{where} is damaged, or no checkpoint: {said}") from error
