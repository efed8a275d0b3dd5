"""Pulls a hub's model once: licence, download, check, conversion from pickle to safetensors, provenance.

The result is a checkpoint directory like any other. It appears whole or not at all, under a lock, so that of several
processes that pull the same model one does the work and the others find it done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors.numpy import save

from regime.errors import ModelUnavailable
from regime.files import write_durably
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, find_checkpoint, sha256_of
from regime.model.hub import Fetched, OnNote, OnProgress, Source, fetch, naming
from regime.model.registry import (
    PROVENANCE_FILE,
    HubName,
    Licence,
    Provenance,
    directory_of,
    known_model,
    models_root,
    read_provenance,
)
from regime.model.weights import Architecture, Weights, load_weights

ACCEPTED_FILE = "licences.json"
OLDEST_SAFE_TORCH = (2, 6)
"""Before it, ``weights_only`` could be bypassed (CVE-2025-32434)."""


class PullRefused(Exception):
    """What was asked for makes no sense, or lacks consent."""


class LicenceNotAccepted(PullRefused):
    """A licence has yet to be accepted."""

    def __init__(self, licence: Licence) -> None:
        super().__init__(
            f"the {licence.name} must be accepted once before its model is pulled. Read {licence.path}; "
            "if you agree, pull again with --accept-license"
        )
        self.licence = licence


@dataclass(frozen=True)
class Pulled:
    """A model on disk; ``already`` if there was nothing to do."""

    directory: Path
    provenance: Provenance
    already: bool


def pull(
    name: HubName,
    *,
    sha256: str | None = None,
    accept_licence: bool = False,
    root: Path | None = None,
    on_progress: OnProgress = lambda _name, _done, _total: None,
    on_note: OnNote = lambda _text: None,
) -> Pulled:
    """Have a model from the hub on this machine.

    Parameters
    ----------
    name
        The model; without a revision its pinned one.
    sha256
        Of the published file, for a revision that is not pinned. Without it the hub's own word is taken, and
        recorded as such.
    accept_licence
        Whether its licence is accepted; needed once.
    root
        Where pulled models lie; default :func:`regime.model.registry.models_root`.
    on_progress, on_note
        Are told how far it is, and what a person should know.

    Raises
    ------
    PullRefused
        If there is no pin and no revision was given; LicenceNotAccepted if it is that.
    ModelUnavailable
        If the model cannot be had, or is not what it should be.
    OSError
        If this machine cannot store it.
    """
    sha256 = None if sha256 is None else sha256.lower()
    source = _source(name, sha256)
    root = root or models_root()
    directory = directory_of(source.repo, source.revision, root)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f".{directory.name}.lock", on_note):
        found = _intact(directory)
        if found is not None:
            if sha256 not in {None, found.sha256}:
                raise PullRefused(f"{source} was pulled with sha256 {found.sha256}, not the {sha256} of --sha256")
            return Pulled(directory, found, already=True)
        known = known_model(source.repo)
        licence, accepted_at = (known.licence if known else None), None
        if licence is not None:
            accepted_at = _accepted(licence, accept_licence, root)
        else:
            on_note(f"SAGE knows no licence of {source.repo}; its page on the hub says what you may do with it")
        _require_safe_torch()
        fetched = fetch(source, on_progress, on_note)
        on_progress("converting", 0, 1)
        provenance = _convert(source, fetched, directory, licence.name if licence else None, accepted_at)
        on_progress("converting", 1, 1)
    return Pulled(directory, provenance, already=False)


def _source(name: HubName, sha256: str | None) -> Source:
    known = known_model(name.repo)
    pin, file = (known.pin if known else None), known.file if known else "model.ckpt"
    if sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise PullRefused(f"--sha256 {sha256}: it must be the 64 hex digits of a sha256")
    if name.revision is None and pin is None:
        raise PullRefused(
            f"{name}: SAGE has no pinned revision of it; name one, as its page on the hub lists them: "
            "--revision <40 hex digits>, and --sha256 if you know the file's"
        )
    if pin is None or name.revision not in {None, pin.revision}:
        return Source(name.repo, str(name.revision), file, None, sha256, "option" if sha256 else "hub")
    if sha256 not in {None, pin.sha256}:
        raise PullRefused(f"--sha256 {sha256}: {name.repo}@{pin.revision} is pinned to {pin.sha256}")
    return Source(name.repo, pin.revision, file, pin.size_bytes, pin.sha256, "pin")


def _accepted(licence: Licence, accept: bool, root: Path) -> str:
    """When the licence was accepted: before, or now."""
    path = root / ACCEPTED_FILE
    try:
        accepted = dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        accepted = {}
    if licence.name not in accepted:
        if not accept:
            raise LicenceNotAccepted(licence)
        accepted[licence.name] = _now()
        write_durably(path, json.dumps(accepted, indent=2))
    return str(accepted[licence.name])


def _intact(directory: Path) -> Provenance | None:
    """The record of a model that is there and is what was written; None if it has to be made (again)."""
    try:
        found = read_provenance(directory)
        return found if found and find_checkpoint(str(directory)).sha256 == found.weights_sha256 else None
    except ModelUnavailable:
        return None


def _require_safe_torch() -> None:
    try:
        found = version("torch")
    except PackageNotFoundError as error:
        raise ModelUnavailable("torch is not installed; converting a published checkpoint needs it once") from error
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST_SAFE_TORCH:
        raise ModelUnavailable(
            f"torch {found} cannot read pickles safely (CVE-2025-32434); install torch "
            f"{'.'.join(map(str, OLDEST_SAFE_TORCH))} or newer"
        )


def _convert(
    source: Source, fetched: Fetched, directory: Path, licence: str | None, accepted_at: str | None
) -> Provenance:
    weights = load_weights(Checkpoint(str(source), fetched.path, fetched.sha256, None))
    config = _config(source, weights)
    with _staged(directory) as staging:
        _write(staging / WEIGHTS_FILE, save(weights.tensors))
        _write(staging / CONFIG_FILE, config)
        provenance = Provenance(
            repo=source.repo,
            revision=source.revision,
            file=source.file,
            size_bytes=fetched.size_bytes,
            sha256=fetched.sha256,
            sha256_from=fetched.sha256_from,
            weights_sha256=sha256_of(staging / WEIGHTS_FILE),
            endpoint=fetched.endpoint,
            pulled_at=_now(),
            licence=licence,
            licence_accepted_at=accepted_at,
            torch=version("torch"),
        )
        _write(staging / PROVENANCE_FILE, provenance.to_json().encode())
        # What was written is what any command will read.
        reread = load_weights(find_checkpoint(str(staging)))
        assert all((reread.tensors[name] == tensor).all() for name, tensor in weights.tensors.items())
    return provenance


def _config(source: Source, weights: Weights) -> bytes:
    document = {"architecture": "TiRexZero", "hyper_parameters": weights.hyper_parameters}
    try:
        content = json.dumps(document, indent=2)
        survived = Architecture.of(json.loads(content)["hyper_parameters"]) == weights.architecture
    except (TypeError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{source}: its hyper-parameters do not fit into {CONFIG_FILE} ({error})") from error
    assert survived
    return content.encode()


@contextlib.contextmanager
def _staged(directory: Path) -> Iterator[Path]:
    """A place to write into that becomes ``directory`` at the end, if all went well."""
    staging, replaced = directory.with_name(f".{directory.name}.staging"), directory.with_name(f".{directory.name}.old")
    # The caller holds the lock: whatever lies here was left by a process that died.
    for leftover in (staging, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        if directory.exists():
            os.replace(directory, replaced)
        os.replace(staging, directory)
    finally:
        for leftover in (staging, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock: Path, on_note: OnNote) -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends."""
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_note("another process is pulling this model; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    with naming(path), path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
