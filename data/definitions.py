"""Definitions of a catalog's instruments: files of NautilusTrader's own, each in a folder of the instrument's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.persistence.funcs import class_to_filename, urisafe_identifier
from nautilus_trader.serialization.arrow.implementations.instruments import deserialize

from data.bars import BarSize
from data.errors import CatalogDamaged
from data.instruments import Precision, kind_of
from data.journal import JOURNAL, new_staging, swap, sync
from data.places import rights_to

KINDS = {class_to_filename(kind) for kind in Instrument.__subclasses__()}
"""Folders of instruments, one for each of NautilusTrader's kinds; all others hold data."""
OURS = "-LAST-EXTERNAL"
"""What the names of bars end with that SAGE reads."""
_UNREADABLE = (
    OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, msgspec.MsgspecError,
)  # fmt: skip
_MEND = "remove that file, and ingest the instrument again"


def definition_files(root: Path, instrument_id: str | None = None) -> list[Path]:
    """The files that define an instrument, or all of them. Raises CatalogError where rights are missing."""
    name = None if instrument_id is None else urisafe_identifier(instrument_id)
    with rights_to(root):
        # Not by glob: what may not be looked at would be passed over, as if it were not there.
        folders = [folder for kind in sorted(KINDS) for folder in within(root / "data" / kind)]
        return [
            path
            for folder in folders
            if name in {None, folder.name}
            for path in sorted(within(folder))
            if path.suffix == ".parquet"
        ]


def read_definitions(
    root: Path, instrument_id: str | None = None, damage: list[CatalogDamaged] | None = None
) -> list[Instrument]:
    """An instrument as its files define it, or all of them.

    What cannot be read goes to ``damage``; without such a list CatalogDamaged is raised.
    """
    found = []
    for path in definition_files(root, instrument_id):
        try:
            found += _read(path)
        except CatalogDamaged as error:
            if damage is None:
                raise
            damage.append(error)
    return found


def _read(path: Path) -> list[Instrument]:
    try:
        with rights_to(path), pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as opened:
            found: list[Instrument] = deserialize(opened.read())
        if not found:
            raise ValueError("it holds none")
        for instrument in found:
            kind_of(instrument)
            # A file that was moved, or in which a letter changed, would define another one.
            if urisafe_identifier(str(instrument.id)) != path.parent.name:
                raise ValueError(f"it defines {instrument.id}")
    except _UNREADABLE as error:
        told = f"{error}".partition("\n")[0]
        raise CatalogDamaged(
            path, f"the definition of {path.parent.name} cannot be read ({told or type(error).__name__})", _MEND
        ) from error
    return found


def stage_definition(staging: Path, instrument: Instrument) -> None:
    """Write a definition below a directory, as NautilusTrader does, and with checksums. Raises OSError."""
    ParquetDataCatalog(str(staging.resolve())).write_data([instrument])
    for path in definition_files(staging):
        # Without them most single changed bits would be read as another multiplier, fee or symbol.
        table = pyarrow.parquet.read_table(path, partitioning=None)
        pyarrow.parquet.write_table(table, path, write_page_checksum=True)


def redefine(root: Path, instrument: Instrument) -> bool:
    """Write the definition of bars that a catalog holds, if it is missing, and tell whether. Raises OSError."""
    if definition_files(root, str(instrument.id)):
        return False
    staging = new_staging(root)
    try:
        stage_definition(staging, instrument)
        added = [path.relative_to(staging) for path in definition_files(staging)]
        for path in added:
            sync(staging / path)
        swap(root, staging, added, ())
    finally:
        if not (root / JOURNAL).exists():
            shutil.rmtree(staging, ignore_errors=True)
    return True


def undefined(root: Path) -> dict[str, list[Path]]:
    """Folders of bars that SAGE could read if their instrument were defined, by its name."""
    defined = {path.parent.name for path in definition_files(root)}
    found: dict[str, list[Path]] = {}
    with rights_to(root):
        for folder in sorted(within(root / "data" / "bar")):
            name, *spec = folder.name.rsplit("-", 4)
            if name in defined or len(spec) != 4 or not folder.name.endswith(OURS):
                continue
            if BarSize.from_nautilus("-".join(spec)) and any(path.suffix == ".parquet" for path in within(folder)):
                found.setdefault(name, []).append(folder)
    return found


def precision_of_bars(root: Path, instrument_id: str) -> Precision | None:
    """At how many decimals bars are held whose instrument is not defined; None where there are none to tell it."""
    for folder in undefined(root).get(urisafe_identifier(instrument_id), ()):
        for path in sorted(within(folder)):
            try:
                said = pyarrow.parquet.read_schema(path).metadata or {}
                return Precision(int(said[b"price_precision"]), int(said[b"size_precision"]))
            except _UNREADABLE:
                # A check tells of what is damaged; another file may know.
                continue
    return None


def no_definition(name: str, folder: Path) -> CatalogDamaged:
    """What to say of bars whose instrument is not defined."""
    told = f"the bars have no definition of their instrument, {name}"
    return CatalogDamaged(folder, told, "ingest them again, which writes it, or remove them with sage catalog rm")


def within(directory: Path) -> list[Path]:
    """What a directory holds; nothing where there is none. Raises PermissionError."""
    return list(directory.iterdir()) if directory.is_dir() else []
