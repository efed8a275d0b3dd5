"""NT's ParquetDataCatalog, written so that a crash leaves either the old bars or the new ones.

One directory per bar type holds files named by their interval. New bars are first written to a staging
directory inside the catalog, and come to their place as ``data.journal`` tells.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.persistence.funcs import urisafe_identifier

from data.barfiles import BarFile, bar_files, parts_of, write_file
from data.bars import Bars, BarSize, iso, joined, sha256_of
from data.definitions import KINDS, OURS, read_definitions, redefine, stage_definition, within
from data.errors import CatalogDamaged, CatalogError, DataError
from data.fixed import schema_of
from data.holes import NONE, Holes, filled, held_in
from data.journal import JOURNAL, finish_journal, locked, new_staging, swap, sweep_staging, sync, write_durably
from data.places import rights_to
from data.reports import REPORTS_DIR
from data.spool import BarParts
from data.spreads import HourlySpreads

_EVER = -(2**62), 2**62
_BAR_SPEC = r"-\d+-[A-Z_]+-[A-Z]+-[A-Z]+"
_DAMAGED = "damaged"
SPREADS_DIR = "spreads"


class Outcome(StrEnum):
    """What writing bars changed."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Written:
    """The outcome, how many bars the catalog held before in the interval written, and hours of spreads that went.

    ``bars_kept`` are those that stay in holes of the new bars, and are not among those before; ``kept_between`` tells
    people when. ``redefined`` is whether the instrument's definition was missing beside bars that stay as they are,
    ``damaged`` whether a file that could not be read was replaced; the bars before are those that could.
    """

    outcome: Outcome
    bars_before: int
    hours_dropped: int = 0
    bars_kept: int = 0
    kept_between: str = ""
    redefined: bool = False
    damaged: bool = False


def bar_type(instrument: Instrument, size: BarSize) -> BarType:
    """NT's bar type of externally made LAST bars."""
    return BarType.from_str(f"{instrument.id}-{size.nautilus}-LAST-EXTERNAL")


def _schema(instrument: Instrument, size: BarSize) -> pa.Schema:
    return schema_of(bar_type(instrument, size), instrument.price_precision, instrument.size_precision)


def to_nautilus(bars: Bars, instrument: Instrument, size: BarSize) -> list[Bar]:
    """NT Bar objects; ``ts_event`` and ``ts_init`` are both the bar's close, so nothing is known early."""
    kind = bar_type(instrument, size)
    price, volume = instrument.price_precision, instrument.size_precision
    rows = zip(*(column.tolist() for column in bars.columns()), strict=True)
    return [
        Bar(kind, Price(opened, price), Price(high, price), Price(low, price), Price(close, price),
            Quantity(traded, volume), ts, ts)
        for ts, opened, high, low, close, traded in rows
    ]  # fmt: skip


