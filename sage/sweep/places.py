"""Places that several machines share: directories, or anything that fsspec can reach, mirrored on each machine."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.utils import get_protocol

from data.errors import OptionError
from sage.config import BacktestConfig

_LOCAL = {"file", "local"}
_PARTIAL = ".partial"
_CLOCK_S = 1.5
"""Some places tell whole seconds."""


def is_remote(place: str) -> bool:
    """True for an address such as ``s3://bucket/runs``, which is no directory of this machine."""
    return get_protocol(place) not in _LOCAL


def without_secrets(text: str) -> str:
    """The text with what stands before an @ in its addresses left out: that may be a user with a password."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def local_path(place: str) -> Path:
    """The directory that a place is, or that mirrors it on this machine."""
    return mirror_of(place).path if is_remote(place) else Path(place.removeprefix("file://")).expanduser()


@lru_cache(maxsize=16)
def mirror_of(place: str) -> Mirror:
    """The mirror of a remote place, the same one for all that ask in this process."""
    return Mirror(place)


def read_file(place: str, name: str) -> bytes | None:
    """What a file in a place holds now, and nothing of a mirror changes; None where it is not there.

    Raises
    ------
    OSError
        If that cannot be told.
    """
    if is_remote(place):
        return mirror_of(place).read(name)
    try:
        return (local_path(place) / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


class Mirror:
    """A remote directory and its copy on this machine, which all processes of a user share.

    Files are only ever added, removed, or replaced whole.

    Parameters
    ----------
    place
        An address of fsspec's.

    Raises
    ------
    OptionError
        If there is no such kind of place, or what it takes to reach it is not installed.
    """

    def __init__(self, place: str) -> None:
        try:
            self._remote, self._root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError, OSError) as error:
            raise OptionError(f"{without_secrets(place)}: cannot be reached: {without_secrets(str(error))}") from error
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]
        self.place = place
        self.path = Path(tempfile.gettempdir()) / f"sage-mirror-{os.getuid()}" / digest
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def fetch(self, *, exact: bool = False) -> None:
        """Copy here what is there and not here yet, or was changed there; with ``exact`` remove what is not there.

        Raises
        ------
        OSError
            If that fails.
        """
        with self._locked():
            self._reliably(lambda: self._get(exact=exact))

    def read(self, name: str) -> bytes | None:
        """What a file there holds, None if it is not there. Raises OSError."""
        found: bytes | None = None

        def act() -> None:
            nonlocal found
            self._remote.invalidate_cache()
            target = self._target(name)
            found = self._remote.cat_file(target) if self._remote.exists(target) else None

        self._reliably(act)
        return found

    def _get(self, *, exact: bool) -> None:
        found = set()
        for name, about in self._find(self._root):
            own = self.path / PurePosixPath(name).relative_to(self._root.strip("/"))
            if own.suffix == _PARTIAL:
                continue
            found.add(own)
            if _is_kept(own, self.path) and _is_same(own, about):
                continue
            own.parent.mkdir(parents=True, exist_ok=True)
            partial = own.with_name(f".{own.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
            self._remote.get_file(about["name"], str(partial))
            changed_s = _changed_s(about)
            if changed_s is not None:
                os.utime(partial, (changed_s, changed_s))
            os.replace(partial, own)
        if exact:
            for own in self._files(""):
                if own not in found:
                    own.unlink()

    def publish(self, under: str = "", *, last: str = "") -> None:
        """Copy there what is here under a directory, a file of the name ``last`` after all others. Raises OSError."""
        self._reliably(lambda: self._put(self._files(under), under, last))

    def publish_file(self, name: str) -> None:
        """Copy one file there that lies right under the place. Raises OSError."""

        def act() -> None:
            target = self._target(name)
            self._remote.invalidate_cache()
            there = {target.strip("/"): self._remote.size(target)} if self._remote.exists(target) else {}
            self._copy(self.path / name, target, there)

        self._reliably(act)

    def remove(self, under: str) -> None:
        """Remove a directory there, if there is one. Raises OSError."""

        def act() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._remote.rm(self._target(under), recursive=True)

        self._reliably(act)

    def _files(self, under: str) -> list[Path]:
        """Files here that are whole and no machine's own."""
        found = []
        for path in sorted((self.path / under).rglob("*")):
            names = path.relative_to(self.path).parts
            if path.is_file() and not any(name.startswith(".") or name.endswith(_PARTIAL) for name in names):
                found.append(path)
        return found

    def _put(self, files: list[Path], under: str, last: str) -> None:
        there = {name: about["size"] for name, about in self._find(f"{self._root}/{under}".rstrip("/"))}
        for path in sorted(files, key=lambda path: path.name == last):
            target = self._target(path.relative_to(self.path).as_posix())
            kept = there.get(target.strip("/")) == path.stat().st_size and _is_kept(path, self.path)
            if not kept or path.name == last:
                self._copy(path, target, there)

    def _target(self, name: str) -> str:
        """What a file or directory is called there."""
        return f"{self._root.rstrip('/')}/{name}"

    def _copy(self, path: Path, target: str, there: Mapping[str, object]) -> None:
        """Copy a file there, whole or not at all; ``there`` are those that it may take the place of."""
        self._remote.makedirs(target.rpartition("/")[0], exist_ok=True)
        # Under another name first: who reads meanwhile finds all of it or nothing.
        partial = f"{target}.{uuid.uuid4().hex[:8]}{_PARTIAL}"
        self._remote.put_file(str(path), partial)
        try:
            if target.strip("/") in there:
                self._remote.rm_file(target)
            self._remote.mv(partial, target)
        except Exception:
            # Another machine may have been quicker with the same file.
            with contextlib.suppress(Exception):
                self._remote.rm_file(partial)
            self._remote.invalidate_cache()
            if not self._remote.exists(target) or self._remote.size(target) != path.stat().st_size:
                raise

    def _find(self, top: str) -> Iterator[tuple[str, dict[str, object]]]:
        """Files below, by their name without a slash in front."""
        self._remote.invalidate_cache()
        try:
            found = self._remote.find(top, detail=True)
        except FileNotFoundError:
            return
        for name, about in found.items():
            yield name.strip("/"), about

    def _reliably(self, act: Callable[[], None]) -> None:
        """Do it, a second time with a connection of its own: one that was idle for hours may be gone.

        Each kind of place has errors of its own; here they are all of one, and show no password.
        """
        try:
            act()
        except Exception:
            try:
                self._remote, self._root = fsspec.core.url_to_fs(self.place, skip_instance_cache=True)
                act()
            except Exception as error:
                raise OSError(without_secrets(f"{self.place}: {type(error).__name__}: {error}")) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.path.parent / f"{self.path.name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_same(own: Path, about: dict[str, object]) -> bool:
    """Whether a file here is that one there, by its size and, where that is told, by the time of its last change."""
    changed_s, found = _changed_s(about), own.stat()
    return found.st_size == about["size"] and (changed_s is None or abs(found.st_mtime - changed_s) < _CLOCK_S)


