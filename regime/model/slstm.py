"""A drop-in for tirex-ts's sLSTM cell, computed in float32; training uses it.

On a CPU the stock cell casts its inputs, its state and its recurrent weights to bfloat16 and walks the
sequence in Python; the casts cost time and about two decimal digits. This cell keeps the same parameters
under the same names and the same equations, so a checkpoint fits either of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from tirex.models.slstm.cell import sLSTMCell

from regime.model.scan import State, step

if TYPE_CHECKING:
    from tirex.models.tirex import TiRexZero


class FullPrecisionCell(sLSTMCell):  # type: ignore[misc]
    """A drop-in replacement of the stock sLSTM cell that stays in the dtype of its parameters."""

    def forward(self, input: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the cell over a sequence, the stock cell's way.

        Parameters
        ----------
        input
            Gate pre-activations, shape (batch, tokens, 4 x width).
        state
            Shape (4, batch, width), or None for the zero state.

        Returns
        -------
        Output of shape (batch, heads, tokens, head width) and the last state.
        """
        gates_in = self._get_input(input)
        first = self._get_state(gates_in, state)
        heads, head_width, gates = self.config.num_heads, self.config.head_dim, self.config.num_gates
        batch = gates_in.shape[1]
        # Everything below is (gate, head, batch, head width), contiguous, so that each operation runs vectorised.
        bias = self._bias_.reshape(heads, gates, head_width).permute(1, 0, 2).unsqueeze(2)
        pre = (gates_in.permute(0, 2, 3, 1, 4) + bias).contiguous().unbind(dim=0)
        recurrent = self._recurrent_kernel_.reshape(heads, head_width, gates, head_width)
        recurrent = recurrent.permute(2, 0, 1, 3).contiguous()
        now = State.unbind(first.reshape(4, batch, heads, head_width).transpose(1, 2))
        outputs = []
        for gates_now in pre:
            now = step(gates_now, recurrent, now)
            outputs.append(now.y)
        last = now.stacked().transpose(1, 2).reshape(4, batch, -1)
        return torch.stack(outputs).permute(2, 1, 0, 3), last


def use_full_precision_cells(model: TiRexZero) -> None:
    """Replace every stock cell of ``model`` by a :class:`FullPrecisionCell`, before weights are loaded."""
    for block in model.blocks:
        layer = cast("torch.nn.Module", block.slstm_layer)
        layer.slstm_cell = FullPrecisionCell(layer.config, "torch")
