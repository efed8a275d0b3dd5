"""The files of a forecast store: what a part holds, and how it is written whole and read with suspicion.

A part is a Parquet file that appears under its name only when it is complete and on disk. Its pages carry
checksums, and its footer, which has none in Parquet, carries digests of both columns and of the store's key: a bit
that flips anywhere in the file either changes nothing or is noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regime.files import write_durably
from regime.forecast import QUANTILE_LEVELS

FORMAT_VERSION = 2
"""Part of every key, so that a later format never meets the files of this one."""

KEY_FILE = "key.json"
USED_FILE = "used"
LOCK_FILE = ".lock"
PART_PREFIX, PART_SUFFIX = "part-", ".parquet"
DAMAGED = ".damaged"
WINDOW_BYTES = 16


class DamagedPart(Exception):
    """A file that is not what a part of this store should be; the message says in what."""


@dataclass(frozen=True)
class StoreKey:
    """Everything but the window that a forecast depends on.

    ``engine`` names the code that computed it with its version, such as ``native-1-avx512``: engines agree to
    rounding, not to the bit. ``network`` is :attr:`~regime.model.checkpoint.Checkpoint.network`: weights alone do not
    tell how much of a context they are asked about.
    """

    checkpoint_sha256: str
    engine: str
    dtype: str
    device: str
    context_bars: int
    horizon_bars: int
    network: str = ""

    @cached_property
    def digest(self) -> str:
        """32 hex digits; the name of the key's directory."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=16).hexdigest()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one forecast: (horizon_bars, 9)."""
        return self.horizon_bars, len(QUANTILE_LEVELS)

    def to_json(self) -> str:
        """The key and the format version, for people and for :meth:`from_json`."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StoreKey:
        """The key that :meth:`to_json` wrote. Raises ValueError if the text is anything else."""
        try:
            fields = json.loads(text)
            key = cls(**{name: value for name, value in fields.items() if name != "format"})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a key of a forecast store: {error}") from error
        if key.to_json() != text:
            raise ValueError("not a key of a forecast store of this format")
        return key


@dataclass(frozen=True)
class PartFile:
    """A file as the directory lists it: its size, and when it was last written, in ns since the epoch."""

    path: Path
    size_bytes: int
    written_ns: int

    @property
    def order(self) -> tuple[int, str]:
        """Parts sort by age. Where two hold the same window the older one answers, so all must sort alike."""
        return self.written_ns, self.path.name


@dataclass(frozen=True)
class Rows:
    """What a part holds.

    ``windows`` has shape (rows,) and 16-byte items; ``quantiles`` has shape (rows, horizon_bars, 9), or is None
    where only the windows were asked for. ``digest`` is that of the windows.
    """

    windows: NDArray[np.void]
    quantiles: NDArray[np.float32] | None
    digest: str


def part_files(directory: Path) -> list[PartFile]:
    """The parts in a directory, oldest first; none where there is no directory. Raises OSError."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                named = entry.name.startswith(PART_PREFIX) and entry.name.endswith(PART_SUFFIX)
                if named and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # a prune merged or removed it since
                        state = entry.stat()
                        found.append(PartFile(Path(entry.path), state.st_size, state.st_mtime_ns))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda part: part.order)


def windows_of(keys: list[bytes]) -> NDArray[np.void]:
    """Window keys as an array, shape (rows,)."""
    return np.frombuffer(b"".join(keys), dtype=f"V{WINDOW_BYTES}")


def write_part(
    directory: Path,
    key: StoreKey,
    windows: NDArray[np.void],
    quantiles: NDArray[np.float32],
    written_ns: int | None = None,
) -> tuple[PartFile, str]:
    """Write a new part. Raises OSError, and then leaves nothing.

    Parameters
    ----------
    windows
        Shape (rows,), 16 bytes each.
    quantiles
        Shape (rows, horizon_bars, 9).
    written_ns
        The time to stamp the file with, if not the present.

    Returns
    -------
    The part, and the digest of its windows.
    """
    values = np.ascontiguousarray(quantiles, dtype="<f4")
    digest = _digest(windows)
    footer = {"sage.key": key.digest, "sage.windows": digest, "sage.quantiles": _digest(values)}
    schema = _schema(key)
    columns = [
        pa.Array.from_buffers(field.type, len(windows), [None, pa.py_buffer(column)])
        for field, column in zip(schema, (windows, values), strict=True)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema.with_metadata(footer)),
        sink,
        row_group_size=len(windows),
        compression="none",  # digests and float noise: compression costs time and saves nothing
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    path = directory / f"{PART_PREFIX}{uuid.uuid4().hex}{PART_SUFFIX}"
    write_durably(path, sink.getvalue(), written_ns)
    state = path.stat()
    return PartFile(path, state.st_size, state.st_mtime_ns), digest


