"""Foreign files opened as plain tables: delimited text (bare, gzipped or zipped), Feather and Parquet."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from data.errors import AmbiguousSource, DataError

# What the unpackers and readers raise on damaged or cut-off files.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, pa.ArrowException, OSError, csv.Error)

MAX_TEXT_BYTES = 4 * 2**30
"""A zip member or gzip stream that unpacks to more than this is refused."""

_ZIP, _GZIP, _PARQUET, _ARROW, _FEATHER_V1 = b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"ARROW1", b"FEA1"


@dataclass(frozen=True)
class SourceTable:
    """One file as a table.

    ``frame`` holds text columns for delimited files (nothing converted yet) and typed ones otherwise; its index is
    each row's number in the file, counted from 1, with the header and blank lines counted too.
    ``has_header`` tells whether the column names come from the file. ``broken_rows`` are rows with a wrong
    number of fields: (row number, text).
    """

    path: Path
    kind: str
    frame: pd.DataFrame
    has_header: bool
    broken_rows: list[tuple[int, str]] = field(default_factory=list)


def open_table(path: Path) -> SourceTable:
    """Read ``path`` by its contents, not by its suffix.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated, no table, or cannot be read.
    AmbiguousSource
        If a zip holds several tables.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
        if not magic:
            raise DataError(f"{path}: the file is empty")
        if magic.startswith(_PARQUET):
            return _typed(path, "parquet", pyarrow.parquet.read_table(path, partitioning=None))
        if magic.startswith((_ARROW[:6], _FEATHER_V1)):
            return _typed(path, "feather", pyarrow.feather.read_table(path))
        if magic.startswith(_ZIP):
            return _text_table(path, "zip", _unzip(path))
        if magic.startswith(b"PK"):
            raise DataError(f"{path}: the zip archive is empty or damaged; fetch it again")
        if magic.startswith(_GZIP):
            with gzip.open(path) as stream:
                return _text_table(path, "gzip", _read_bounded(stream, path))
        if path.suffix.lower() in {".zip", ".gz", ".feather", ".parquet"}:
            raise DataError(f"{path}: not a {path.suffix[1:]} file, whatever its name says; fetch it again")
        return _text_table(path, "csv", path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file") from error
    except PermissionError as error:
        raise DataError(f"{path}: not readable; check its permissions") from error
    except RuntimeError as error:
        # zipfile's for a password, and (NotImplementedError) for a compression it does not know.
        raise DataError(f"{path}: not unpacked ({_first_line(error)}); unpack it by other means first") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or cut off ({_first_line(error)}); fetch it again") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _typed(path: Path, kind: str, table: pa.Table) -> SourceTable:
    frame = table.to_pandas()
    if not isinstance(frame.index, pd.RangeIndex):
        known = [name in frame.columns for name in frame.index.names]
        frame = frame.reset_index(drop=all(known), allow_duplicates=True)
    frame.columns = [str(name) for name in frame.columns]
    if frame.empty:
        raise DataError(f"{path}: the {kind} file has no rows")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return SourceTable(path, kind, frame, has_header=True)


def _read_bounded(stream: io.BufferedIOBase | gzip.GzipFile, path: Path) -> bytes:
    raw = stream.read(MAX_TEXT_BYTES + 1)
    if len(raw) > MAX_TEXT_BYTES:
        raise DataError(f"{path}: unpacks to more than {MAX_TEXT_BYTES >> 30} GiB; unpack and split it first")
    return raw


def _unzip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = [
            info
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/") and info.file_size
        ]
        tables = [info for info in members if info.filename.lower().endswith((".csv", ".txt", ".tsv"))] or members
        if not tables:
            raise DataError(f"{path}: the zip archive holds no file")
        if len(tables) > 1:
            names = ", ".join(info.filename for info in tables[:6])
            raise AmbiguousSource(f"{path}: the zip holds {len(tables)} tables ({names}); unpack the ones you mean")
        with archive.open(tables[0]) as stream:
            return _read_bounded(stream, path)  # type: ignore[arg-type]


def _text_table(path: Path, kind: str, raw: bytes) -> SourceTable:
    try:
        text_head = _decoded(raw[: 1 << 16])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: neither text nor a format known here (Feather, Parquet, zip, gzip)") from error
    encoding, head = text_head
    lines = head.splitlines()
    skipped = _preamble(lines)
    if len(lines) <= skipped:
        raise DataError(f"{path}: no rows")
    delimiter = _delimiter(lines[skipped:])
    first = next(csv.reader([lines[skipped]], delimiter=delimiter))
    has_header = not _is_data(first)
    width = len(first)
    if width < 2:
        raise DataError(f"{path}: one column only; a table of bars has a time and open, high, low, close")
    if width > 1000:
        raise DataError(f"{path}: {width} columns; a table of bars has about six")
    names = [cell.strip() for cell in first] if has_header else [str(index) for index in range(width)]
    if len(set(names)) < len(names):
        names = [f"{name}.{index}" if name in names[:index] else name for index, name in enumerate(names)]
    broken: list[tuple[int, str]] = []

    def note_broken(row: pyarrow.csv.InvalidRow) -> str:
        broken.append((row.number, row.text))
        return "skip"

    table = pyarrow.csv.read_csv(
        io.BytesIO(raw),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, skip_rows=skipped + has_header, encoding=encoding, use_threads=False
        ),
        # Blank lines are kept at first: without them the numbers of the rows behind would be wrong.
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, invalid_row_handler=note_broken, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )
    frame = table.to_pandas()
    first_row = 1 + skipped + has_header
    numbers = np.arange(first_row, first_row + len(frame) + len(broken))
    frame.index = pd.Index(np.setdiff1d(numbers, [number for number, _ in broken]))
    blank = frame[names[0]] == ""
    if bool(blank.any()):
        frame = frame[~(blank & (frame == "").all(axis=1))]
    broken = [(number, text) for number, text in broken if text.strip()]
    if len(broken) > len(frame):
        raise DataError(f"{path}: most rows do not have the {width} fields of the first one")
    if frame.empty:
        raise DataError(f"{path}: a header but no rows" if has_header else f"{path}: no rows")
    return SourceTable(path, kind, frame, has_header, broken)


