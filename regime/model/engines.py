"""Which engine runs a checkpoint: the native one where it can be compiled, else torch; and what it is called.

The name of an engine is part of the forecast store's key: other digits, other name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from regime.errors import ModelUnavailable
from regime.model.native.build import NoNativeEngine
from regime.model.native.engine import NativeEngine, engine_name, why_unsuited
from regime.model.weights import Architecture, Weights

EngineKind = Literal["auto", "native", "torch", "stock"]
Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]

ENGINE_KINDS: tuple[str, ...] = get_args(EngineKind)


class Engine(Protocol):
    """A loaded network."""

    @property
    def architecture(self) -> Architecture:
        """The network's sizes."""

    def forecast(self, contexts: NDArray[np.floating], horizon_bars: int) -> NDArray[np.float32]:
        """Quantiles of shape (rows, horizon_bars, 9); ValueError for what has no forecast."""


@dataclass(frozen=True)
class EngineSpec:
    """Which engine is wanted.

    ``auto`` takes the native engine on a CPU where it can be had. ``threads`` is the most it may use at once, within
    the machine's cores: a second one halves the time where a core is free, and costs nothing where none is.
    """

    kind: EngineKind = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    threads: int = 2


@dataclass(frozen=True)
class EngineChoice:
    """What runs: ``kind`` is never ``auto``; ``note`` says why it is not the native engine, if it is not."""

    kind: EngineKind
    name: str
    note: str = ""


def choose_engine(spec: EngineSpec, architecture: Architecture | None = None) -> EngineChoice:
    """The engine that will run, found without loading any weights and without torch.

    Raises
    ------
    ModelUnavailable
        If the engine is unknown, or cannot run here and no other was allowed.
    """
    if spec.kind not in ENGINE_KINDS:
        raise ModelUnavailable(f"engine {spec.kind!r}: unknown; one of {', '.join(ENGINE_KINDS)}")
    if spec.kind == "stock":
        return EngineChoice("stock", f"stock-tirex-ts-{_version('tirex-ts')}-torch-{_version('torch')}")
    if spec.kind == "torch" or spec.device == "cuda" or spec.dtype != "float32":
        if spec.kind == "native":
            raise ModelUnavailable(
                f"engine 'native' runs in float32 on the CPU only; for {spec.dtype} on {spec.device}: engine 'torch'"
            )
        return EngineChoice("torch", f"torch-{_version('torch')}")
    try:
        unsuited = why_unsuited(architecture) if architecture is not None else ""
        if unsuited:
            raise NoNativeEngine(unsuited)
        return EngineChoice("native", engine_name())
    except NoNativeEngine as error:
        if spec.kind == "native":
            raise ModelUnavailable(f"engine 'native': {error}; --engine torch runs without it") from error
        return EngineChoice(
            "torch", f"torch-{_version('torch')}", f"slower engine in torch, for want of the native one: {error}"
        )


def load_engine(weights: Weights, spec: EngineSpec) -> tuple[Engine, EngineChoice]:
    """Load a network into the engine chosen for it. Raises ModelUnavailable if it cannot run."""
    choice = choose_engine(spec, weights.architecture)
    if choice.kind == "native":
        return NativeEngine(weights, spec.threads), choice
    # Torch takes seconds to import; the native engine does without.
    try:
        if choice.kind == "stock":
            from regime.model.stock import StockEngine

            return StockEngine(weights), choice
        from regime.model.portable import TorchEngine

        engine = TorchEngine(weights, spec.device, spec.dtype)
        if engine.error_sd:
            said = f"{spec.dtype} products: up to {engine.error_sd:.1e} standard deviations from float32 on probes"
            choice = dataclasses.replace(choice, note=f"{choice.note}; {said}" if choice.note else said)
        return engine, choice
    except ImportError as error:
        raise ModelUnavailable(f"engine {choice.kind!r}: {error}") from error


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError as error:
        raise ModelUnavailable(f"{package} is not installed, and the native engine was not to be had") from error
