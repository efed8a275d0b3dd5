"""The weights go wrong on disk, and the process that is started next meets them.

They harm a private copy, in ``stage.kept["checkpoint"]``, then kill the process. What a new one says in the place of
loading is to be in ``stage.kept["start_failures"]``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from regime.signal import Reason
from stress.faults.model import die
from stress.stage import Failure, Fault, Stage

LASTS_BARS = 200
"""Long enough for a process to be started and to meet the file, whatever the breaker lets through."""

_KEPT_BYTES = 100_000


def _weights(stage: Stage) -> Path:
    path = stage.kept["checkpoint"]
    assert isinstance(path, Path)
    return path


def _sound(stage: Stage) -> Path:
    return _weights(stage).with_suffix(".sound")


def _fault(name: str, does: str, harm: Callable[[Path], None]) -> Fault:
    def begin(stage: Stage) -> None:
        weights = _weights(stage)
        shutil.copyfile(weights, _sound(stage))
        harm(weights)
        die(stage)

    def end(stage: Stage) -> None:
        shutil.copyfile(_sound(stage), _weights(stage))

    return Fault(
        name=f"checkpoint.{name}",
        does=f"{does}, and the model process has to be started again",
        ends="the file is whole again",
        failure=Failure.CHECKPOINT_UNUSABLE,
        begin=begin,
        end=end,
        # A process that is starting is late until it has found out.
        reasons=frozenset({Reason.MODEL_UNAVAILABLE, Reason.TIMEOUT}),
        needs=frozenset({"process", "checkpoint"}),
        lasts_bars=LASTS_BARS,
        proof=_met,
    )


def _met(stage: Stage) -> str:
    return "" if stage.kept.get("start_failures") else "no process was started that met the harmed file"


def _truncate(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:_KEPT_BYTES])


def _change(weights: Path) -> None:
    """Other weights of the same shapes: all that tells them apart is their sha256."""
    tensors = load_file(weights)
    save_file({name: np.ascontiguousarray(1.01 * tensor) for name, tensor in tensors.items()}, weights)


def _shrink(weights: Path) -> None:
    tensors = load_file(weights)
    widest = max(tensors, key=lambda name: tensors[name].size)
    save_file(tensors | {widest: np.ascontiguousarray(tensors[widest][:-1])}, weights)


FAULTS = (
    _fault("missing", "the weights are gone", Path.unlink),
    _fault("truncated", "the weights end early", _truncate),
    _fault("wrong_sha", "sound weights of another model lie in their place", _change),
    _fault("wrong_architecture", "the weights fit another architecture", _shrink),
)