def _decoded(raw: bytes) -> tuple[str, str]:
    """Encoding name and text; UTF-8 first, UTF-16 by its mark. A cut multi-byte character at the end is no error."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", codecs.getincrementaldecoder("utf-16")().decode(raw)
    if b"\x00" in raw:
        raise UnicodeDecodeError("utf-8", raw, 0, 1, "a zero byte")
    return "utf-8", codecs.getincrementaldecoder("utf-8-sig")().decode(raw)


def _preamble(lines: list[str]) -> int:
    """Lines before the table that are no part of it: blank ones, comments, a download site's address."""
    skipped = 0
    while skipped < len(lines):
        line = lines[skipped].strip()
        if line and not line.startswith(("#", "http://", "https://", "sep=")):
            break
        skipped += 1
    return skipped


def _delimiter(lines: list[str]) -> str:
    """The delimiter that cuts most of the first lines into the same, largest number of fields."""
    sample = [line for line in lines[:20] if line.strip()]

    def fields(delimiter: str) -> tuple[bool, int]:
        counts = [len(row) for row in csv.reader(sample, delimiter=delimiter)]
        return counts[0] > 1 and counts.count(counts[0]) * 2 > len(counts), counts[0]

    # The comma comes last: where it cuts as often as another one, it is a decimal comma.
    return max(("\t", ";", "|", ","), key=fields)


def _is_data(first_line: list[str]) -> bool:
    """Whether a first line holds values: most of its cells are numbers, which a header's are not ("24h_change")."""
    cells = [cell for cell in first_line if cell.strip()]
    return sum(_is_number(cell) for cell in cells) * 2 > len(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        # "2024-01-31 00:30" and "01.02.2024" are data too: no header starts like that.
        return cell.strip()[:2].isdigit()
    return True
