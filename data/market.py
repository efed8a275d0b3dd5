"""What a run trades on: bars with their instrument, wherever they come from.

Three sources, none of which needs a network: the simulated market, the S&P 500 history that the ``arch`` package
ships, and a catalog.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.persistence.funcs import urisafe_identifier
from numpy.typing import NDArray

from data.bars import Bars, BarSize, iso
from data.catalog import BarCatalog, bar_type, rounded, to_nautilus
from data.definitions import no_definition, undefined
from data.errors import CatalogError, OptionError
from data.instruments import Kind, Precision, kind_of, make_instrument, parse_instrument_id
from data.spreads import HourlySpreads
from data.synthetic import SyntheticConfig, simulate


@dataclass(frozen=True)
class Labels:
    """True regimes, one name per bar; known only for simulated markets."""

    direction: NDArray[np.str_]
    volatility: NDArray[np.str_]


@dataclass(frozen=True)
class Market:
    """Bars of one instrument, as arrays and as NT objects.

    ``description`` names the source for people; ``labels`` are the true regimes where they are known, ``spreads`` what
    was measured where bid and ask are.
    """

    description: str
    instrument: Instrument
    kind: Kind
    size: BarSize
    bars: Bars
    nautilus_bars: list[Bar]
    labels: Labels | None = None
    spreads: HourlySpreads | None = None

    @property
    def bar_type(self) -> BarType:
        """NT's bar type of these bars."""
        return bar_type(self.instrument, self.size)

    def part(self, first: int, stop: int) -> Market:
        """The market of the bars from one row up to another, that one not included."""
        rows = slice(first, stop)
        labels = self.labels
        if labels is not None:
            labels = Labels(labels.direction[rows], labels.volatility[rows])
        return dataclasses.replace(self, bars=self.bars[rows], nautilus_bars=self.nautilus_bars[rows], labels=labels)


def synthetic_market(config: SyntheticConfig) -> Market:
    """The simulated regime-switching market, with its labels."""
    simulated = simulate(config)
    instrument = make_instrument(
        parse_instrument_id("SYNTHUSDT.SIM"), Kind.CRYPTO, Precision(config.price_decimals, config.volume_decimals)
    )
    size = BarSize(config.bar_seconds)
    return Market(
        description=f"simulated regime-switching market, seed {config.seed}",
        instrument=instrument,
        kind=Kind.CRYPTO,
        size=size,
        bars=simulated.bars,
        nautilus_bars=to_nautilus(simulated.bars, instrument, size),
        labels=Labels(simulated.direction, simulated.volatility),
    )


def sp500_market() -> Market:
    """S&P 500 daily bars, 1999 to 2018, from the ``arch`` package; the index, as if it could be traded."""
    from arch.data import sp500

    frame = sp500.load()
    stamps = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
    size = BarSize.parse("1d")
    opened, high, low, close, volume = (
        frame[name].to_numpy(dtype=np.float64) for name in ("Open", "High", "Low", "Close", "Volume")
    )
    # Dated by the day; the close is known by the end of it.
    bars = Bars(stamps + size.nanos, opened, high, low, close, volume)
    instrument = make_instrument(parse_instrument_id("SPX.INDEX"), Kind.EQUITY, Precision(2, 0))
    bars = rounded(bars, instrument)
    return Market("S&P 500 daily, from the arch package", instrument, Kind.EQUITY, size, bars,
                  to_nautilus(bars, instrument, size))  # fmt: skip


def catalog_market(
    root: Path, instrument_id: str, bar: str | None, start: str | None = None, end: str | None = None
) -> Market:
    """Bars out of a catalog, closes within [start, end] (dates or times, UTC).

    Raises
    ------
    CatalogError
        If the catalog has no such instrument or bars; the message lists what it has.
    """
    catalog = BarCatalog(root)
    # NautilusTrader's own AUD/USD.SIM lies in folders of that name without the stroke.
    instrument = catalog.instrument(str(parse_instrument_id(urisafe_identifier(instrument_id))))
    if instrument is None:
        name = urisafe_identifier(instrument_id)
        for folder in undefined(root).get(name, ()):
            raise no_definition(name, folder)
        held = ", ".join(catalog.instruments([])) or "nothing"
        raise CatalogError(f"{root}: no instrument {instrument_id}; the catalog holds {held}")
    sizes = catalog.bar_sizes(instrument_id)
    size = BarSize.parse(bar) if bar is not None else _only_size(root, instrument_id, sizes)
    start_ns, end_ns = parse_span(start, end)
    bars = catalog.bars(instrument, size, start_ns, end_ns)
    if not len(bars):
        held = ", ".join(sizes) or "none"
        span = f" between {start or 'the first'} and {end or 'the last'}" if start or end else ""
        raise CatalogError(f"{root}: no {size} bars of {instrument_id}{span}; bar types held: {held}")
    if bool((np.diff(bars.ts_close_ns) <= 0).any()):
        where = iso(int(bars.ts_close_ns[1:][np.diff(bars.ts_close_ns) <= 0][0]))
        raise CatalogError(f"{root}: bars of {instrument_id} overlap at {where}; ingest them again")
    return Market(
        description=f"{instrument_id} {size} from {root.name}",
        instrument=instrument,
        kind=kind_of(instrument),
        size=size,
        bars=bars,
        # Not by NautilusTrader's own reader: it verifies no checksums, and a damaged file ends the process.
        nautilus_bars=to_nautilus(bars, instrument, size),
        spreads=catalog.spreads(instrument, size),
    )


def parse_span(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """First and last time in ns. Raises OptionError for what is no date or time, and for a span that is none."""
    start_ns, end_ns = _time(start, "--start", end=False), _time(end, "--end", end=True)
    if start_ns is not None and end_ns is not None and start_ns > end_ns:
        raise OptionError(f"the start, {start}, lies after the end, {end}")
    return start_ns, end_ns


def _only_size(root: Path, instrument_id: str, sizes: list[str]) -> BarSize:
    if len(sizes) != 1:
        held = ", ".join(sizes) or "none"
        raise OptionError(f"{root}: say which bars of {instrument_id} with --bar; held: {held}")
    size = BarSize.from_nautilus(sizes[0])
    if size is None:
        raise OptionError(f"{root}: bars of {instrument_id} are {sizes[0]}, which are not of time")
    return size


def _time(text: str | None, option: str, *, end: bool) -> int | None:
    """A date means its first bar for a start, and everything up to its last moment for an end."""
    if text is None:
        return None
    try:
        stamp = pd.Timestamp(text)
        if not pd.isna(stamp):
            stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
            if end and len(text.strip()) <= 10:
                stamp += pd.Timedelta(days=1)
            stamp = stamp.as_unit("ns")
    except ValueError as error:
        raise OptionError(f"{option} {text!r} is no date; write 2024-01-31 or 2024-01-31T12:00") from error
    if pd.isna(stamp):
        raise OptionError(f"{option} {text!r} is no date; write 2024-01-31 or 2024-01-31T12:00")
    return stamp.value
