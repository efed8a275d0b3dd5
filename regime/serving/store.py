"""Forecasts on disk: made once, and read by every later backtest over the same bars.

A store is a directory for each key (model, engine, shapes) with parts in it, see :mod:`regime.serving.parts`. Parts
are only ever added here; :mod:`regime.serving.storekeeping` merges and removes them. Whatever is wrong with a part,
its forecasts are simply not there and get computed again: a store can make a run slower, never different.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regime.errors import StoreError
from regime.files import write_durably
from regime.serving.memory import CacheConfig, ForecastCache
from regime.serving.parts import (
    KEY_FILE,
    USED_FILE,
    WINDOW_BYTES,
    DamagedPart,
    PartFile,
    StoreKey,
    locked,
    part_files,
    read_part,
    set_aside,
    windows_of,
    write_part,
)

__all__ = ["ForecastStore", "StoreKey", "default_root"]

_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1

_ATTEMPTS = 8
"""Looks at the directory, at most, while prunes of other processes keep replacing parts under this one."""


def default_root() -> Path:
    """``$SAGE_STORE`` if set, else ``sage/forecasts`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("SAGE_STORE"):
        return Path(chosen).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path there is invalid and to be ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "sage" / "forecasts"


@dataclass(frozen=True)
class _Part:
    file: PartFile
    windows: list[bytes]
    digest: str


class ForecastStore:
    """The forecasts of one key, on disk and, those in use, in memory.

    Opening reads which windows there are; forecasts are read when the first of their part is asked for. Any number
    of processes may read and write one store. An object belongs to one thread.

    Parameters
    ----------
    root
        The store's directory; made by the first write. A missing one is an empty store.
    key
        What all forecasts here have in common.
    memory
        Bounds of the forecasts kept in memory.

    Attributes
    ----------
    damaged
        A line for each thing found wrong so far: what, where, and what became of it. It grows when a read finds
        damage later; whoever opened the store shows it.
    """

    def __init__(self, root: Path, key: StoreKey, memory: CacheConfig | None = None) -> None:
        self.root = root
        self.key = key
        self.damaged: list[str] = []
        self._directory = root / key.digest
        config = memory or CacheConfig()
        self._memory = ForecastCache(config)
        self._prefetch_rows = min(config.max_entries, config.max_bytes // (4 * key.shape[0] * key.shape[1]))
        self._parts: dict[int, _Part] = {}
        self._ordinals = count()
        self._index: dict[bytes, int] = {}
        self._unreadable: set[Path] = set()
        if self._there():
            self._check_key_file()
            self._scan()
            self._touch_used()

    @property
    def checkpoint_id(self) -> str:
        """First 16 hex digits of the checkpoint's sha256, as signals carry them."""
        return self.key.checkpoint_sha256[:16]

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, window: bytes) -> bool:
        return window in self._index

    def get(self, window: bytes) -> NDArray[np.float32] | None:
        """The quantiles for a window, or None. Never raises: damage is recorded and answered as None.

        Parameters
        ----------
        window
            From :func:`regime.forecast.window_key`.

        Returns
        -------
        Log returns, shape (horizon_bars, 9), read-only.
        """
        known = self._memory.get(window, 0)
        if known is not None:
            return known
        for _ in range(_ATTEMPTS):
            place = self._index.get(window)
            if place is None:
                return None
            found = self._load(place >> _ROW_BITS, place & _ROW_MASK)
            if found is not None:
                return found
        return None

    def put_many(self, windows: Sequence[bytes], quantiles: NDArray[np.float32]) -> int:
        """Append forecasts as one part, which is on disk when this returns.

        Windows that the store holds already are left out, and so are forecasts that are not finite: they are a
        passing fault's, and the store would repeat it for ever.

        Parameters
        ----------
        windows
            From :func:`regime.forecast.window_key`.
        quantiles
            Shape (len(windows), horizon_bars, 9).

        Returns
        -------
        How many forecasts were added.

        Raises
        ------
        ValueError
            If the shapes do not fit the key.
        StoreError
            If the part cannot be written. The store is then as it was, and still answers.
        """
        values = np.array(quantiles, dtype=np.float32)
        if values.shape != (len(windows), *self.key.shape):
            raise ValueError(f"quantiles of shape {values.shape} for {len(windows)} windows of {self.key.shape}")
        if any(len(window) != WINDOW_BYTES for window in windows):
            raise ValueError(f"a window's key has {WINDOW_BYTES} bytes")
        finite: NDArray[np.bool_] = np.all(np.isfinite(values), axis=(1, 2))
        chosen: dict[bytes, int] = {}
        for row, (window, sound) in enumerate(zip(windows, finite, strict=True)):
            if sound and window not in self._index:
                chosen.setdefault(window, row)
        if not chosen:
            return 0
        keys, values = list(chosen), values[list(chosen.values())]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root, exclusive=False):
                self._directory.mkdir(exist_ok=True)
                if not (self._directory / KEY_FILE).exists():
                    write_durably(self._directory / KEY_FILE, self.key.to_json())
                    self._touch_used()
                file, digest = write_part(self._directory, self.key, windows_of(keys), values)
        except OSError as error:
            blocked = isinstance(error, (NotADirectoryError, FileExistsError))
            why = f"{error.filename or self.root} is no directory" if blocked else error.strerror or error
            mend = "choose" if blocked else "make room there (sage store prune) or choose"
            raise StoreError(
                f"{self._directory}: {len(keys)} forecasts could not be kept ({why}); {mend} another directory with "
                "SAGE_STORE"
            ) from error
        base = self._adopt(_Part(file, keys, digest))
        self._index.update(zip(keys, range(base, base + len(keys)), strict=True))
        for window, row_values in zip(keys, values, strict=True):
            self._remember(window, row_values)
        return len(keys)

    def _load(self, ordinal: int, row: int) -> NDArray[np.float32] | None:
        """One forecast from its part, its neighbours into memory; None if the part was lost and is forgotten."""
        part = self._parts[ordinal]
        try:
            rows = read_part(part.file.path, self.key, with_quantiles=True)
            if rows.digest != part.digest:
                raise DamagedPart("it is not the file that was there when the store was opened")
        except FileNotFoundError:
            del self._parts[ordinal]
            self._scan()  # a prune that merged it put another part in its place
            return None
        except (DamagedPart, OSError) as error:
            del self._parts[ordinal]
            self._give_up(part.file.path, error)
            self._reindex()
            return None
        assert rows.quantiles is not None
        base = ordinal << _ROW_BITS
        # The rows that follow are asked for next: should memory not hold the whole part, they are the ones to have.
        nearest = [(row + step) % len(part.windows) for step in range(min(len(part.windows), self._prefetch_rows))]
        for each in reversed(nearest):
            if self._index.get(part.windows[each]) == base + each:  # else an older part answers for this window
                self._remember(part.windows[each], rows.quantiles[each])
        return self._remember(part.windows[row], rows.quantiles[row])

    def _remember(self, window: bytes, quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
        # A copy: a view would keep its whole part in memory, out of reach of the cache's bounds.
        own = quantiles.copy()
        own.setflags(write=False)
        self._memory.put(window, own, 0)
        return own

    def _adopt(self, part: _Part) -> int:
        """Take a part in; its first row's place in the index."""
        ordinal = next(self._ordinals)
        self._parts[ordinal] = part
        return ordinal << _ROW_BITS

    def _scan(self) -> None:
        """Bring parts and index in line with the directory: what was written since, less what was pruned."""
        for _ in range(_ATTEMPTS):
            known = {part.file.path for part in self._parts.values()} | self._unreadable
            vanished = False
            try:
                listed = part_files(self._directory)
            except OSError as error:
                self.damaged.append(f"{self._directory}: cannot be listed ({error.strerror or error}); taken as empty")
                break
            for file in listed:
                if file.path in known:
                    continue
                try:
                    rows = read_part(file.path, self.key, with_quantiles=False)
                except FileNotFoundError:
                    vanished = True  # merged since the listing; the next one shows into what
                except (DamagedPart, OSError) as error:
                    self._give_up(file.path, error)
                else:
                    self._adopt(_Part(file, rows.windows.tolist(), rows.digest))
            if not vanished:
                break
        self._reindex()

    def _reindex(self) -> None:
        self._index.clear()
        # The oldest part comes last and so prevails, as it does for whoever opens the store later.
        for ordinal, part in sorted(self._parts.items(), key=lambda item: item[1].file.order, reverse=True):
            base = ordinal << _ROW_BITS
            self._index.update(zip(part.windows, range(base, base + len(part.windows)), strict=True))

    def _give_up(self, path: Path, error: Exception) -> None:
        """Do without a part, and say so. Damage is moved out of everybody's way, a file out of reach is left alone."""
        if isinstance(error, OSError):
            self._unreadable.add(path)
            self.damaged.append(f"{path}: cannot be read ({error.strerror or error}); its forecasts are made again")
            return
        try:
            kept = set_aside(path)
        except FileNotFoundError:
            return  # another process was quicker, and says so itself
        except OSError as refusal:
            self._unreadable.add(path)
            self.damaged.append(
                f"{path}: damaged ({error}), and cannot be set aside ({refusal.strerror or refusal}); "
                "its forecasts are made again"
            )
            return
        self.damaged.append(f"{path}: damaged ({error}); set aside as {kept.name}, its forecasts are made again")

    def _there(self) -> bool:
        try:
            return self._directory.is_dir()
        except OSError as error:
            self.damaged.append(f"{self._directory}: cannot be read ({error.strerror or error}); taken as empty")
            return False

    def _check_key_file(self) -> None:
        """The directory's name is the key's digest, so a key file that says anything else is damaged."""
        path = self._directory / KEY_FILE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            self.damaged.append(f"{path}: cannot be read ({error.strerror or error}); not needed for reading forecasts")
            return
        if text == self.key.to_json().encode():
            return
        try:
            with locked(self.root, exclusive=False):
                if path.exists():
                    kept = set_aside(path)
                    self.damaged.append(f"{path}: damaged; set aside as {kept.name} and written anew")
                write_durably(path, self.key.to_json())
        except OSError as error:
            self.damaged.append(f"{path}: cannot be written anew ({error.strerror or error}); forecasts are still read")

    def _touch_used(self) -> None:
        # A store that can only be read is a good one; it is then merely not known when it was last used.
        with contextlib.suppress(OSError):
            (self._directory / USED_FILE).touch()
