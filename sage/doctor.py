"""What a machine has and lacks for SAGE, and how to mend it. It may compile the engine, and changes nothing else."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from data.archive.download import default_downloads
from data.catalog import BarCatalog
from data.errors import CatalogError
from data.holdings import holdings
from data.places import nearest
from regime.errors import ModelUnavailable, StoreError
from regime.model.checkpoint import EMBEDDED, find_checkpoint
from regime.model.engines import EngineSpec, choose_engine
from regime.model.registry import models_root, pulled_models
from regime.serving.store import default_root
from regime.serving.storekeeping import store_info
from sage.processes import THREAD_VARIABLES, asked_gpu_memory, memory_of_container
from sage.sweep.ledger import default_ledger

PACKAGES = ("sage", "nautilus_trader", "torch", "tirex-ts", "numpy", "pandas", "pyarrow", "huggingface_hub")
EXTRAS = {
    "ray": ("sage sweep --ray", "pip install 'sage[ray]'"),
    "s3fs": ("places such as s3://bucket/runs", "pip install s3fs"),
    "gcsfs": ("places such as gs://bucket/runs", "pip install gcsfs"),
}
MEMORY_MIN = 2 * 10**9
"""Bytes below which a backtest with its model process may run out of memory."""
DISK_MIN = 10**9
SHARED_MIN = 16 * 2**20
"""Bytes of /dev/shm that the block takes through which a model process is asked, and some more."""


class State(StrEnum):
    """How something is: as it should be, worth knowing, or in the way."""

    FINE = "fine"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing about the machine; ``mend`` says what to do where it is not fine."""

    section: str
    name: str
    told: str
    state: State = State.FINE
    mend: str = ""


