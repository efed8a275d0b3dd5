"""The sizes of a network, read from a checkpoint's hyper-parameters and held against what can be.

Tensors vouch for most sizes, by their shapes. Nothing vouches for the longest context, and all of them decide how much
memory is asked for: so each is checked before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from regime.forecast import QUANTILE_LEVELS

MOST_CONTEXT_PATCHES = 1024
"""Sixteen times TiRex's: an engine keeps a state for each of them."""

# Far beyond any network that is served, and far below what a machine cannot count out.
_MOST_PATCH_BARS = 1024
_MOST_WIDTH = 65_536
_MOST_BLOCKS = 1024
_MOST_UP_FACTOR = 64.0

_DEFAULT_UP_FACTOR = 2.6667
_UP_MULTIPLE = 64

_MISSING = object()
_SHOWN = 80


def read_sizes(hyper_parameters: Any) -> dict[str, int]:
    """The fields of :class:`~regime.model.weights.Architecture`.

    Raises
    ------
    ValueError
        If a key is missing, or its value makes no network that SAGE serves. The message names the key, the value and
        what is allowed.
    """
    root = _Table.of("hyper_parameters", hyper_parameters)
    model = root.table("model_config")
    block = model.table("block_kwargs")
    patch_bars = model.whole("input_patch_size", _MOST_PATCH_BARS)
    if model.whole("output_patch_size", _MOST_PATCH_BARS) != patch_bars:
        model.refuse("output_patch_size", f"{patch_bars}, as input_patch_size is")
    quantiles = model.content.get("quantiles", _MISSING)
    if not isinstance(quantiles, list | tuple) or tuple(quantiles) != QUANTILE_LEVELS:
        model.refuse("quantiles", "the nine from 0.1 to 0.9")
    width = block.whole("embedding_dim", _MOST_WIDTH)
    heads = block.whole("num_heads", width)
    if width % heads:
        block.refuse("num_heads", f"a divisor of embedding_dim ({width})")
    up = int(width * block.number("ffn_proj_factor", _DEFAULT_UP_FACTOR, 1 / width, _MOST_UP_FACTOR))
    most_bars = MOST_CONTEXT_PATCHES * patch_bars
    allowed = f"a multiple of {patch_bars} (input_patch_size), from {patch_bars} to {most_bars}"
    context_bars = root.whole("train_ctx_len", most_bars, allowed)
    if context_bars % patch_bars:
        root.refuse("train_ctx_len", allowed)
    return {
        "width": width,
        "heads": heads,
        "blocks": block.whole("num_blocks", _MOST_BLOCKS),
        "patch_bars": patch_bars,
        "hidden": model.whole("input_ff_dim", _MOST_WIDTH),
        "up": -(-up // _UP_MULTIPLE) * _UP_MULTIPLE,
        "context_bars": context_bars,
    }


@dataclass(frozen=True)
class _Table:
    """Names and values somewhere in the hyper-parameters; ``path`` says where."""

    path: str
    content: Mapping[str, Any]

    @classmethod
    def of(cls, path: str, value: Any) -> _Table:
        if not isinstance(value, Mapping):
            _refuse(path, value, "a table of names and values")
        return cls(path, value)

    def table(self, name: str) -> _Table:
        return _Table.of(f"{self.path}.{name}", self.content.get(name, _MISSING))

    def whole(self, name: str, most: int, allowed: str = "") -> int:
        """A whole number from 1 to ``most``; True and 16.0 are none."""
        value = self.content.get(name, _MISSING)
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(name, allowed or f"a whole number from 1 to {most}")
        return int(value)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number from ``least`` to ``most``; ``default`` where none is given."""
        value = self.content.get(name, default)
        if type(value) not in {int, float} or not least <= value <= most:
            self.refuse(name, f"a number from {least:g} to {most:g}")
        return float(value)

    def refuse(self, name: str, allowed: str) -> NoReturn:
        _refuse(f"{self.path}.{name}", self.content.get(name, _MISSING), allowed)


def _refuse(path: str, value: Any, allowed: str) -> NoReturn:
    text = repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    raise ValueError(f"{path} {'is missing' if value is _MISSING else f'is {shown}'}; it must be {allowed}")
