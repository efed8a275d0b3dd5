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
    where = f"model {checkpoint.name!r}: {checkpoint.weights}"
    try:
        # weights_only keeps a pickle from running code; it could be bypassed before torch 2.6, which setup requires.
        document = torch.load(checkpoint.weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelUnavailable(
            f"{where} is no plain checkpoint of weights; what else it holds might run code, and is not loaded"
        ) from error
    except Exception as error:  # torch and zipfile each raise their own
        said = str(error).splitlines()[0].split(". ")[0] if str(error) else "it ends too early"
        raise ModelUnavailable(
            f"{where} is damaged, or no checkpoint ({type(error).__name__}: {said}); fetch it again"
        ) from error
    held = document if isinstance(document, dict) else {}
    state, hyper_parameters = held.get("state_dict"), held.get("hyper_parameters")
    if not isinstance(state, dict) or not isinstance(hyper_parameters, dict):
        raise ModelUnavailable(f"{where} is no checkpoint: it must hold state_dict and hyper_parameters")
    tensors = {}
    for name, tensor in state.items():
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.layout is torch.strided):
            raise ModelUnavailable(f"{where} is no checkpoint: {name} in its state_dict is no tensor of plain numbers")
        if tensor.device.type != "cpu":
            raise ModelUnavailable(f"{where} is no checkpoint: {name} in its state_dict has a shape and no numbers")
        tensors[str(name).replace("block_stack.", "")] = tensor.float().numpy()
    return hyper_parameters, tensors