def examine(catalog: Path | None = None) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding, too.

    Parameters
    ----------
    catalog
        A catalog to look at, if there is one.
    """
    return [*_versions(), *_engine(), *_models(), *_machine(), *_places(), *_catalog(catalog), *_extras()]


def _versions() -> Iterator[Finding]:
    section = "versions"
    yield Finding(section, "python", f"{platform.python_version()} at {sys.executable}")
    for name in PACKAGES:
        try:
            told, state, mend = importlib.metadata.version(name), State.FINE, ""
        except importlib.metadata.PackageNotFoundError:
            told, state, mend = "not installed", State.WRONG, f"pip install {name}"
        if name == "torch" and state is State.FINE:
            told = f"{told}, {_torch_build()}"
        yield Finding(section, name, told, state, mend)
    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    if "tirex" in names:
        yield Finding(section, "tirex", "another package of that name is installed and hides TiRex", State.WRONG,
                      "pip uninstall tirex; pip install --force-reinstall tirex-ts")  # fmt: skip


def _torch_build() -> str:
    """For the CPU or for CUDA, told without importing it, which takes seconds."""
    spec = importlib.util.find_spec("torch")
    try:
        assert spec is not None and spec.origin is not None
        text = (Path(spec.origin).parent / "version.py").read_text()
    except (AssertionError, OSError):
        return "build unknown"
    match = re.search(r"^cuda(?:: .*?)? = '([^']+)'", text, re.MULTILINE)
    return f"built for CUDA {match[1]}" if match else "built for the CPU"


def _engine() -> Iterator[Finding]:
    section = "engine"
    try:
        choice = choose_engine(EngineSpec())
    except ModelUnavailable as error:
        yield Finding(section, "runs", str(error), State.WRONG, "install a C compiler (gcc or clang), or torch")
        return
    if choice.note:
        yield Finding(section, "runs", f"{choice.name}: {choice.note}", State.NOTE,
                      "install a C compiler (gcc or clang), or name one in $CC")  # fmt: skip
    else:
        yield Finding(section, "runs", f"{choice.name}, compiled on this machine")
    for variable in ("CC", "SAGE_MARCH"):
        if variable in os.environ:
            yield Finding(section, f"${variable}", os.environ[variable])


def _models() -> Iterator[Finding]:
    section = "models"
    names: list[str] = [EMBEDDED]
    try:
        names += [str(name) for name in pulled_models(models_root())]
    except OSError as error:
        yield Finding(section, str(models_root()), f"cannot be read ({error.strerror})", State.WRONG,
                      "check its permissions, or name another place in $SAGE_MODELS")  # fmt: skip
    for name in names:
        try:
            found = find_checkpoint(name)
            size = found.weights.stat().st_size
            yield Finding(section, name, f"sound, {_bytes(size)}, sha256 {found.sha256[:16]}…")
        except (ModelUnavailable, OSError) as error:
            yield Finding(section, name, str(error), State.WRONG, "install SAGE again, or pull the model again")


def _machine() -> Iterator[Finding]:
    section = "machine"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = cores < 2
    yield Finding(section, "cores", f"{cores}", State.NOTE if few else State.FINE,
                  "trading and model share the core: expect late answers under a deadline" if few else "")  # fmt: skip
    used, limit = memory_of_container()
    free = limit - used
    short = free < MEMORY_MIN
    told = f"{_bytes(free)} free of {_bytes(limit)}, the tightest limit seen"
    yield Finding(section, "memory", told, State.NOTE if short else State.FINE,
                  "close something, or raise the limit" if short else "")  # fmt: skip
    yield from _disk(section, "/dev/shm", Path("/dev/shm"), SHARED_MIN, "run the container with --shm-size=64m or more")
    yield from _gpu(section)
    set_ = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    told = ", ".join(f"{name}={value}" for name, value in set_.items()) or "not limited by the environment"
    yield Finding(section, "threads", told)


def _gpu(section: str) -> Iterator[Finding]:
    command = shutil.which("nvidia-smi")
    if command is None:
        yield Finding(section, "GPU", "none seen; SAGE runs on the CPU")
        return
    try:
        found = asked_gpu_memory(command)
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(section, "GPU", f"nvidia-smi cannot tell ({error})", State.NOTE, "check the driver")
        return
    told = "none" if found is None else f"{_bytes(found[1] - found[0])} free of {_bytes(found[1])}"
    yield Finding(section, "GPU", told)


def _places() -> Iterator[Finding]:
    section = "places"
    store = default_root()
    try:
        held = store_info(store)
        kept = sum(key.size_bytes for key in held)
        yield from _place(section, "forecasts", store, f"{_bytes(kept)} of {len(held)} models", "SAGE_STORE")
        damaged = sum(len(key.damaged) for key in held)
        if damaged:
            yield Finding(section, "forecasts", f"{damaged:,} files are damaged", State.NOTE, "sage store prune")
    except StoreError as error:
        yield Finding(section, "forecasts", str(error), State.WRONG, "name another place in $SAGE_STORE")
    for name, path, what, variable in (
        ("models", models_root(), "pulled models", "SAGE_MODELS"),
        ("downloads", default_downloads(), "files of archives", "SAGE_DOWNLOADS"),
        ("runs", Path("runs"), "what runs left", ""),
    ):
        yield from _place(section, name, path, f"{_bytes(_held(path))} of {what}", variable)
    ledger = default_ledger()
    if ledger.is_dir():
        yield Finding(section, "trials", f"{ledger}: is a directory, not the file that counts trials", State.WRONG,
                      f"name a file in $SAGE_TRIALS, such as {ledger / 'trials.jsonl'}")  # fmt: skip
    else:
        yield from _place(section, "trials", ledger.parent, f"{_bytes(_held(ledger))} of sweeps' ledger", "SAGE_TRIALS")
    yield from _disk(section, "temporary", Path(tempfile.gettempdir()), DISK_MIN, "name another place in $TMPDIR")


def _held(path: Path) -> int:
    """Bytes of a file, or of all below a directory; what cannot be looked at counts nothing."""
    total = 0
    with contextlib.suppress(OSError):
        total = path.stat().st_size if path.is_file() else 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(directory) / name).lstat().st_size
    return total


def _place(section: str, name: str, path: Path, what: str, variable: str) -> Iterator[Finding]:
    place = nearest(path)
    elsewhere = f"name another place in ${variable}" if variable else "give --out"
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        yield Finding(section, name, f"{path}: cannot be written", State.WRONG, f"check its rights, or {elsewhere}")
        return
    there = what if place == path.absolute() else f"{what}; made when needed"
    yield from _disk(section, name, path, DISK_MIN, f"make room, or {elsewhere}", f"{path}: {there}")


def _disk(section: str, name: str, path: Path, least: int, mend: str, told: str = "") -> Iterator[Finding]:
    place = nearest(path)
    try:
        free = psutil.disk_usage(str(place)).free
    except OSError as error:
        yield Finding(section, name, f"{path}: cannot be looked at ({error.strerror})", State.NOTE, mend)
        return
    short = free < least
    said = f"{told or path}, {_bytes(free)} free"
    yield Finding(section, name, said, State.NOTE if short else State.FINE, mend if short else "")


def _catalog(place: Path | None) -> Iterator[Finding]:
    if place is None:
        return
    try:
        found = holdings(BarCatalog(place))
    except (CatalogError, OSError) as error:
        yield Finding("catalog", str(place), str(error), State.WRONG, "see sage catalog check")
        return
    damaged = [one for one in found if one.rows is None]
    rows = sum(one.rows or 0 for one in found)
    told = f"{rows:,} bars of {len({one.instrument for one in found}):,} instruments, {_bytes(_held(place))}"
    # All below it has to be writable for an ingest, not the directory alone.
    closed = next((path for path in (place, *place.glob("data/*"), *place.glob("data/bar/*"))
                   if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)), None)  # fmt: skip
    told += ", can be read and written" if closed is None else f", can be read; nothing can be written in {closed}"
    if damaged:
        told += f"; {damaged[0].instrument} {damaged[0].size} is damaged"
        yield Finding("catalog", str(place), told, State.WRONG, f"sage catalog check {place}")
    elif closed is not None:
        yield Finding("catalog", str(place), told, State.NOTE, "to ingest into it, check its rights")
    else:
        yield Finding("catalog", str(place), told)


def _extras() -> Iterator[Finding]:
    for name, (why, mend) in EXTRAS.items():
        there = importlib.util.find_spec(name) is not None
        told = f"{'there' if there else 'not installed'}; for {why}"
        # What nobody needs is nothing wrong, and yet it is said how to have it.
        yield Finding("extras", name, told, mend="" if there else mend)


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
