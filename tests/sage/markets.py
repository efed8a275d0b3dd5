"""Simulated markets in other clothes: another kind of instrument, other volumes, measured spreads."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.bars import Bars, FloatArray
from data.catalog import to_nautilus
from data.instruments import Kind, Precision, make_instrument, parse_instrument_id
from data.market import Market, synthetic_market
from data.spreads import HourlySpreads
from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.config import BacktestConfig, with_values

SYMBOLS = {
    Kind.CRYPTO: "SYNTHUSDT.SIM",
    Kind.PERPETUAL: "SYNTHUSDT-PERP.SIM",
    Kind.FX: "GBPUSD.SIM",
    Kind.EQUITY: "SYNTH.SIM",
}


def market_of(
    kind: Kind = Kind.CRYPTO,
    bars: int = 400,
    volume: FloatArray | float | None = None,
    spreads: HourlySpreads | None = None,
) -> Market:
    """A simulated market of this kind; ``volume`` replaces that of its bars."""
    plain = synthetic_market(SyntheticConfig(bars=bars, start_price=100.0))
    found = plain.bars
    if volume is not None:
        found = Bars(*found.columns()[:5], np.broadcast_to(np.asarray(volume, dtype=np.float64), bars).copy())
    precision = Precision(2, 0) if kind is Kind.EQUITY else Precision(2, 5)
    found = Bars(*found.columns()[:5], np.round(found.volume, precision.size))
    instrument = make_instrument(parse_instrument_id(SYMBOLS[kind]), kind, precision)
    return dataclasses.replace(
        plain,
        instrument=instrument,
        kind=kind,
        bars=found,
        nautilus_bars=to_nautilus(found, instrument, plain.size),
        spreads=spreads,
    )


def without_model(**costs: float | None) -> BacktestConfig:
    """A run on the indicators alone, which needs no model process, with these costs; short positions are allowed."""
    config = BacktestConfig()
    return dataclasses.replace(
        config,
        regime=dataclasses.replace(config.regime, pinned_level=Level.SMART),
        sizing=with_values(config.sizing, allow_short=True, conviction_gain=50.0),
        costs=dataclasses.replace(config.costs, **costs),  # type: ignore[arg-type]
    )
