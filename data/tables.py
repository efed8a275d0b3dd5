"""Foreign files opened as plain tables: delimited text (bare, gzipped or zipped), Feather and Parquet."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
from numpy.typing import NDArray

from data.ahead import one_ahead
from data.batches import (
    BOMB_BYTES,
    BOMB_RATIO,
    Shared,
    arrow_batches,
    old_feather_batches,
    parquet_batches,
    stream_batches,
)
from data.errors import AmbiguousSource, DataError

# What the unpackers and readers raise on damaged or cut-off files.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, pa.ArrowException, OSError, csv.Error, UnicodeError,
)  # fmt: skip
# And what pandas raises on a description of its own columns that is damaged.
_DAMAGE_TOLD = (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError)

_BLOCK_BYTES = 2 * 2**20
"""How much of a file is looked at at once; no line may be longer. Arrow reads some thirty of them ahead."""
_HEAD_BYTES = 1 << 16

_ARROW_STREAM = b"\xff\xff\xff\xff"
_ZIP, _GZIP, _PARQUET, _ARROW, _FEATHER_V1 = b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"ARROW1", b"FEA1"


@dataclass(frozen=True)
class SourceTable:
    """Some rows of a file, as a table.

    ``frame`` holds text columns for delimited files (nothing converted yet) and typed ones otherwise; its index is
    each row's number in the file, counted from 1, with the header and blank lines counted too.
    ``has_header`` tells whether the column names come from the file. ``broken_rows`` are rows with a wrong
    number of fields: (row number, text). ``metadata`` is what a typed file says of itself, ``typed`` the file as it is.
    ``share`` is how much of the file has been read by now, from 0 to 1.
    """

    path: Path
    kind: str
    frame: pd.DataFrame
    has_header: bool
    broken_rows: list[tuple[int, str]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    typed: pa.Table | None = None
    share: float = 1.0


def open_tables(path: Path) -> Generator[SourceTable]:
    """Read ``path`` by its contents, not by its suffix, some thousand rows at a time.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated, no table, no regular file, or cannot be read.
    AmbiguousSource
        If a zip holds several tables.
    """
    try:
        empty = True
        for table in one_ahead(_tables(path)):
            empty = False
            yield table
        if empty:
            raise DataError(f"{path}: no rows")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file") from error
    except PermissionError as error:
        raise DataError(f"{path}: not readable; check its permissions") from error
    except RuntimeError as error:
        # zipfile's for a password, and (NotImplementedError) for a compression it does not know.
        raise DataError(f"{path}: not unpacked ({_first_line(error)}); unpack it by other means first") from error
    except _DAMAGE as error:
        if "straddling object" in str(error):
            raise DataError(
                f"{path}: a line is longer than {_BLOCK_BYTES >> 20} MiB; a line of bars has about a hundred bytes"
            ) from error
        raise DataError(f"{path}: damaged or cut off ({_first_line(error)}); fetch it again") from error


def _tables(path: Path) -> Iterator[SourceTable]:
    if not stat.S_ISREG(path.stat().st_mode):
        # What is read is opened more than once, and a pipe has its rows for the first time alone.
        raise DataError(f"{path}: a pipe or a device, not a regular file; save what it holds to a file first")
    with path.open("rb") as stream:
        magic = stream.read(8)
    if not magic:
        raise DataError(f"{path}: the file is empty")
    if magic.startswith(_PARQUET):
        yield from _typed(path, "parquet", parquet_batches(path))
    elif magic.startswith(_ARROW[:6]):
        yield from _typed(path, "feather", arrow_batches(path))
    elif magic.startswith(_FEATHER_V1):
        yield from _typed(path, "feather", old_feather_batches(path))
    elif magic.startswith(_ARROW_STREAM):
        yield from _typed(path, "arrow", stream_batches(path))
    elif magic.startswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            info = _only_table(path, archive)
            limit = max(BOMB_BYTES, BOMB_RATIO * info.compress_size)
            yield from _text_tables(path, "zip", lambda: archive.open(info), limit, info.file_size)
    elif magic.startswith(b"PK"):
        raise DataError(f"{path}: the zip archive is empty or damaged; fetch it again")
    elif magic.startswith(_GZIP):
        limit = max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)
        # How much it will be is not told; most tables of bars shrink to a fifth or so.
        yield from _text_tables(path, "gzip", lambda: gzip.open(path), limit, 5 * path.stat().st_size)  # noqa: SIM115
    elif path.suffix.lower() in {".zip", ".gz", ".feather", ".parquet", ".arrow", ".arrows", ".ipc"}:
        raise DataError(f"{path}: not a {path.suffix[1:]} file, whatever its name says; fetch it again")
    else:
        yield from _text_tables(path, "csv", lambda: path.open("rb"), None, path.stat().st_size)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _typed(path: Path, kind: str, batches: Iterator[Shared]) -> Iterator[SourceTable]:
    row = 1
    for batch, share in batches:
        table = pa.Table.from_batches([batch])
        try:
            frame = _as_frame(table)
        except _DAMAGE_TOLD as error:
            raise DataError(f"{path}: damaged or cut off ({_first_line(error)}); fetch it again") from error
        frame.index = pd.RangeIndex(row, row + len(frame))
        row += len(frame)
        told = (batch.schema.metadata or {}).items()
        metadata = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in told}
        yield SourceTable(path, kind, frame, has_header=True, metadata=metadata, typed=table, share=share)
    if row == 1:
        raise DataError(f"{path}: the {kind} file has no rows")


def _as_frame(table: pa.Table) -> pd.DataFrame:
    """As pandas wrote it, and its index, where it has one, as a column."""
    frame: pd.DataFrame = table.to_pandas()
    if not isinstance(frame.index, pd.RangeIndex):
        known = [name in frame.columns for name in frame.index.names]
        frame = frame.reset_index(drop=all(known), allow_duplicates=True)
    frame.columns = [str(name) for name in frame.columns]
    return frame


_BROKEN_LETTERS = 10_000
"""No more of a row with another number of fields is kept."""


class _Counted(io.RawIOBase):
    """What is read or unpacked, up to a limit in bytes; of UTF-8 what is none is replaced by its replacement character.

    Somewhere in a long file is a letter of another encoding: the row that has it can be told, and the others are sound.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int | None, path: Path, encoding: str) -> None:
        self._stream, self._limit, self._path, self._done = stream, limit, path, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if encoding == "utf-8" else None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(_BLOCK_BYTES if size < 0 else size)
        self._done += len(found)
        if self._limit is not None and self._done > self._limit:
            raise DataError(
                f"{self._path}: unpacks to more than {self._limit:,} bytes, as no table of bars of its size does: a "
                "bomb, refused"
            )
        if self._decoder is None or (found.isascii() and not self._decoder.getstate()[0]):
            return found
        mended = self._decoder.decode(found, final=not found).encode()
        return mended if mended or not found else self.read(size)


