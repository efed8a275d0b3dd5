"""The files that are meant by what people name: files, folders of them, and NautilusTrader's catalogs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nautilus_trader.persistence.funcs import urisafe_identifier

from data.bars import BarSize
from data.catalog import BarCatalog
from data.definitions import OURS
from data.errors import DataError

BAR_FILE_SUFFIXES = (".feather", ".csv", ".csv.gz", ".txt", ".tsv", ".zip", ".parquet", ".arrow", ".arrows", ".ipc")


def out_of_catalog(source: Path, instrument_id: str, size: BarSize | None) -> Path:
    """The folder of the bars that are wanted where a source is a whole catalog; else the source.

    Of bids, asks and trades of one size those of trades are meant, as SAGE has them itself.

    Raises
    ------
    DataError
        If a catalog has no such bars, or several that may be meant.
    """
    folder = source / "data" / "bar"
    if not folder.is_dir():
        return source
    held = BarCatalog(source)
    specs = held.bar_sizes(instrument_id)
    chosen = [spec for spec in specs if size is None or spec.startswith(f"{size.nautilus}-")]
    of_one_size = len({tuple(spec.split("-")[:2]) for spec in chosen}) == 1
    if of_one_size:
        chosen = [spec for spec in chosen if spec.endswith(OURS)] or chosen
    name = urisafe_identifier(instrument_id)
    if len(chosen) == 1:
        return folder / f"{name}-{chosen[0]}"
    here = ", ".join(chosen or specs) or f"none; it holds {', '.join(held.instruments([])) or 'nothing'}"
    if not chosen:
        advice = "name what it has"
    elif not of_one_size:
        advice = "say which with --bar"
    else:
        advice = f"name the folder of one in its place, such as {folder / name}-{chosen[-1]}"
        sides = [next((spec for spec in chosen if f"-{side}-" in spec), None) for side in ("BID", "ASK")]
        if all(sides):
            bid, ask = (f"{folder / name}-{spec}" for spec in sides)
            advice = f"name the folders of both sides in its place: {bid} --ask {ask}"
    raise DataError(f"{source}: a catalog, whose bars of {instrument_id} are {here}; {advice}")


def find_files(*sides: Sequence[Path]) -> list[list[Path]]:
    """The files meant by the paths of each side: files as given, directories by the suffixes of bar files.

    Raises
    ------
    DataError
        If a directory holds none, or the same file is named twice.
    """
    found: list[list[Path]] = [[] for _ in sides]
    for sources, files in zip(sides, found, strict=True):
        for source in sources:
            if source.is_dir():
                inside = sorted(path for path in source.iterdir() if _is_bar_file(path))
                if not inside:
                    raise DataError(f"{source}: a directory without bar files ({', '.join(BAR_FILE_SUFFIXES)})")
                files.extend(inside)
            else:
                files.append(source)
    every = [path for files in found for path in files]
    places = Counter(path.resolve() for path in every)
    twice = {str(path) for path in every if places[path.resolve()] > 1}
    if twice:
        raise DataError(f"{', '.join(sorted(twice))}: named more than once")
    return found


def _is_bar_file(path: Path) -> bool:
    # Hidden files are an editor's or another system's ("._BTC.csv"), whatever their suffix.
    return path.name.lower().endswith(BAR_FILE_SUFFIXES) and not path.name.startswith(".") and path.is_file()