def read_part(path: Path, key: StoreKey, *, with_quantiles: bool) -> Rows:
    """Read a part and verify all that is read.

    Raises
    ------
    DamagedPart
        If it is not a whole part of this key.
    OSError
        If the file system does not hand it out: FileNotFoundError where a prune was quicker.
    """
    with pa.OSFile(str(path)) as source:
        try:
            return _verified(source, key, with_quantiles)
        except DamagedPart:
            raise
        except Exception as error:
            # Arrow raises whatever its layers do on bytes that make no sense: ValueError, OSError, MemoryError.
            raise DamagedPart((str(error).splitlines() or [type(error).__name__])[0]) from error


def count_rows(path: Path) -> int:
    """Rows of a part by its footer alone. Raises as :func:`read_part` does."""
    with pa.OSFile(str(path)) as source:
        try:
            rows = int(pq.read_metadata(source).num_rows)
        except Exception as error:
            raise DamagedPart((str(error).splitlines() or [type(error).__name__])[0]) from error
        if not 0 < rows * WINDOW_BYTES <= source.size():
            raise DamagedPart(f"{rows} rows cannot be in {source.size()} bytes")
        return rows


def _verified(source: pa.OSFile, key: StoreKey, with_quantiles: bool) -> Rows:
    file = pq.ParquetFile(source, page_checksum_verification=True)
    footer = {name.decode(errors="replace"): value for name, value in (file.metadata.metadata or {}).items()}
    if footer.get("sage.key") != key.digest.encode():
        raise DamagedPart("its forecasts are of another model, engine or shape")
    schema = _schema(key)
    if not file.schema_arrow.equals(schema):
        raise DamagedPart("its columns are not window and quantiles in the expected form")
    rows, row_bytes = file.metadata.num_rows, sum(field.type.byte_width for field in schema)
    if not 0 < rows * row_bytes <= source.size():
        raise DamagedPart(f"{rows} rows cannot be in {source.size()} bytes")
    table = file.read(columns=schema.names if with_quantiles else ["window"], use_threads=False)
    windows = _column(table, "window", rows).view(f"V{WINDOW_BYTES}").reshape(rows)
    digest = _digest(windows)
    if footer.get("sage.windows") != digest.encode():
        raise DamagedPart("its windows are not those that were written")
    if not with_quantiles:
        return Rows(windows, None, digest)
    quantiles = _column(table, "quantiles", rows).view("<f4").reshape(rows, *key.shape)
    if footer.get("sage.quantiles") != _digest(quantiles).encode():
        raise DamagedPart("its quantiles are not those that were written")
    return Rows(windows, quantiles, digest)


def _column(table: pa.Table, name: str, rows: int) -> NDArray[np.uint8]:
    """The bytes of a fixed-size column, shape (rows, width), as they lie in Arrow's memory."""
    column = table.column(name).combine_chunks()
    if len(column) != rows or column.null_count:
        raise DamagedPart(f"column {name} has {len(column)} rows of {rows}, {column.null_count} without value")
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], dtype=np.uint8, count=rows * width, offset=column.offset * width)
    return raw.reshape(rows, width)


def _schema(key: StoreKey) -> pa.Schema:
    entry_bytes = 4 * key.shape[0] * key.shape[1]
    return pa.schema(
        [
            pa.field("window", pa.binary(WINDOW_BYTES), nullable=False),
            pa.field("quantiles", pa.binary(entry_bytes), nullable=False),
        ]
    )


def _digest(values: NDArray[np.void] | NDArray[np.float32]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that nobody reads it again; it stays for whoever wants to know. Raises OSError."""
    for number in itertools.count():
        target = path.with_name(f"{path.name}{DAMAGED}{f'-{number}' if number else ''}")
        if not target.exists():
            break
    os.replace(path, target)
    return target


@contextmanager
def locked(root: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a store: writers share it, a prune has it alone for a moment, readers do not ask. Raises OSError.

    While a prune holds it nobody is writing, so each temporary file belongs to a dead process. The lock goes with
    the process, however it ends.
    """
    with (root / LOCK_FILE).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
