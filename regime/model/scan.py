"""The sLSTM scan in torch: any device, the dtype of its inputs (Beck et al., 2024, arXiv 2405.04517, eq. 8 to 17)."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

FORGET_LOGIT_MAX = 15.0
"""tirex-ts clamps here, which keeps subnormal numbers out of the forget gate."""


class State:
    """What the cell remembers: output, cell, normaliser and stabiliser, each of shape (heads, batch, head width)."""

    __slots__ = ("c", "m", "n", "y")

    def __init__(self, y: torch.Tensor, c: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> None:
        self.y, self.c, self.n, self.m = y, c, n, m

    @classmethod
    def unbind(cls, stacked: torch.Tensor) -> State:
        """From a tensor of shape (4, heads, batch, head width)."""
        return cls(*(part.contiguous() for part in stacked.unbind(dim=0)))

    def stacked(self) -> torch.Tensor:
        """As a tensor of shape (4, heads, batch, head width)."""
        return torch.stack([self.y, self.c, self.n, self.m])


def step(gates: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
    """One step of the cell.

    Parameters
    ----------
    gates
        Input part of the gates' pre-activations (input, forget, cell, output), bias included, shape
        (4, heads, batch, head width).
    recurrent
        Shape (4, heads, head width, head width), from unit to unit.
    state
        Of the step before; a normaliser of zero marks the empty state, which has nothing to forget.
    """
    i_raw, f_raw, z_raw, o_raw = (gates + torch.matmul(state.y, recurrent)).unbind(dim=0)
    kept = state.m + logsigmoid(f_raw.clamp(max=FORGET_LOGIT_MAX))
    m = torch.where(state.n == 0, i_raw, torch.maximum(i_raw, kept))
    i_gate = torch.exp(i_raw - m).clamp(max=1.0)
    f_gate = torch.exp(kept - m).clamp(max=1.0)
    c = f_gate * state.c + i_gate * torch.tanh(z_raw)
    n = f_gate * state.n + i_gate
    return State(torch.sigmoid(o_raw) * c / n, c, n, m)