def _changed_s(about: dict[str, object]) -> float | None:
    """When a file there was changed last, in seconds since the epoch; each kind of place calls it by another name."""
    for name in ("mtime", "LastModified", "last_modified", "modified", "updated", "modify"):
        value = about.get(name)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str) and re.fullmatch(r"\d{14}(\.\d+)?", value):
            return datetime.strptime(value[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    return None


def _is_kept(path: Path, root: Path) -> bool:
    """True for a file that is there and will not change: all but those right under the root, which tell of the rest."""
    return path.exists() and path.parent != root


def here(config: BacktestConfig, *, anew: bool = False) -> BacktestConfig:
    """The configuration with catalog and store as directories of this machine, fetched if they are elsewhere.

    What was fetched in this process is not looked at again unless ``anew``.

    Raises
    ------
    OSError
        If it cannot be fetched.
    """
    catalog, store = config.data.catalog, config.model.store_dir
    if anew:
        _fetched.cache_clear()
    data, model = config.data, config.model
    if catalog is not None and is_remote(catalog):
        data = dataclasses.replace(data, catalog=_fetched(catalog, exact=True))
    if store is not None and is_remote(store):
        model = dataclasses.replace(model, store_dir=_fetched(store))
    return dataclasses.replace(config, data=data, model=model)


@lru_cache(maxsize=16)
def _fetched(place: str, *, exact: bool = False) -> str:
    mirror = mirror_of(place)
    mirror.fetch(exact=exact)
    return str(mirror.path)
