"""Bars in NautilusTrader's own files, without an object for each value: the same bytes, and every digit back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar
from nautilus_trader.serialization.arrow.serializer import ArrowSerializer

from data.bars import Bars
from data.catalog import bar_type, to_nautilus
from data.fixed import as_bars, as_batch, schema_of
from tests.data.files import HALF_HOUR, instrument


def drawn(price: int, size: int, seed: int, count: int = 200) -> Bars:
    """Bars of all magnitudes that so many decimals let be told apart."""
    rng = np.random.default_rng(seed)
    low = np.round(10.0 ** rng.uniform(-price, 12 - price, count) + 10.0**-price, price)
    high = np.round(low * rng.uniform(1.0, 2.0, count), price)
    volume = np.round(10.0 ** rng.uniform(-size, 12 - size, count), size)
    ts = 1_600_000_000 * 10**9 + HALF_HOUR.nanos * np.arange(count, dtype=np.int64)
    return Bars(ts, low, high, low, high, volume)


@given(st.integers(0, 12), st.integers(0, 9), st.integers(0, 10_000))
def test_the_bytes_are_those_of_nautilus_and_every_digit_comes_back(price: int, size: int, seed: int) -> None:
    held, bars = instrument(price=price, size=size), drawn(price, size, seed)
    schema = schema_of(bar_type(held, HALF_HOUR), price, size)
    batch = as_batch(bars, schema)
    theirs = ArrowSerializer.serialize_batch(to_nautilus(bars, held, HALF_HOUR), Bar)
    assert pa.Table.from_batches([batch]).equals(pa.table(theirs), check_metadata=True)
    assert as_bars(batch).sha256() == bars.sha256()
    assert as_bars(batch.slice(50, 20)).sha256() == bars[slice(50, 70)].sha256()


@pytest.mark.parametrize("value", [-1.0, 1e17])
def test_what_cannot_be_held_is_an_error_and_no_other_number(value: float) -> None:
    bars = drawn(2, 3, 0)
    schema = schema_of(bar_type(instrument(), HALF_HOUR), 2, 3)
    with pytest.raises(OverflowError):
        as_batch(Bars(bars.ts_close_ns, *(np.full(len(bars), value) for _ in range(5))), schema)


def test_no_rows_are_no_bars() -> None:
    schema = schema_of(bar_type(instrument(), HALF_HOUR), 2, 3)
    assert len(as_bars(schema.empty_table())) == 0
    assert isinstance(as_batch(drawn(2, 3, 0)[slice(0, 0)], schema), pa.RecordBatch)
