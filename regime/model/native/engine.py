"""The native engine: weights packed once, forecasts in milliseconds. No torch in its process."""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from regime.errors import ModelUnavailable
from regime.model.native.build import NoNativeEngine, library
from regime.model.tokens import Tokens, check_request, forecast_patches
from regime.model.weights import Architecture, Weights

_FLOATS = ctypes.POINTER(ctypes.c_float)
_INTS = ctypes.POINTER(ctypes.c_int)


class NativeEngine:
    """TiRex's forward pass in C, in float32.

    A row's answer does not depend on the batch it came in, nor on the number of threads: not by a bit.
    """

    def __init__(self, weights: Weights, threads: int = 1) -> None:
        self.architecture = weights.architecture
        unsuited = why_unsuited(weights.architecture)
        if unsuited:
            raise NoNativeEngine(unsuited)
        self._library = _load()
        size = self.architecture
        dimensions = (
            size.width,
            size.heads,
            size.blocks,
            size.patch_bars,
            size.hidden,
            size.up,
            size.outputs,
            size.tokens,
        )
        names = size.shapes()
        pointers = (_FLOATS * len(names))(*(weights.tensors[name].ctypes.data_as(_FLOATS) for name in names))
        threads = max(1, min(threads, os.cpu_count() or 1))
        self._network = self._library.sage_create((ctypes.c_int * len(dimensions))(*dimensions), pointers, threads)
        if not self._network:
            raise ModelUnavailable("not enough memory for the network's weights")
        self._end = weakref.finalize(self, self._library.sage_destroy, self._network)

    def forecast(self, contexts: NDArray[np.floating], horizon_bars: int) -> NDArray[np.float32]:
        """Quantiles of shape (rows, horizon_bars, 9) for contexts of shape (rows, bars), NaN where unknown.

        Raises
        ------
        ValueError
            If a context or the horizon has no forecast.
        MemoryError
            If there is not enough.
        """
        size = self.architecture
        check_request(contexts, horizon_bars, size.context_bars)
        return forecast_patches(self._forward, contexts, horizon_bars, size.patch_bars, size.context_bars)

    def _forward(self, tokens: Tokens) -> NDArray[np.float32]:
        rows, steps, _ = tokens.values.shape
        out = np.empty((rows, self.architecture.outputs), dtype=np.float32)
        failed = self._library.sage_forward(
            self._network,
            tokens.values.ctypes.data_as(_FLOATS),
            rows,
            steps,
            tokens.counts.ctypes.data_as(_INTS),
            out.ctypes.data_as(_FLOATS),
        )
        if failed:
            raise MemoryError(f"{rows} windows of {steps} tokens")
        return out


def why_unsuited(architecture: Architecture) -> str:
    """Why the native engine cannot run an architecture, or nothing: its tiles are 16 or 32 numbers wide."""
    size = architecture
    if size.head_width % 16 or size.width % 32 or size.hidden % 32 or size.up % 16:
        sizes = f"heads of {size.head_width} units, width {size.width}, hidden {size.hidden}, up {size.up}"
        return f"{sizes}: not all are multiples of its tiles' 16 and 32"
    return ""


def engine_name() -> str:
    """Such as ``native-avx512-1a2b3c4d``: instruction set, and digest of source, compiler and processor.

    Raises
    ------
    NoNativeEngine
        If it cannot be compiled or loaded.
    """
    return f"native-{_load().sage_isa().decode()}-{library().build_id}"


def _load() -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(library().path))
    except OSError as error:
        raise NoNativeEngine(f"the compiled engine does not load: {error}") from error
    loaded.sage_isa.restype = ctypes.c_char_p
    loaded.sage_create.restype = ctypes.c_void_p
    loaded.sage_create.argtypes = [_INTS, ctypes.POINTER(_FLOATS), ctypes.c_int]
    loaded.sage_destroy.restype = None
    loaded.sage_destroy.argtypes = [ctypes.c_void_p]
    loaded.sage_forward.argtypes = [ctypes.c_void_p, _FLOATS, ctypes.c_int, ctypes.c_int, _INTS, _FLOATS]
    return loaded
