"""What a catalog holds: instruments and bars, where they came from, and whether every file can still be read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.persistence.funcs import urisafe_identifier

from data.barfiles import BarFile
from data.bars import Bars, BarSize, iso
from data.calendars import calendar_name, calendar_of
from data.catalog import BarCatalog
from data.definitions import OURS, no_definition, undefined
from data.errors import CatalogDamaged, CatalogError
from data.gaps import Gaps, gaps_of
from data.instruments import Kind, kind_of
from data.places import rights_to
from data.reports import REPORTS_DIR

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Holding:
    """The bars of one size of one instrument; ``rows`` is None where a file says nothing of itself any more.

    Times are closes, nanoseconds, UTC.
    """

    instrument: str
    kind: Kind
    size: BarSize
    rows: int | None
    first_ns: int
    last_ns: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Origin:
    """One ingest, as its report tells it. ``sources`` are files with their SHA-256; ``at`` is empty for old reports."""

    at: str
    sources: dict[str, str]
    interval: str
    outcome: str
    rows_rejected: int
    options: dict[str, Any]
    notes: list[str]
    report: Path


@dataclass(frozen=True)
class Details:
    """A holding with its calendar, the gaps in it, and where it came from, the newest first."""

    holding: Holding
    calendar: str
    gaps: Gaps
    origins: list[Origin]


@dataclass(frozen=True)
class Damage:
    """Something wrong in a catalog: which file, what, and how to mend it."""

    path: Path
    told: str
    mend: str


@dataclass(frozen=True)
class Checked:
    """What a check has read, what it has found wrong, and bars that it did not look at."""

    files: int
    rows: int
    damage: list[Damage]
    others: list[str]


def holdings(catalog: BarCatalog, damage: list[CatalogDamaged] | None = None) -> list[Holding]:
    """All bars of a catalog, by instrument and size.

    Definitions that cannot be read go to ``damage``; without such a list CatalogDamaged is raised.
    """
    return [_holding(*one) for one in _all(catalog, [], damage)]


def rows_of(catalog: BarCatalog, instrument_id: str, size: BarSize | None) -> dict[BarSize, int | None]:
    """How many bars there are of an instrument, of one size or of all; None where a file does not say it any more.

    Neither the bars are read nor the definition, for they may be damaged or missing.

    Raises
    ------
    CatalogError
        If it holds nothing of that.
    """
    held = _sizes(catalog, instrument_id)
    found = {
        one: _rows(files) for one in held if size in {None, one} and (files := catalog.files_of(instrument_id, one, []))
    }
    if not found:
        raise _none_of(catalog, instrument_id, size)
    return found


def details(catalog: BarCatalog, instrument_id: str, size: BarSize | None) -> list[Details]:
    """What a catalog holds of an instrument, of one size or of all.

    Raises
    ------
    CatalogError
        If it holds nothing of that, or a file cannot be read.
    """
    found = []
    for instrument, held, files in _of(catalog, instrument_id, size):
        holding = _holding(instrument, held, files)
        told = origins(catalog.root, instrument_id, held)
        chosen = next((str(origin.options["calendar"]) for origin in told if "calendar" in origin.options), None)
        name = chosen or calendar_name(instrument.id, kind_of(instrument))
        calendar = calendar_of(name, holding.first_ns, holding.last_ns)
        found.append(Details(holding, name, gaps_of(catalog.parts(instrument, held), held, calendar), told))
    return found


def origins(root: Path, instrument_id: str, size: BarSize) -> list[Origin]:
    """What the reports of ingests tell, the newest first; reports that cannot be read tell nothing."""
    found: list[tuple[float, Origin]] = []
    directory = root / REPORTS_DIR
    for path in directory.glob("*.json") if directory.is_dir() else ():
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if (report.get("instrument"), report.get("bar")) != (instrument_id, str(size)) or "sources" not in report:
                continue
            origin = Origin(
                at=str(report.get("ingested_at", "")),
                sources=dict(report["sources"]),
                interval=str(report["interval"]),
                outcome=str(report["outcome"]),
                rows_rejected=int(report["rows_rejected"]),
                options=dict(report.get("options", {})),
                notes=list(report["notes"]),
                report=path,
            )
            found.append((path.stat().st_mtime, origin))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return [origin for _, origin in sorted(found, key=lambda item: -item[0])]


def check(root: Path, tell: Progress) -> Checked:
    """Read everything again in a catalog.

    Every file must be readable to its last row, its closes must rise and lie within the interval that its name tells,
    and no two files of the same bars may overlap. Spreads must be readable, too.

    Raises
    ------
    CatalogError
        If there is no catalog, or rights are missing to it.
    """
    damage: list[Damage] = []
    strange: list[Path] = []
    try:
        catalog = BarCatalog(root)
        definitions: list[CatalogDamaged] = []
        every = _all(catalog, strange, definitions)
        lost = undefined(root)
        definitions += [no_definition(name, folder) for name, folders in lost.items() for folder in folders]
        not_looked_at = sorted({*others(catalog)} - {error.path.name for error in definitions})
    except CatalogDamaged as error:
        return Checked(0, 0, [Damage(error.path, error.told, error.mend)], [])
    damage += [Damage(error.path, error.told, error.mend) for error in definitions]
    for path in strange:
        damage.append(Damage(path, "its name tells no interval; it is none of NautilusTrader's", "move it elsewhere"))
    total = sum(len(files) for _, _, files in every)
    done = rows = 0
    for instrument, size, files in every:
        away = f"remove {instrument.id} {size} with sage catalog rm"
        again = f"ingest its interval again, or {away}"
        for file in files:
            tell("checking", done, total)
            done += 1
            try:
                found, told = _checked(catalog.parts_of(file, instrument, size), file)
            except CatalogError:
                damage.append(Damage(file.path, "may not be read", "check its rights"))
                continue
            rows += found
            if told:
                # Bars from before 1970 are replaced by no ingest: their rows are rejected.
                mend = again if file.first_ns >= 0 else f"{away}, and ingest its files again"
                damage.append(Damage(file.path, told, mend))
        try:
            catalog.spreads(instrument, size)
        except CatalogDamaged as error:
            damage.append(Damage(error.path, error.told, error.mend))
        for earlier, later in itertools.pairwise(files):
            if later.first_ns <= earlier.last_ns:
                told = f"overlaps {earlier.path.name}: begins at {iso(later.first_ns)}, before that one ends"
                damage.append(Damage(later.path, told, again))
    tell("checking", total, total)
    return Checked(total, rows, damage, not_looked_at)


def others(catalog: BarCatalog) -> list[str]:
    """Bar types in a catalog that SAGE does not read: of bids, made by NautilusTrader itself, without an instrument."""
    known = {
        f"{urisafe_identifier(instrument_id)}-{spec}"
        for instrument_id in catalog.instruments([])
        for spec in catalog.bar_sizes(instrument_id)
        if spec.endswith(OURS) and BarSize.from_nautilus(spec) is not None
    }
    parent = catalog.root / "data" / "bar"
    with rights_to(parent):
        return sorted({path.name for path in parent.iterdir() if path.is_dir()} - known) if parent.is_dir() else []


def _all(
    catalog: BarCatalog, strange: list[Path], damage: list[CatalogDamaged] | None
) -> list[tuple[Instrument, BarSize, list[BarFile]]]:
    """The files of all bars that SAGE reads; those without an interval in their name go to ``strange``."""
    found = []
    for instrument_id, instrument in catalog.instruments(damage).items():
        for size in _sizes(catalog, instrument_id):
            if files := catalog.files(instrument, size, strange):
                found.append((instrument, size, files))
    return found


def _sizes(catalog: BarCatalog, instrument_id: str) -> list[BarSize]:
    """Those of its bars that SAGE reads."""
    specs = [spec for spec in catalog.bar_sizes(instrument_id) if spec.endswith(OURS)]
    return [size for spec in specs if (size := BarSize.from_nautilus(spec)) is not None]


def _of(
    catalog: BarCatalog, instrument_id: str, size: BarSize | None
) -> list[tuple[Instrument, BarSize, list[BarFile]]]:
    # By the name of its folder: NautilusTrader's AUD/USD.SIM may be called AUDUSD.SIM, too.
    name = urisafe_identifier(instrument_id)
    damage: list[CatalogDamaged] = []
    every = _all(catalog, [], damage)
    found = [one for one in every if urisafe_identifier(one[0].id) == name and size in {None, one[1]}]
    if found:
        return found
    for error in damage:
        if error.path.parent.name == name:
            raise error
    for folder in undefined(catalog.root).get(name, ()):
        raise no_definition(name, folder)
    raise _none_of(catalog, instrument_id, size)


def _none_of(catalog: BarCatalog, instrument_id: str, size: BarSize | None) -> CatalogError:
    sizes = [str(one) for one in _sizes(catalog, instrument_id)]
    held = ", ".join(f"{instrument_id} {one}" for one in sizes) or ", ".join(catalog.instruments([])) or "nothing"
    wanted = f"{instrument_id} {size}" if size is not None else instrument_id
    return CatalogError(f"{catalog.root}: no bars of {wanted}; the catalog holds {held}")


def _holding(instrument: Instrument, size: BarSize, files: list[BarFile]) -> Holding:
    with rights_to(files[0].path):
        size_bytes = sum(file.path.stat().st_size for file in files)
    return Holding(
        instrument=str(instrument.id),
        kind=kind_of(instrument),
        size=size,
        rows=_rows(files),
        first_ns=files[0].first_ns,
        last_ns=max(file.last_ns for file in files),
        files=len(files),
        bytes=size_bytes,
    )


def _rows(files: list[BarFile]) -> int | None:
    try:
        return sum(int(pyarrow.parquet.read_metadata(file.path).num_rows) for file in files)
    except (OSError, pa.ArrowException):
        return None


def _checked(parts: Iterable[Bars], file: BarFile) -> tuple[int, str]:
    """Rows that could be read of a file, and what is wrong with it."""
    rows, first_ns, last_ns = 0, 0, -(2**62)
    told: list[str] = []
    try:
        for bars in parts:
            closes = np.concatenate([[last_ns], bars.ts_close_ns])
            first_ns, last_ns, rows = first_ns if rows else int(closes[1]), int(closes[-1]), rows + len(bars)
            if bool((np.diff(closes) <= 0).any()):
                told.append("its bars are not in the order of time")
            prices = np.stack([bars.open, bars.high, bars.low, bars.close])
            if not bool(np.isfinite(prices).all()) or bool((prices <= 0).any()):
                told.append("holds prices that are none")
            elif not bool(((bars.low <= prices.min(axis=0)) & (bars.high >= prices.max(axis=0))).all()):
                told.append("holds bars whose open, high, low and close are inconsistent")
    except CatalogDamaged as error:
        return 0, error.told
    if not rows:
        return 0, "holds no bars"
    if not told and (first_ns, last_ns) != (file.first_ns, file.last_ns):
        return rows, f"its name tells of another interval than its bars, {iso(first_ns)} to {iso(last_ns)}"
    return rows, next(iter(told), "")


def as_dicts(found: list[Holding]) -> Iterator[dict[str, Any]]:
    """Holdings for JSON."""
    for one in found:
        yield {
            "instrument": one.instrument, "kind": str(one.kind), "bar": str(one.size), "rows": one.rows,
            "first_close": iso(one.first_ns), "last_close": iso(one.last_ns), "files": one.files, "bytes": one.bytes,
        }  # fmt: skip
