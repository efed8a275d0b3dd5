"""The engine in torch: on a GPU, and on any CPU without a compiler. Exact, and slower than the native one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import group_norm, linear, relu, silu

from regime.errors import ModelUnavailable
from regime.model.scan import State, step
from regime.model.tokens import Tokens, check_request, forecast_patches
from regime.model.weights import Weights

CHUNK_ROWS = 64
"""Rows that go through the network together on a CPU; larger batches are cut up."""

CUDA_MEMORY_FRACTION = 0.75
CUDA_CLEAN_UP_FROM = 0.85
"""Of that fraction: from there on torch gives back what it only keeps in reserve."""

_RMS_EPSILON = 1e-6
_PROBES = 4


@dataclass(frozen=True)
class _Cell:
    """A block's recurrent part, laid out for the scan: gates first, then heads."""

    gates: torch.Tensor
    recurrent: torch.Tensor
    bias: torch.Tensor
    group_weight: torch.Tensor


class TorchEngine:
    """TiRex's forward pass in torch.

    A row's answer depends, in its last digits, on the shape of the batch it came in, but on nothing in the other rows.
    ``dtype`` is ``float32``, or ``bfloat16`` for matrix products in autocast; ``error_sd`` then says how far that is
    from float32, in standard deviations of the context, on probes of this network (0 for float32).
    """

    def __init__(self, weights: Weights, device: str = "cpu", dtype: str = "float32") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelUnavailable("device 'cuda': torch finds no usable GPU here; use --device cpu")
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(CUDA_MEMORY_FRACTION)
        self.architecture = weights.architecture
        self.device, self.dtype = device, dtype
        self._tensors = {name: torch.from_numpy(tensor).to(device) for name, tensor in weights.tensors.items()}
        self._cells = [self._cell(block) for block in range(self.architecture.blocks)]
        # Two small forwards side by side use two cores better than one forward split inside each operation. Their
        # threads alone flush denormals: that is a setting of the processor, and nobody else's business.
        workers = 1 if device == "cuda" else min(2, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(workers, initializer=_flush_denormals)
        self._prefix = self._pool.submit(self._empty_states).result()
        self.error_sd = self._error() if dtype == "bfloat16" else 0.0

    def forecast(self, contexts: NDArray[np.floating], horizon_bars: int) -> NDArray[np.float32]:
        """Quantiles of shape (rows, horizon_bars, 9) for contexts of shape (rows, bars), NaN where unknown.

        Raises
        ------
        ValueError
            If a context or the horizon has no forecast.
        MemoryError
            If the device, or the process, has not enough memory for it.
        """
        size = self.architecture
        check_request(contexts, horizon_bars, size.context_bars)

        def one(chunk: NDArray[np.floating]) -> NDArray[np.float32]:
            return forecast_patches(self._forward, chunk, horizon_bars, size.patch_bars, size.context_bars)

        rows = len(contexts) if self.device == "cuda" else CHUNK_ROWS
        chunks = [contexts[start : start + rows] for start in range(0, len(contexts), rows)]
        try:
            return np.concatenate(list(self._pool.map(one, chunks)))
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise MemoryError(str(error)) from error
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        if self.device == "cuda":
            _, total = torch.cuda.mem_get_info()
            if torch.cuda.memory_reserved() > CUDA_CLEAN_UP_FROM * CUDA_MEMORY_FRACTION * total:
                torch.cuda.empty_cache()

    def _error(self) -> float:
        """Largest difference from float32 that autocast makes, in standard deviations of the context."""
        size = self.architecture
        probes = np.random.default_rng(0).standard_normal((_PROBES, size.context_bars)).astype(np.float32)
        rounded = self.forecast(probes, size.patch_bars)
        cast_prefix, cast_dtype = self._prefix, self.dtype
        self.dtype = "float32"
        self._prefix = self._pool.submit(self._empty_states).result()
        exact = self.forecast(probes, size.patch_bars)
        self._prefix, self.dtype = cast_prefix, cast_dtype
        return float(np.max(np.abs(rounded - exact) / probes.std(axis=1)[:, None, None]))

    def _forward(self, tokens: Tokens) -> NDArray[np.float32]:
        with self._inference():
            values = torch.from_numpy(tokens.values).to(self.device)
            steps = values.shape[1]
            # Where a row's own tokens begin, its state is the one that so many empty tokens leave.
            begins = [np.flatnonzero(tokens.counts == steps - at) for at in range(steps)]
            empty = [torch.from_numpy(self.architecture.tokens - tokens.counts[rows]) for rows in begins]
            starts = [(torch.from_numpy(rows), states) if len(rows) else None
                      for rows, states in zip(begins, empty, strict=True)]  # fmt: skip
            x = self._embed("input", values)
            last = self.architecture.blocks - 1
            for block, cell in enumerate(self._cells):
                x = x + self._scan(block, cell, x, starts)
                if block == last:
                    x = x[:, -1:]
                x = x + self._feed_forward(block, x)
            answer = self._embed("output", self._norm("out_norm", x[:, 0]))
            return answer.float().cpu().numpy()

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        cast = torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")
        with torch.inference_mode(), cast:
            yield

    def _scan(
        self,
        block: int,
        cell: _Cell,
        x: torch.Tensor,
        starts: list[tuple[torch.Tensor, torch.Tensor] | None] | None,
        record: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The block's recurrent part over tokens of shape (rows, steps, width); same shape out."""
        rows, steps, width = x.shape
        size = self.architecture
        split = self._norm(f"blocks.{block}.norm_slstm", x).reshape(rows, steps, size.heads, size.head_width)
        # (steps, gate, head, row, unit), so that each operation of a step runs over contiguous memory.
        gates = torch.einsum("bthi,ghoi->tghbo", split, cell.gates).float() + cell.bias
        zero = torch.zeros(size.heads, rows, size.head_width, device=x.device)
        state = State(zero, zero, zero, zero)
        outputs = []
        for at, now in enumerate(gates.contiguous().unbind(dim=0)):
            start = starts[at] if starts is not None else None
            if start is not None:
                whole = state.stacked()
                whole[:, :, start[0]] = self._prefix[start[1], block].permute(1, 2, 0, 3)
                state = State.unbind(whole)
            state = step(now, cell.recurrent, state)
            outputs.append(state.y)
            if record is not None:
                record.append(state.stacked()[:, :, 0])
        stacked = torch.stack(outputs, dim=0).permute(2, 0, 1, 3).reshape(rows * steps, width)
        return group_norm(stacked, size.heads, cell.group_weight).reshape(rows, steps, width)

    def _empty_states(self) -> torch.Tensor:
        """States behind 0, 1, 2 ... empty tokens, shape (tokens, blocks, 4, heads, head width)."""
        size = self.architecture
        with self._inference():
            nothing = torch.zeros(1, size.tokens - 1, 2 * size.patch_bars, device=self.device)
            zero = torch.zeros(4, size.heads, size.head_width, device=self.device)
            per_block = []
            x = self._embed("input", nothing)
            for block, cell in enumerate(self._cells):
                record = [zero]
                x = x + self._scan(block, cell, x, None, record) if size.tokens > 1 else x
                x = x + self._feed_forward(block, x)
                per_block.append(torch.stack(record))
            return torch.stack(per_block, dim=1)

    def _feed_forward(self, block: int, x: torch.Tensor) -> torch.Tensor:
        name = f"blocks.{block}.ffn"
        x = self._norm(f"blocks.{block}.norm_ffn", x)
        weight = self._tensors
        up = silu(linear(x, weight[f"{name}.proj_up_gate.weight"])) * linear(x, weight[f"{name}.proj_up.weight"])
        return linear(up, weight[f"{name}.proj_down.weight"])

    def _embed(self, side: str, x: torch.Tensor) -> torch.Tensor:
        def layer(name: str, values: torch.Tensor) -> torch.Tensor:
            full = f"{side}_patch_embedding.{name}_layer"
            return linear(values, self._tensors[f"{full}.weight"], self._tensors[f"{full}.bias"])

        return layer("output", relu(layer("hidden", x))) + layer("residual", x)

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        scaled = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + _RMS_EPSILON)
        return scaled * self._tensors[f"{name}.weight"]

    def _cell(self, block: int) -> _Cell:
        size, layer = self.architecture, f"blocks.{block}.slstm_layer"
        gates = torch.stack([self._tensors[f"{layer}.{gate}.weight"] for gate in ("fgate", "igate", "zgate", "ogate")])
        recurrent = self._tensors[f"{layer}.slstm_cell._recurrent_kernel_"]
        bias = self._tensors[f"{layer}.slstm_cell._bias_"].reshape(size.heads, 4, size.head_width)
        return _Cell(
            gates=gates,
            recurrent=recurrent.reshape(size.heads, size.head_width, 4, size.head_width)
            .permute(2, 0, 1, 3)
            .contiguous(),
            bias=bias.permute(1, 0, 2)[:, :, None].contiguous(),
            group_weight=1.0 + self._tensors[f"{layer}.group_norm.weight"],
        )


def _flush_denormals() -> None:
    """Gates saturate, and arithmetic on denormal numbers is many times slower than on zeros. Per thread."""
    torch.set_flush_denormal(True)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch has a class of its own for GPUs, and only words for the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
