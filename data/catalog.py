"""NT's ParquetDataCatalog, written so that a crash leaves either the old bars or the new ones.

One directory per bar type holds files named by their interval. New bars are first written to a staging
directory inside the catalog. A single new or replaced file is one atomic rename. Where an ingest overlaps
several files, a journal names the files to add and to remove, and whoever opens the catalog next finishes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from data.bars import Bars, BarSize, iso
from data.errors import CatalogError, DataError
from data.spreads import HourlySpreads

JOURNAL = "sage-journal.json"
LOCK = ".sage-lock"
STAGING_PREFIX = ".sage-staging-"
SPREADS_DIR = "spreads"
_CHUNK = 20_000


class Outcome(StrEnum):
    """What writing bars changed."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Written:
    """The outcome, and how many bars the catalog held before in the interval written."""

    outcome: Outcome
    bars_before: int


def bar_type(instrument: Instrument, size: BarSize) -> BarType:
    """NT's bar type of externally made LAST bars."""
    return BarType.from_str(f"{instrument.id}-{size.nautilus}-LAST-EXTERNAL")


def to_nautilus(
    bars: Bars, instrument: Instrument, size: BarSize, on_progress: Callable[[int], None] | None = None
) -> list[Bar]:
    """NT Bar objects; ``ts_event`` and ``ts_init`` are both the bar's close, so nothing is known early."""
    kind = bar_type(instrument, size)
    price, volume = instrument.price_precision, instrument.size_precision
    out: list[Bar] = []
    rows = zip(*(column.tolist() for column in bars.columns()), strict=True)
    for ts, opened, high, low, close, traded in rows:
        out.append(
            Bar(kind, Price(opened, price), Price(high, price), Price(low, price), Price(close, price),
                Quantity(traded, volume), ts, ts)
        )  # fmt: skip
        if on_progress is not None and len(out) % _CHUNK == 0:
            on_progress(_CHUNK)
    if on_progress is not None:
        on_progress(len(out) % _CHUNK)
    return out


def from_nautilus(bars: list[Bar]) -> Bars:
    """Plain arrays from NT Bar objects, each value the float64 nearest to its decimal."""
    times = np.fromiter((b.ts_init for b in bars), dtype=np.int64, count=len(bars))
    values = np.array(
        [
            (b.open.as_double(), b.high.as_double(), b.low.as_double(), b.close.as_double(), b.volume.as_double())
            for b in bars
        ],
        dtype=np.float64,
    ).reshape(len(bars), 5)
    raw = Bars(times, values[:, 0], values[:, 1], values[:, 2], values[:, 3], values[:, 4])
    # NT divides a 128-bit integer; the quotient may miss the nearest float64 by one digit.
    return _rounded(raw, bars[0].close.precision, bars[0].volume.precision) if bars else raw


def rounded(bars: Bars, instrument: Instrument) -> Bars:
    """The bars as the catalog holds them: prices and volume at the instrument's precision."""
    return _rounded(bars, instrument.price_precision, instrument.size_precision)


def _rounded(bars: Bars, price: int, size: int) -> Bars:
    return Bars(
        bars.ts_close_ns,
        np.round(bars.open, price),
        np.round(bars.high, price),
        np.round(bars.low, price),
        np.round(bars.close, price),
        np.round(bars.volume, size),
    )


