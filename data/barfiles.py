"""Files of bars in NautilusTrader's layout: named by their interval, read and written as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from data.ahead import one_ahead
from data.bars import Bars, iso
from data.errors import CatalogDamaged, CatalogError
from data.fixed import as_bars, as_batch
from data.places import rights_to

_CHUNK = 50_000
_SAID = (b"bar_type", b"price_precision", b"size_precision")
_ROW_GROUP = 5_000
"""NautilusTrader's own."""


@dataclass(frozen=True)
class BarFile:
    """One file of bars; its closes lie from ``first_ns`` to ``last_ns``, as its name tells."""

    path: Path
    first_ns: int
    last_ns: int


def bar_files(directory: Path, strange: list[Path] | None = None) -> list[BarFile]:
    """The files of a bar type with their intervals, from their names, in time order.

    One whose name tells none goes to ``strange``; without such a list CatalogError is raised.
    """
    found = []
    # Not by glob, which finds nothing where it may not look.
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.suffix != ".parquet":
            continue
        start, _, end = path.stem.partition("_")
        try:
            found.append(BarFile(path, _from_name(start), _from_name(end)))
        except ValueError as error:
            if strange is not None:
                strange.append(path)
                continue
            raise CatalogError(f"{path}: its name tells no interval; it is none of NautilusTrader's") from error
    return sorted(found, key=lambda file: file.first_ns)


def parts_of(file: BarFile, start_ns: int, end_ns: int, schema: pa.Schema) -> Iterator[Bars]:
    """Bars of a file that close from one time to another, some at a time.

    ``schema`` is what the file should have. Pages have checksums, and the file's end has none: a single changed bit in
    what it says of its decimals would change every price.

    Raises
    ------
    CatalogError
        If it may not be read.
    CatalogDamaged
        If it cannot be read, says of itself that it holds other bars, or holds bars from before 1970.
    """
    if file.first_ns < 0:
        raise CatalogDamaged(
            file.path,
            "holds bars from before 1970, which NautilusTrader cannot trade",
            "remove them with sage catalog rm, and ingest their files again",
        )
    try:
        # What may not be read is not damaged.
        with (
            rights_to(file.path),
            pyarrow.parquet.ParquetFile(file.path, page_checksum_verification=True) as opened,
        ):
            for batch in opened.iter_batches(batch_size=_CHUNK):
                # A file says it twice; what counts is what its rows are read by.
                _require_said(batch.schema, schema)
                bars = as_bars(batch).within(start_ns, end_ns)
                if len(bars):
                    yield bars
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise CatalogDamaged(
            file.path,
            f"damaged or of another version ({str(error).splitlines()[0]})",
            f"ingest all of its interval again, {iso(file.first_ns)} to {iso(file.last_ns)}",
        ) from error


def _require_said(found: pa.Schema, wanted: pa.Schema) -> None:
    """Raise ValueError where a file says of itself that it holds other bars."""
    said, expected = found.metadata or {}, wanted.metadata or {}
    for name in _SAID:
        if said.get(name) != expected.get(name):
            told, right = (metadata.get(name, b"nothing").decode(errors="replace") for metadata in (said, expected))
            raise ValueError(f"says that its {name.decode()} is {told}, where it is {right}")


def write_file(
    directory: Path,
    parts: Iterable[Bars],
    span: tuple[int, int],
    schema: pa.Schema,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write one file with the rows and the schema that NautilusTrader would write, under its name. Raises OSError.

    ``span`` is the first and the last close of all parts.
    """
    directory.mkdir(parents=True)
    name = f"{_to_name(span[0])}_{_to_name(span[1])}.parquet"
    # Prices hardly repeat in 5,000 rows: a dictionary would double the time and make the file larger.
    # Without checksums most single changed bits would be read as other prices, and nobody would know.
    options = {"use_dictionary": False, "write_page_checksum": True}
    with pyarrow.parquet.ParquetWriter(directory / name, schema, **options) as writer:
        chunks = (bars[slice(begin, begin + _CHUNK)] for bars in parts for begin in range(0, len(bars), _CHUNK))
        for batch in one_ahead(as_batch(chunk, schema) for chunk in chunks):
            writer.write_batch(batch, row_group_size=_ROW_GROUP)
            if on_progress is not None:
                on_progress(batch.num_rows)


def _to_name(ts_ns: int) -> str:
    """As NautilusTrader writes a time in the name of a file."""
    stamp = pd.Timestamp(ts_ns, unit="ns")
    return f"{stamp:%Y-%m-%dT%H-%M-%S}-{ts_ns % 10**9:09d}Z"


def _from_name(text: str) -> int:
    """NT writes 2020-09-20T00-30-00-000000000Z: a time whose colons and point became dashes."""
    date, _, clock = text.rstrip("Z").partition("T")
    hour, minute, second, nanos = clock.split("-")
    return pd.Timestamp(f"{date}T{hour}:{minute}:{second}.{nanos}", tz="UTC").value
