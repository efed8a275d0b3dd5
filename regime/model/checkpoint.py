"""Checkpoints on disk: found by name, hashed and described without loading torch.

A checkpoint is a directory with ``config.json`` and ``model.safetensors``, or a TiRex ``.ckpt`` file as NX-AI
publishes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regime.errors import ModelUnavailable
from regime.model.hyper_parameters import read_sizes
from regime.model.registry import HubName, find_pulled, read_provenance

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ARCHITECTURE = "TiRexZero"
EMBEDDED = "embedded"
EMBEDDED_SHA256 = "a2541f5a554dc0101282381c667eef940e34c1976e16e924f93fe242bc8b0b14"
"""Of the weights that ship with SAGE."""

_EMBEDDED_DIR = Path(__file__).parent / "checkpoints" / "compact"


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights lie and what they are.

    ``hyper_parameters`` is None for a ``.ckpt`` file, which carries its own.
    """

    name: str
    weights: Path
    sha256: str
    hyper_parameters: dict[str, Any] | None

    @property
    def id(self) -> str:
        """First 16 hex digits of the weights' sha256."""
        return self.sha256[:16]

    @property
    def digest(self) -> str:
        """Tells it apart from all others, whatever its name: weights and hyper-parameters."""
        return self.sha256 + self.network

    @property
    def network(self) -> str:
        """First 16 hex digits of the hyper-parameters' sha256; empty for a ``.ckpt``, whose weights hold them."""
        if self.hyper_parameters is None:
            return ""
        return hashlib.sha256(json.dumps(self.hyper_parameters, sort_keys=True).encode()).hexdigest()[:16]


def find_checkpoint(name: str) -> Checkpoint:
    """Resolve ``embedded``, a path, or a model that was pulled from a hub, ``owner/NAME[@revision]``.

    Raises
    ------
    ModelUnavailable
        If there is nothing of that name, or it is no checkpoint, or its bytes are not those that were recorded. For a
        hub's model the message says how to pull it.
    """
    found = locate_checkpoint(name)
    recorded, remedy = recorded_sha256(found)
    if recorded not in {"", found.sha256}:
        raise ModelUnavailable(
            f"model {name!r}: {found.weights} has sha256 {found.sha256}, recorded was {recorded}; {remedy}"
        )
    return found


def recorded_sha256(checkpoint: Checkpoint) -> tuple[str, str]:
    """What the weights' sha256 should be, and what to do if it is not; empty where nothing was recorded."""
    directory = checkpoint.weights.parent
    if directory == _EMBEDDED_DIR.resolve():
        return EMBEDDED_SHA256, "install SAGE again"
    provenance = read_provenance(directory)
    if provenance is not None:
        return provenance.weights_sha256, f"pull it again: {provenance.name.pull_command}"
    recorded = ""
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        # What sage model train wrote; other makers need not.
        recorded = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")).get("weights_sha256", "")
    return (recorded, f"put the weights back that belong to {CONFIG_FILE}") if isinstance(recorded, str) else ("", "")


def locate_checkpoint(name: str) -> Checkpoint:
    """The same without regard to what was recorded of its bytes."""
    try:
        path = _EMBEDDED_DIR if name == EMBEDDED else Path(name).expanduser()
        if not path.exists():
            path = _pulled(name)
        if path.is_file():
            if path.suffix != ".ckpt":
                raise ModelUnavailable(
                    f"model {name!r}: give a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, or a .ckpt file"
                )
            return Checkpoint(name, path.resolve(), sha256_of(path), None)
        config_path, weights = path / CONFIG_FILE, path / WEIGHTS_FILE
        for needed in (config_path, weights):
            if not needed.is_file():
                both = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
                raise ModelUnavailable(f"model {name!r}: {needed.name} is missing in {path}; a checkpoint has {both}")
        hyper_parameters = _read_config(name, config_path)
        return Checkpoint(name, weights.resolve(), sha256_of(weights), hyper_parameters)
    except (OSError, RuntimeError) as error:
        # A name too long, a directory without permission, the home of a user whom nobody knows.
        raise ModelUnavailable(f"model {name!r}: cannot be looked up ({error})") from error


def _read_config(name: str, path: Path) -> dict[str, Any]:
    """Hyper-parameters of which a network can be made; whether the tensors fit them is seen when they are loaded."""
    where = f"model {name!r}: {path}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelUnavailable(f"{where}: not readable ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{where} is no checkpoint description: not JSON ({error})") from error
    if not isinstance(document, dict) or not {"architecture", "hyper_parameters"} <= set(document):
        raise ModelUnavailable(f"{where} is no checkpoint description: it must hold architecture and hyper_parameters")
    if document["architecture"] != ARCHITECTURE:
        raise ModelUnavailable(
            f"{where}: architecture {document['architecture']!r} is unknown; {ARCHITECTURE} is the one served"
        )
    try:
        read_sizes(document["hyper_parameters"])
    except ValueError as error:
        raise ModelUnavailable(f"{where}: {error}") from error
    return dict(document["hyper_parameters"])


def _pulled(name: str) -> Path:
    try:
        hub_name = HubName.parse(name)
    except ValueError as error:
        raise ModelUnavailable(f"model {error}") from error
    if hub_name is None:
        raise ModelUnavailable(
            f"model {name!r}: no such checkpoint (check the path); 'embedded' is the one that ships with SAGE"
        )
    return find_pulled(hub_name)


def sha256_of(path: Path) -> str:
    """A file's sha256 in hex. Raises ModelUnavailable if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"{path}: not readable ({error.strerror})") from error