class BarCatalog:
    """A directory of bars in NT's own layout; with ``create`` it is made by the first write."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise CatalogError(f"{root}: is a file, not a catalog directory")
        if re.search(r"[*?[]", str(root.resolve())):
            raise CatalogError(f"{root}: NautilusTrader takes * ? [ in a catalog's path for wildcards; choose another")
        if not root.exists() and not create:
            raise CatalogError(f"{root}: no such catalog; make one with: sage ingest SOURCE --catalog {root} ...")
        try:
            if (root / JOURNAL).exists():
                with self._locked():
                    self._finish_journal()
        except OSError as error:
            raise CatalogError(
                f"{root}: cannot be written ({error.strerror}); check the path and its rights"
            ) from error
        self._nautilus = ParquetDataCatalog(str(root.resolve()))

    def instrument(self, instrument_id: str) -> Instrument | None:
        """The instrument as fixed at its first ingest, or None."""
        found = self._nautilus.instruments(instrument_ids=[instrument_id])
        return found[0] if found else None

    def instrument_ids(self) -> list[str]:
        """Identifiers of all instruments that the catalog holds, sorted."""
        return sorted({str(instrument.id) for instrument in self._nautilus.instruments()})

    def read(
        self, instrument: Instrument, size: BarSize, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[Bar]:
        """Bars with closes in [start_ns, end_ns], in time order; empty where there are none.

        Raises
        ------
        CatalogError
            If a file cannot be read.
        """
        directory = self._directory(instrument, size)
        if not directory.is_dir():
            return []
        try:
            return list(self._nautilus.bars([str(bar_type(instrument, size))], start=start_ns, end=end_ns))
        except BaseException as error:
            # NT's reader raises whatever its Rust and Arrow layers do, pyo3's PanicException (no Exception) included.
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise CatalogError(
                f"{directory}: a file is damaged or of another version ({str(error).splitlines()[0]}); "
                "ingest its interval again"
            ) from error

    def bar_sizes(self, instrument_id: str) -> list[str]:
        """NT bar specifications held for an instrument, such as ``30-MINUTE-LAST-EXTERNAL``."""
        prefix = f"{instrument_id}-"
        parent = self.root / "data" / "bar"
        names = (path.name for path in parent.iterdir()) if parent.is_dir() else ()
        specs = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        # "A.X-" also begins the bar types of an instrument at a venue called "X-Y".
        return sorted(spec for spec in specs if re.fullmatch(r"\d+-[A-Z]+-[A-Z]+-[A-Z]+", spec))

    def write(
        self,
        bars: Bars,
        instrument: Instrument,
        size: BarSize,
        on_progress: Callable[[int], None] | None = None,
    ) -> Written:
        """Write bars, replacing whatever the catalog held between the first and the last of them.

        Raises
        ------
        DataError
            If there are no bars, or the instrument is fixed with fewer decimals than the new bars need.
        CatalogError
            If the catalog cannot be written; it is then as it was.
        """
        if len(bars) == 0:
            raise DataError("no bars to write")
        bars = rounded(bars, instrument)
        first, last = int(bars.ts_close_ns[0]), int(bars.ts_close_ns[-1])
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._sweep_staging()
                self._finish_journal()
                before = from_nautilus(self.read(instrument, size, first, last))
                if len(before) and before.sha256() == bars.sha256():
                    return Written(Outcome.UNCHANGED, len(before))
                self._replace(bars, instrument, size, on_progress)
        except OSError as error:
            raise CatalogError(
                f"{self.root}: writing failed ({error.strerror or error}); nothing was changed"
            ) from error
        return Written(Outcome.REPLACED if len(before) else Outcome.ADDED, len(before))

    def spreads(self, instrument: Instrument, size: BarSize) -> HourlySpreads | None:
        """The spreads measured where both sides were ingested, or None. Raises CatalogError for a damaged file."""
        path = self._spreads_path(instrument, size)
        try:
            return HourlySpreads.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise CatalogError(
                f"{path}: damaged ({error}); remove it, and ingest bid and ask again with --ask"
            ) from error

    def write_spreads(self, spreads: HourlySpreads, instrument: Instrument, size: BarSize) -> None:
        """Keep spreads, in the place of those from their first hour to their last. Raises CatalogError."""
        path = self._spreads_path(instrument, size)
        try:
            with self._locked():
                before = self.spreads(instrument, size)
                path.parent.mkdir(exist_ok=True)
                _write_durably(path, (spreads if before is None else before.updated(spreads)).as_csv())
        except OSError as error:
            raise CatalogError(f"{path}: writing failed ({error.strerror or error})") from error

    def drop_spreads(self, instrument: Instrument, size: BarSize, first_ns: int, last_ns: int) -> int:
        """Forget the spreads of bars that close from one time to another; gives back how many hours that were.

        Raises
        ------
        CatalogError
            If the file is damaged, or cannot be written.
        """
        path = self._spreads_path(instrument, size)
        try:
            with self._locked():
                before = self.spreads(instrument, size)
                if before is None:
                    return 0
                kept = before.without(first_ns, last_ns)
                if not len(kept.hour):
                    path.unlink()
                elif len(kept.hour) < len(before.hour):
                    _write_durably(path, kept.as_csv())
                return len(before.hour) - len(kept.hour)
        except OSError as error:
            raise CatalogError(f"{path}: writing failed ({error.strerror or error})") from error

    def _spreads_path(self, instrument: Instrument, size: BarSize) -> Path:
        return self.root / SPREADS_DIR / f"{instrument.id}-{size}.csv"

    def _directory(self, instrument: Instrument, size: BarSize) -> Path:
        return self.root / "data" / "bar" / str(bar_type(instrument, size))

    def _replace(
        self, bars: Bars, instrument: Instrument, size: BarSize, on_progress: Callable[[int], None] | None
    ) -> None:
        """Stage one file with the new bars and what the overlapped files hold outside them; then swap."""
        directory = self._directory(instrument, size)
        first, last = int(bars.ts_close_ns[0]), int(bars.ts_close_ns[-1])
        overlapped = [path for path, start, end in _files(directory) if start <= last and end >= first]
        kept_before = [bar for path in overlapped for bar in self._outside(path, instrument, size, None, first - 1)]
        kept_after = [bar for path in overlapped for bar in self._outside(path, instrument, size, last + 1, None)]
        staging = self.root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        try:
            staged = ParquetDataCatalog(str(staging.resolve()))
            if self.instrument(str(instrument.id)) is None:
                staged.write_data([instrument])
            staged.write_data([*kept_before, *to_nautilus(bars, instrument, size, on_progress), *kept_after])
            added = sorted(path.relative_to(staging) for path in staging.rglob("*.parquet"))
            for path in added:
                _sync(staging / path)  # the journal must not outlive what it names
            removed = [path.relative_to(self.root) for path in overlapped]
            journal = {
                "staging": staging.name,
                "add": [str(path) for path in added],
                "remove": [str(path) for path in removed if path not in added],
            }
            _write_durably(self.root / JOURNAL, json.dumps(journal))
            self._finish_journal()
        finally:
            if not (self.root / JOURNAL).exists():
                shutil.rmtree(staging, ignore_errors=True)

    def _outside(
        self, path: Path, instrument: Instrument, size: BarSize, start_ns: int | None, end_ns: int | None
    ) -> list[Bar]:
        span = next((start, end) for found, start, end in _files(path.parent) if found == path)
        low = span[0] if start_ns is None else max(span[0], start_ns)
        high = span[1] if end_ns is None else min(span[1], end_ns)
        return self.read(instrument, size, low, high) if low <= high else []

    def _finish_journal(self) -> None:
        """Carry out what a journal asks for. Safe to repeat from any point at which it was cut off."""
        journal_path = self.root / JOURNAL
        if not journal_path.exists():
            return
        journal = json.loads(journal_path.read_text())
        staging = self.root / journal["staging"]
        for name in journal["remove"]:
            (self.root / name).unlink(missing_ok=True)
        for name in journal["add"]:
            if (staging / name).exists():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / name, self.root / name)
        journal_path.unlink()
        shutil.rmtree(staging, ignore_errors=True)

    def _sweep_staging(self) -> None:
        """Remove what interrupted ingests left; called under the lock, so none of it is in use."""
        if (self.root / JOURNAL).exists():
            return
        for leftover in self.root.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the catalog against another ingest; the lock goes with the process, however it ends."""
        import fcntl

        with (self.root / LOCK).open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CatalogError(
                    f"{self.root}: another ingest is writing to it; try again when it is done"
                ) from error
            yield


def _files(directory: Path) -> list[tuple[Path, int, int]]:
    """The files of a bar type with their intervals, from their names, in time order."""
    found = []
    for path in directory.glob("*.parquet") if directory.is_dir() else ():
        start, _, end = path.stem.partition("_")
        found.append((path, _from_name(start), _from_name(end)))
    return sorted(found, key=lambda item: item[1])


def _from_name(text: str) -> int:
    """NT writes 2020-09-20T00-30-00-000000000Z: a time whose colons and point became dashes."""
    date, _, clock = text.rstrip("Z").partition("T")
    hour, minute, second, nanos = clock.split("-")
    return pd.Timestamp(f"{date}T{hour}:{minute}:{second}.{nanos}", tz="UTC").value


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def describe_interval(bars: Bars) -> str:
    """First and last close of bars, for messages."""
    return f"{iso(int(bars.ts_close_ns[0]))} to {iso(int(bars.ts_close_ns[-1]))}"
