"""Bars as NautilusTrader's Parquet files hold them, to and from arrays without an object for each value.

A price is a whole number of ten to the minus sixteenth (128-bit builds) or minus ninth (64-bit builds), little-endian.
The schema is asked of the NautilusTrader that is installed, so that files are always its own.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.serialization.arrow.serializer import ArrowSerializer

from data.bars import Bars, FloatArray

FIXED_DECIMALS = {16: 16, 8: 9}
"""Decimals of a value, by its bytes."""

_PRICES = ("open", "high", "low", "close")
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
STEPS_MAX = 9.2e18
"""No value may be more steps of its last decimal, which are counted in 64 bits."""


@lru_cache(maxsize=16)
def schema_of(bar_type: BarType, price_decimals: int, size_decimals: int) -> pa.Schema:
    """The schema of a file of such bars, with what the file says of itself."""
    price, size = Price(1.0, price_decimals), Quantity(1.0, size_decimals)
    return ArrowSerializer.serialize_batch([Bar(bar_type, price, price, price, price, size, 0, 0)], Bar).schema


def as_batch(bars: Bars, schema: pa.Schema) -> pa.RecordBatch:
    """Bars as rows of such a file; ``ts_event`` and ``ts_init`` are both the close. Values are rounded to the decimals.

    Raises
    ------
    OverflowError
        For a value that is negative or too large to be held.
    """
    decimals = _decimals(schema)
    assert not len(bars) or bars.ts_close_ns.min() >= 0, "bars that close before 1970"
    columns = {
        **{name: _encoded(getattr(bars, name), decimals[name], schema.field(name).type) for name in decimals},
        **dict.fromkeys(("ts_event", "ts_init"), pa.array(bars.ts_close_ns.astype(np.uint64))),
    }
    return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def as_bars(rows: pa.RecordBatch | pa.Table) -> Bars:
    """Rows of such a file as bars, each value the float64 nearest to its decimal."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    decimals = _decimals(table.schema)
    closes = table.column("ts_init").to_numpy().astype(np.int64)
    values = [decoded(table.column(name), decimals[name]) for name in (*_PRICES, "volume")]
    return Bars(closes, *values)


def decoded(column: pa.ChunkedArray, decimals: int) -> FloatArray:
    """Raw fixed-point values as the nearest float64. Raises ValueError for a form that is not known."""
    array = column.combine_chunks()
    if pa.types.is_int64(array.type):
        return np.asarray(np.round(array.to_numpy() / 10.0 ** FIXED_DECIMALS[8], decimals))
    width = array.type.byte_width if pa.types.is_fixed_size_binary(array.type) else 0
    if not is_known(array.type):
        raise ValueError(f"values of the type {array.type}, as no known version of NautilusTrader writes them")
    rows = slice(array.offset * width, (array.offset + len(array)) * width)
    content = np.frombuffer(array.buffers()[1], dtype=np.uint8)[rows]
    if width == 8:
        raw = content.view("<i8").astype(np.float64)
    else:
        halves = content.view([("low", "<u8"), ("high", "<i8")])
        raw = halves["high"].astype(np.float64) * 2.0**64 + halves["low"].astype(np.float64)
    return np.asarray(np.round(raw / 10.0 ** FIXED_DECIMALS[width], decimals))


def is_known(kind: pa.DataType) -> bool:
    """Whether values of this type can be decoded."""
    return pa.types.is_int64(kind) or (pa.types.is_fixed_size_binary(kind) and kind.byte_width in FIXED_DECIMALS)


def _decimals(schema: pa.Schema) -> dict[str, int]:
    told = schema.metadata
    return {**dict.fromkeys(_PRICES, int(told[b"price_precision"])), "volume": int(told[b"size_precision"])}


def _encoded(values: FloatArray, decimals: int, kind: pa.DataType) -> pa.Array:
    scaled = np.rint(values * 10.0**decimals)
    if not bool(((scaled >= 0.0) & (scaled < STEPS_MAX)).all()):
        raise OverflowError(f"{values[~((scaled >= 0.0) & (scaled < STEPS_MAX))][0]:g} with {decimals} decimals")
    whole = scaled.astype(np.uint64)
    factor = np.uint64(10 ** (FIXED_DECIMALS[kind.byte_width] - decimals))
    if kind.byte_width == 8:
        return _binary((whole * factor).astype("<u8"), kind)
    # The product has up to 117 bits: its upper half from products of 32 bits each.
    low, high = whole & _LOW_32, whole >> _32
    factor_low, factor_high = factor & _LOW_32, factor >> _32
    low_low, low_high, high_low = low * factor_low, low * factor_high, high * factor_low
    middle = (low_low >> _32) + (low_high & _LOW_32) + (high_low & _LOW_32)
    halves = np.empty((len(values), 2), dtype="<u8")
    halves[:, 0] = whole * factor
    halves[:, 1] = high * factor_high + (low_high >> _32) + (high_low >> _32) + (middle >> _32)
    return _binary(halves, kind)


def _binary(raw: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(raw), [None, pa.py_buffer(np.ascontiguousarray(raw))])
