"""Arrow and Parquet files as batches of rows: none larger than some, and none that points outside of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

from data.errors import DataError

BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 100
"""What unpacks to more than both that many bytes and that many times its size is no table of bars."""

CHUNK_ROWS = 200_000
_CHUNK_BYTES = 128 * 2**20
_VALUE_BYTES = 16
"""Of a number or a time; no more."""

Shared = tuple[pa.RecordBatch, float]
"""Rows, and how much of the file has been read with them, from 0 to 1."""


def parquet_batches(path: Path) -> Iterator[Shared]:
    """Rows of a Parquet file, without columns of lists and the like.

    A text that repeats is kept once in the file, so that what a batch will unpack to is not told by the file's size:
    texts are read as it keeps them, and unpacked once it is known how much that is.

    Raises
    ------
    DataError
        If it unpacks to more than a table of bars does.
    pyarrow.ArrowException, OSError
        If it is damaged.
    """
    with pyarrow.parquet.ParquetFile(path) as file:
        schema, told = file.schema_arrow, file.metadata
    unpacked = sum(told.row_group(index).total_byte_size for index in range(told.num_row_groups))
    if unpacked > max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size):
        raise DataError(f"{path}: unpacks to {unpacked:,} bytes, as no table of bars of its size does: a bomb, refused")
    texts = [field.name for field in schema if _is_text(field.type)]
    columns = [field.name for field in schema if not _is_large(field.type)]
    count = _rows_of(len(columns))
    with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts) as file:
        batches = file.iter_batches(batch_size=count, columns=columns)
        shared = ((batch, number * count / max(1, told.num_rows)) for number, batch in enumerate(batches, start=1))
        yield from _bounded(path, ((_in_full(path, batch, texts), share) for batch, share in shared))


def arrow_batches(path: Path) -> Iterator[Shared]:
    """Rows of an Arrow file, which is what Feather is. Raises as :func:`parquet_batches` does."""
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
        count = file.num_record_batches
        yield from _bounded(path, ((file.get_batch(index), (index + 1) / count) for index in range(count)))


def stream_batches(path: Path) -> Iterator[Shared]:
    """Rows of an Arrow stream. Raises as :func:`parquet_batches` does."""
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
        yield from _bounded(path, ((batch, 1.0) for batch in reader))


def old_feather_batches(path: Path) -> Iterator[Shared]:
    """Rows of Feather's first version. Raises as :func:`parquet_batches` does."""
    yield from _bounded(path, ((batch, 1.0) for batch in pyarrow.feather.read_table(path).to_batches()))


def _bounded(path: Path, batches: Iterable[Shared]) -> Iterator[Shared]:
    """Batches in parts of so many rows as may be in memory.

    Some writers make one batch of it all. Of an Arrow file that is packed, a batch is unpacked as a whole, and nothing
    tells beforehand how large it gets: such a one is in memory once.
    """
    for batch, share in batches:
        # What points outside of itself would end the process.
        batch.validate(full=True)
        count = _rows_of(batch.num_columns)
        for begin in range(0, batch.num_rows, count):
            part = batch.slice(begin, count)
            _require_small(path, part.nbytes, part.num_rows)
            yield part, min(1.0, share)


def _in_full(path: Path, batch: pa.RecordBatch, texts: list[str]) -> pa.RecordBatch:
    """A batch with texts in the place of references to them."""
    found = [index for index, name in enumerate(batch.schema.names) if name in texts]
    size = 0
    for index in found:
        column = batch.column(index)
        lengths = pyarrow.compute.binary_length(column.dictionary)
        size += pyarrow.compute.sum(pyarrow.compute.take(lengths, column.indices)).as_py() or 0
    _require_small(path, size, batch.num_rows)
    for index in found:
        batch = batch.set_column(index, batch.schema.names[index], batch.column(index).dictionary_decode())
    return batch


def _require_small(path: Path, size: int, rows: int) -> None:
    if size > _CHUNK_BYTES:
        raise DataError(f"{path}: rows of {size // rows:,} bytes; a row of bars has about a hundred")


def _rows_of(columns: int) -> int:
    """So many rows of so many columns at once."""
    return max(1, min(CHUNK_ROWS, _CHUNK_BYTES // (_VALUE_BYTES * max(1, columns))))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _is_large(kind: pa.DataType) -> bool:
    """Whether a value may be of any size without being a text: no bar is told by it."""
    return bool(pa.types.is_nested(kind) or (pa.types.is_fixed_size_binary(kind) and kind.byte_width > _VALUE_BYTES))
