"""Small files of bars, as tests need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.model.data import Bar
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from data.bars import Bars, BarSize
from data.catalog import BarCatalog, bar_type
from data.instruments import Kind, Precision, make_instrument, parse_instrument_id
from data.reading import RawBars, ReadOptions
from data.sources import read_source

HALF_HOUR = BarSize.parse("30m")
START = "2024-01-01"
START_NS = pd.Timestamp(START).value


def candles(count: int = 8, start: str = START, every: str = "30min", base: float = 100.0) -> pd.DataFrame:
    """Bars with two decimals and whole volumes, under a column ``time`` of naive opens."""
    step = np.arange(count)
    opened = np.round(base + 0.25 * step, 2)
    close = np.round(opened + 0.5, 2)
    return pd.DataFrame(
        {
            "time": pd.date_range(start, periods=count, freq=every),
            "open": opened,
            "high": close + 0.25,
            "low": opened - 0.25,
            "close": close,
            "volume": 10.0 + step,
        }
    )


def instrument(symbol: str = "BTCUSDT.TEST", price: int = 2, size: int = 3) -> Instrument:
    """A coin with so many decimals of price and size."""
    return make_instrument(parse_instrument_id(symbol), Kind.CRYPTO, Precision(price, size))


def bars(first: int = 0, count: int = 10, close: float = 100.0) -> Bars:
    """Bars that close at half hours counted from the start of 2024."""
    ts = START_NS + HALF_HOUR.nanos * np.arange(first, first + count, dtype=np.int64)
    price = close + 0.25 * np.arange(count)
    return Bars(ts, price, price + 1, price - 1, price + 0.5, np.arange(count) + 0.125)


def write_csv(path: Path, frame: pd.DataFrame | None = None) -> Path:
    """A plain CSV with a header."""
    (candles() if frame is None else frame).to_csv(path, index=False)
    return path


def write_text(path: Path, *lines: str) -> Path:
    """A text file of these lines."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def kline_lines(count: int = 8, start: str = START, *, unit: str = "ms", every: str = "30min") -> list[str]:
    """Binance klines: twelve columns without a header, epochs in ms or us."""
    frame = candles(count, start, every)
    factor = 10**6 if unit == "ms" else 10**3
    opened = frame["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64) // factor
    length = pd.Timedelta(every).value // factor
    rows = zip(opened, *(frame[name] for name in ("open", "high", "low", "close", "volume")), strict=True)
    return [
        f"{time},{o:.8f},{h:.8f},{low:.8f},{c:.8f},{v:.8f},{time + length - 1},1.0,5,0.5,0.5,0"
        for time, o, h, low, c, v in rows
    ]


def read(path: Path, **options: object) -> RawBars:
    """Read one file with these options; it is short, and comes in one part."""
    (raw,) = read_source(path, ReadOptions(**options))  # type: ignore[arg-type]
    return raw


def opens(raw: RawBars) -> list[str]:
    """The stamps of a file for people."""
    return [str(pd.Timestamp(ns)) for ns in raw.stamp_ns]


def from_nautilus(bars: list[Bar]) -> Bars:
    """Plain arrays from NautilusTrader's objects, each value the float64 nearest to its decimal."""
    times = np.fromiter((b.ts_init for b in bars), dtype=np.int64, count=len(bars))
    values = [[b.open, b.high, b.low, b.close, b.volume] for b in bars]
    # By their decimals: NautilusTrader divides a 128-bit integer, and the quotient may miss by one digit.
    return Bars(times, *np.array([[float(str(value)) for value in row] for row in values]).reshape(len(bars), 5).T)


def held(catalog: Path, instrument_id: str = "BTCUSDT.TEST", size: BarSize = HALF_HOUR) -> Bars:
    """All bars that a catalog holds of an instrument."""
    opened = BarCatalog(catalog)
    instrument = opened.instrument(instrument_id)
    assert instrument is not None
    return from_nautilus(read_by_nautilus(catalog, instrument, size))


def read_by_nautilus(
    catalog: Path, wanted: Instrument, size: BarSize, start_ns: int | None = None, end_ns: int | None = None
) -> list[Bar]:
    """Bars as NautilusTrader's own reader finds them, once what was begun in the catalog is finished."""
    BarCatalog(catalog)
    kind = str(bar_type(wanted, size))
    if not (catalog / "data" / "bar" / kind).is_dir():
        return []
    return list(ParquetDataCatalog(str(catalog.resolve())).bars([kind], start=start_ns, end=end_ns))


def tree(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and modification time of every file below a directory."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