def _only_table(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/") and info.file_size
    ]
    for info in members:
        if info.filename.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", info.filename):
            raise DataError(f"{path}: holds {info.filename!r}, a path that leads out of the archive; refused")
    tables = [info for info in members if info.filename.lower().endswith((".csv", ".txt", ".tsv"))] or members
    if not tables:
        raise DataError(f"{path}: the zip archive holds no file")
    if len(tables) > 1:
        names = ", ".join(info.filename for info in tables[:6])
        raise AmbiguousSource(f"{path}: the zip holds {len(tables)} tables ({names}); unpack the ones you mean")
    info = tables[0]
    if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
        raise DataError(
            f"{path}: unpacks to {info.file_size:,} bytes from {info.compress_size:,}, as no table of bars does: a zip "
            "bomb, refused"
        )
    return info


@dataclass(frozen=True)
class _Text:
    """What the beginning of a text tells of the whole."""

    encoding: str
    delimiter: str
    skipped: int
    names: list[str]
    has_header: bool


def _text_tables(
    path: Path, kind: str, opened: Callable[[], IO[bytes] | gzip.GzipFile], limit: int | None, total: int
) -> Iterator[SourceTable]:
    """``total`` is about how many bytes there will be."""
    with opened() as stream:
        form = _form_of(path, stream.read(_HEAD_BYTES))
    with opened() as stream:
        yield from _rows(path, kind, form, _Counted(stream, limit, path, form.encoding), total)