def rounded(bars: Bars, instrument: Instrument) -> Bars:
    """The bars as the catalog holds them: prices and volume at the instrument's precision."""
    price, size = instrument.price_precision, instrument.size_precision
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
        with rights_to(root):
            there, unfinished = root.exists(), (root / JOURNAL).exists()
        if there and not root.is_dir():
            raise CatalogError(f"{root}: is a file, not a catalog directory")
        if re.search(r"[*?[]", str(root.resolve())):
            raise CatalogError(f"{root}: NautilusTrader takes * ? [ in a catalog's path for wildcards; choose another")
        if not there and not create:
            raise CatalogError(f"{root}: no such catalog; make one with: sage ingest SOURCE --catalog {root} ...")
        try:
            if unfinished:
                with locked(self.root):
                    finish_journal(self.root)
        except OSError as error:
            raise CatalogError(
                f"{root}: cannot be written ({error.strerror}); check the path and its rights"
            ) from error

    def instrument(self, instrument_id: str) -> Instrument | None:
        """The instrument as fixed at its first ingest, or None. Raises CatalogDamaged if it cannot be read."""
        found = read_definitions(self.root, instrument_id)
        return found[0] if found else None

    def instruments(self, damage: list[CatalogDamaged] | None = None) -> dict[str, Instrument]:
        """All instruments by their identifiers, sorted.

        Those that cannot be read go to ``damage``; without such a list CatalogDamaged is raised.
        """
        found: dict[str, Instrument] = {}
        for instrument in read_definitions(self.root, None, damage):
            found.setdefault(str(instrument.id), instrument)
        return dict(sorted(found.items()))

    def bars(
        self, instrument: Instrument, size: BarSize, start_ns: int | None = None, end_ns: int | None = None
    ) -> Bars:
        """Bars with closes in [start_ns, end_ns], in time order; none where there are none.

        Raises
        ------
        CatalogError
            If a file cannot be read.
        """
        return joined([*self.parts(instrument, size, start_ns, end_ns)])

    def parts(
        self, instrument: Instrument, size: BarSize, start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[Bars]:
        """The same, some at a time."""
        low, high = _EVER[0] if start_ns is None else start_ns, _EVER[1] if end_ns is None else end_ns
        for file in self.files(instrument, size):
            if file.first_ns <= high and file.last_ns >= low:
                yield from self.parts_of(file, instrument, size, low, high)

    def parts_of(
        self, file: BarFile, instrument: Instrument, size: BarSize, low: int = _EVER[0], high: int = _EVER[1]
    ) -> Iterator[Bars]:
        """Those of one file, which has to say of itself that it holds such bars."""
        return parts_of(file, low, high, _schema(instrument, size))

    def files(self, instrument: Instrument, size: BarSize, strange: list[Path] | None = None) -> list[BarFile]:
        """The files that hold bars of an instrument, in the order of time; see :func:`data.barfiles.bar_files`."""
        return self.files_of(str(instrument.id), size, strange)

    def files_of(self, instrument_id: str, size: BarSize, strange: list[Path] | None = None) -> list[BarFile]:
        """The same, whether or not the instrument's definition can be read."""
        with rights_to(self.root):
            return bar_files(self._directory(instrument_id, size), strange)

    def remove(self, instrument_id: str, size: BarSize) -> None:
        """Remove all bars of a size, with their spreads; the instrument goes with the last that is held of it.

        Nothing of them is read, nor is the definition, for they may be damaged.

        Raises
        ------
        CatalogError
            If they cannot be removed.
        """
        directory = self._directory(instrument_id, size)
        doomed = new_staging(self.root)
        try:
            with locked(self.root):
                finish_journal(self.root)
                if directory.is_dir():
                    # Gone at once, whatever happens while its files are removed.
                    os.replace(directory, doomed)
                self._spreads_path(instrument_id, size).unlink(missing_ok=True)
                self._forget_reports(instrument_id, size)
                shutil.rmtree(doomed, ignore_errors=True)
                self._forget_definition(instrument_id)
        except OSError as error:
            raise CatalogError(f"{self.root}: removing failed ({error.strerror or error})") from error

    def _forget_definition(self, instrument_id: str) -> None:
        """Remove an instrument, unless there is something of it still: other bars, or ticks, quotes and books."""
        name = re.escape(urisafe_identifier(instrument_id))
        definitions = []
        for folder in (self.root / "data").glob("*/*"):
            if re.fullmatch(f"{name}({_BAR_SPEC}.*)?", folder.name) is None:
                continue
            if folder.parent.name in KINDS:
                definitions.append(folder)
            elif any(folder.rglob("*.*")):
                return
        for folder in definitions:
            shutil.rmtree(folder)

    def _forget_reports(self, instrument_id: str, size: BarSize) -> None:
        """Remove what tells where bars came from that are here no more."""
        directory = self.root / REPORTS_DIR
        for path in directory.glob(f"{urisafe_identifier(instrument_id)}-{size}-*") if directory.is_dir() else ():
            path.unlink(missing_ok=True)

    def bar_sizes(self, instrument_id: str) -> list[str]:
        """NT bar specifications held for an instrument, such as ``30-MINUTE-LAST-EXTERNAL``."""
        prefix = f"{urisafe_identifier(instrument_id)}-"
        with rights_to(self.root):
            names = [path.name for path in within(self.root / "data" / "bar")]
        specs = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        # "A.X-" also begins the bar types of an instrument at a venue called "X-Y".
        return sorted(spec for spec in specs if re.fullmatch(_BAR_SPEC, f"-{spec}"))

    def write(
        self,
        bars: Bars | BarParts,
        instrument: Instrument,
        size: BarSize,
        on_progress: Callable[[int], None] | None = None,
        spreads: HourlySpreads | None = None,
        holes: Holes = NONE,
    ) -> Written:
        """Write bars, replacing whatever the catalog held between the first and the last of them, but for holes.

        With them go the spreads that were measured on them; those of the bars that are replaced are forgotten.
        Of bars in parts no more than some are in memory at any time.

        Raises
        ------
        DataError
            If there are no bars, or the instrument is fixed with fewer decimals than the new bars need.
        CatalogError
            If the catalog cannot be written; it is then as it was.
        """
        if len(bars) == 0:
            raise DataError("no bars to write")
        new = bars if isinstance(bars, BarParts) else BarParts.of(bars)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root):
                sweep_staging(self.root)
                finish_journal(self.root)
                self._require_as_made_for(instrument)
                kept = held_in(
                    holes, new, self.files(instrument, size), lambda file: self.parts_of(file, instrument, size)
                )
                holes = NONE if kept is None else holes
                before, digest = self._held(instrument, size, new, holes)
                known = self.spreads(instrument, size)
                bars_kept, between = (
                    (0, "") if kept is None else (len(kept), describe_interval(kept.first_ns, kept.last_ns))
                )
                if before == len(new) and digest == sha256_of(rounded(part, instrument) for part in new):
                    if spreads is not None:
                        path = self._spreads_path(str(instrument.id), size)
                        path.parent.mkdir(exist_ok=True)
                        write_durably(path, (spreads if known is None else known.updated(spreads, holes)).as_csv())
                    redefined = redefine(self.root, instrument)
                    return Written(Outcome.UNCHANGED, before, 0, bars_kept, between, redefined)
                after: HourlySpreads | None = spreads
                if known is not None:
                    # What was measured on other bars says nothing of these.
                    without = known.without(new.first_ns, new.last_ns, holes)
                    after = without if spreads is None else known.updated(spreads, holes)
                self._replace(new, kept, instrument, size, after, on_progress)
                stays = 0 if after is None else len(after.hour)
                lost = 0 if known is None or spreads is not None else len(known.hour) - stays
        except OverflowError as error:
            raise DataError(
                f"{instrument.id}: {error} is more than NautilusTrader can hold; give fewer with --price-precision or "
                "--size-precision"
            ) from error
        except OSError as error:
            left = "the next one that opens it finishes" if (self.root / JOURNAL).exists() else "nothing was changed"
            raise CatalogError(f"{self.root}: writing failed ({error.strerror or error}); {left}") from error
        damaged = digest == _DAMAGED
        outcome = Outcome.REPLACED if before or damaged else Outcome.ADDED
        return Written(outcome, before, lost, bars_kept, between, damaged=damaged)

    def _require_as_made_for(self, instrument: Instrument) -> None:
        """Raise DataError where another ingest has fixed the instrument otherwise since these bars were read."""
        fixed = self.instrument(str(instrument.id))
        if fixed is None:
            return
        here, made = ((one.price_precision, one.size_precision) for one in (fixed, instrument))
        if here != made or type(fixed) is not type(instrument):
            raise DataError(
                f"{instrument.id}: another ingest has fixed it meanwhile, at {here[0]} decimals of price and {here[1]} "
                f"of size as a {type(fixed).__name__}, where these bars have {made[0]} and {made[1]} as a "
                f"{type(instrument).__name__}; ingest them again"
            )

    def spreads(self, instrument: Instrument, size: BarSize) -> HourlySpreads | None:
        """The spreads measured where both sides were ingested, or None. Raises CatalogDamaged for a damaged file."""
        path = self._spreads_path(str(instrument.id), size)
        try:
            with rights_to(path):
                return HourlySpreads.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            mend = "remove it, and ingest bid and ask again with --ask"
            raise CatalogDamaged(path, f"damaged ({error})", mend) from error

    def _spreads_path(self, instrument_id: str, size: BarSize) -> Path:
        return self.root / SPREADS_DIR / f"{urisafe_identifier(instrument_id)}-{size}.csv"

    def _directory(self, instrument_id: str, size: BarSize) -> Path:
        return self.root / "data" / "bar" / urisafe_identifier(f"{instrument_id}-{size.nautilus}{OURS}")

    def _held(self, instrument: Instrument, size: BarSize, span: BarParts, holes: Holes) -> tuple[int, str]:
        """How many bars there are in the time of others, but for holes, and their digest if there are as many.

        It is _DAMAGED where a file cannot be read; the bars are then those that could be read before.
        """

        def outside() -> Iterator[Bars]:
            for part in self.parts(instrument, size, span.first_ns, span.last_ns):
                yield part[~holes.contain(part.ts_close_ns)]

        count = 0
        try:
            for part in outside():
                count += len(part)
            if count != len(span):
                return count, ""
            return count, sha256_of(outside())
        except CatalogDamaged:
            # A damaged file is what bars are ingested again for.
            return count, _DAMAGED

    def _replace(
        self,
        new: BarParts,
        kept: BarParts | None,
        instrument: Instrument,
        size: BarSize,
        spreads: HourlySpreads | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        """Stage one file with the new bars and what the overlapped files hold outside them, and spreads; then swap.

        ``kept`` is what they hold in holes of the new bars.
        """
        directory = self._directory(str(instrument.id), size)
        first, last = new.first_ns, new.last_ns
        overlapped = [file for file in bar_files(directory) if file.first_ns <= last and file.last_ns >= first]
        begins, ends = [first, *(file.first_ns for file in overlapped)], [last, *(file.last_ns for file in overlapped)]

        def every() -> Iterator[Bars]:
            for file in overlapped:
                if file.first_ns < first:
                    yield from self.parts_of(file, instrument, size, high=first - 1)
            yield from filled((rounded(part, instrument) for part in new), iter(() if kept is None else kept))
            for file in overlapped:
                if file.last_ns > last:
                    yield from self.parts_of(file, instrument, size, low=last + 1)

        staging = new_staging(self.root)
        try:
            if self.instrument(str(instrument.id)) is None:
                stage_definition(staging, instrument)
            schema = _schema(instrument, size)
            write_file(
                staging / directory.relative_to(self.root), every(), (min(begins), max(ends)), schema, on_progress
            )
            added = sorted(path.relative_to(staging) for path in staging.rglob("*.parquet"))
            for path in added:
                sync(staging / path)  # the journal must not outlive what it names
            removed = [file.path.relative_to(self.root) for file in overlapped]
            of_spreads = self._spreads_path(str(instrument.id), size).relative_to(self.root)
            if spreads is not None and len(spreads.hour):
                (staging / of_spreads).parent.mkdir()
                write_durably(staging / of_spreads, spreads.as_csv())
                added.append(of_spreads)
            elif spreads is not None:
                removed.append(of_spreads)
            swap(self.root, staging, added, removed)
        finally:
            if not (self.root / JOURNAL).exists():
                shutil.rmtree(staging, ignore_errors=True)


def describe_interval(first_ns: int, last_ns: int) -> str:
    """First and last close of bars, for messages."""
    return f"{iso(first_ns)} to {iso(last_ns)}"
