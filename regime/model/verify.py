"""Is a checkpoint on disk what it should be: the bytes, the tensors, the forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regime.errors import ForecastFailed, ModelUnavailable
from regime.forecast import Forecast
from regime.model.checkpoint import Checkpoint, locate_checkpoint, recorded_sha256
from regime.model.engines import EngineSpec, load_engine
from regime.model.weights import Weights, load_weights
from regime.signal import Reason

_PROBE_SEED = 1
_PROBE_PATCHES = 2


@dataclass(frozen=True)
class Check:
    """One question and its answer; ``passed`` is None where it could not be asked."""

    name: str
    passed: bool | None
    detail: str


def verify(name: str) -> list[Check]:
    """Check a model by name: its files, its bytes against what was recorded, its tensors, and a forecast."""
    try:
        checkpoint = locate_checkpoint(name)
    except ModelUnavailable as error:
        return [Check("files", False, str(error))]
    checks = [_hash(checkpoint)]
    try:
        weights = load_weights(checkpoint)
    except ModelUnavailable as error:
        return [*checks, Check("tensors", False, str(error)), Check("forecast", None, "no tensors to forecast with")]
    checks.append(Check("tensors", True, f"{len(weights.tensors)} tensors fit the configuration and are finite"))
    return [*checks, _forecast(weights)]


def probe_windows(bars: int) -> NDArray[np.float32]:
    """Three fixed windows of returns, shape (3, bars): noise, noise with a trend, and noise after a gap."""
    rows = np.random.default_rng(_PROBE_SEED).standard_normal((3, bars)).astype(np.float32)
    rows[1] += np.linspace(-1.0, 1.0, bars, dtype=np.float32)
    rows[2, : bars // 2] = np.nan
    return rows


def _hash(checkpoint: Checkpoint) -> Check:
    try:
        recorded, remedy = recorded_sha256(checkpoint)
    except ModelUnavailable as error:
        return Check("hash", False, str(error))
    if not recorded:
        return Check("hash", None, f"sha256 {checkpoint.sha256}, of which nothing is recorded to compare with")
    if checkpoint.sha256 != recorded:
        said = f"{checkpoint.weights} has sha256 {checkpoint.sha256}, recorded was {recorded}"
        return Check("hash", False, f"{said}; {remedy}")
    return Check("hash", True, f"sha256 {checkpoint.sha256} as recorded")


def _forecast(weights: Weights) -> Check:
    architecture = weights.architecture
    windows, horizon_bars = probe_windows(architecture.context_bars), _PROBE_PATCHES * architecture.patch_bars
    try:
        engine, choice = load_engine(weights, EngineSpec())
        quantiles = engine.forecast(windows, horizon_bars)
    except (ModelUnavailable, ValueError) as error:
        return Check("forecast", False, str(error))
    for window, answer in zip(windows, quantiles, strict=True):
        try:
            # The detector's own rules: what passes here gives level 0 there.
            unsound = Forecast.of(answer, horizon_bars).scale(float(np.nanstd(window)))
        except ForecastFailed as error:
            unsound = error.reason
        if isinstance(unsound, Reason):
            return Check("forecast", False, f"a probe's forecast by {choice.name} is unsound: {unsound}")
    return Check("forecast", True, f"{quantiles.size:,} quantiles by {choice.name}, finite and in order")