def _form_of(path: Path, raw: bytes) -> _Text:
    try:
        encoding, head = _decoded(raw)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: neither text nor a format known here (Feather, Parquet, zip, gzip)") from error
    lines = head.splitlines()
    skipped = _preamble(lines)
    if len(lines) <= skipped:
        raise DataError(f"{path}: no rows")
    if len(lines) == skipped + 1 and len(raw) == _HEAD_BYTES:
        raise DataError(
            f"{path}: its first line has more than {_HEAD_BYTES >> 10} KiB; a table of bars has about six columns"
        )
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
    return _Text(encoding, delimiter, skipped, names, has_header)


def _rows(path: Path, kind: str, form: _Text, stream: _Counted, total: int) -> Iterator[SourceTable]:
    noted: list[tuple[int, str]] = []

    def note_broken(row: pyarrow.csv.InvalidRow) -> str:
        noted.append((row.number, row.text[:_BROKEN_LETTERS]))
        return "skip"

    reader = pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(
            column_names=form.names, skip_rows=form.skipped + form.has_header, encoding=form.encoding,
            use_threads=False, block_size=_BLOCK_BYTES,
        ),
        # Blank lines are kept at first: without them the numbers of the rows behind would be wrong.
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=form.delimiter, invalid_row_handler=note_broken, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in form.names}, strings_can_be_null=False
        ),
    )  # fmt: skip
    row, rows, lost, letters = 1 + form.skipped + form.has_header, 0, 0, 0
    for batch in reader:
        # What was read of the stream is some blocks ahead of this.
        letters += sum(pa.compute.sum(pa.compute.binary_length(column)).as_py() or 0 for column in batch.columns)
        letters += batch.num_rows * batch.num_columns
        # Texts stay as Arrow holds them: an object for each would take most of the time.
        frame = batch.to_pandas(types_mapper={pa.string(): pd.ArrowDtype(pa.string())}.get)
        numbers, row = _numbered(row, len(frame), [number for number, _ in noted])
        frame.index = pd.Index(numbers)
        broken = [(number, text) for number, text in noted if number < row]
        del noted[: len(broken)]
        blank = frame[form.names[0]] == ""
        if bool(blank.any()):
            frame = frame[~(blank & (frame == "").all(axis=1))]
        broken = [(number, text) for number, text in broken if text.strip()]
        rows, lost = rows + len(frame), lost + len(broken)
        if lost > rows:
            raise DataError(f"{path}: most rows do not have the {len(form.names)} fields of the first one")
        if len(frame) or broken:
            share = min(1.0, letters / max(1, total))
            yield SourceTable(path, kind, frame, form.has_header, broken, share=share)
    if not rows:
        if noted:
            raise DataError(f"{path}: most rows do not have the {len(form.names)} fields of the first one")
        raise DataError(f"{path}: a header but no rows" if form.has_header else f"{path}: no rows")


def _numbered(first: int, count: int, broken: list[int]) -> tuple[NDArray[np.int64], int]:
    """Numbers of so many rows from the first one on, broken ones left out; and the number of the row behind them."""
    within: list[int] = []
    while len(more := [number for number in broken if first <= number < first + count + len(within)]) > len(within):
        within = more
    stop = first + count + len(within)
    numbers = np.setdiff1d(np.arange(first, stop, dtype=np.int64), within, assume_unique=True)
    further = set(broken)
    while stop in further:
        stop += 1
    return numbers, stop


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
