"""Real files as their vendors wrote them: each comes back equal, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.feather
import pytest

from data.bars import BarSize
from data.errors import DataError
from data.ingest import IngestRequest, IngestResult, ingest
from data.reading import ReadOptions
from tests.data.files import held

PRICES = ("open", "high", "low", "close")
FEATHERS = {
    f"crypto/{coin}_USDT-{size}.feather": (f"{coin}USDT.BINANCE", size)
    for coin in ("BTC", "ETH")
    for size in ("5m", "30m", "1h")
}
PAIRS = {"GBPUSD": ("fx/gbpusd-m1-{}-2012.csv", 5), "USDJPY": ("fx/usdjpy-m1-{}-2013.csv", 3)}
BROKERS = {"fx/GBPUSDh1.csv": ("GBPUSD.FX", 5), "fx/USDJPYh1.csv": ("USDJPY.FX", 3)}
OTHERS = {
    "README.md", "crypto/ADABTC-1m-2021-11-27.csv", "crypto/btc-perp-20211231-20220201_1m.csv", "equity/NDX.csv",
    "equity/spy.zip", "macro/USREC.csv", "macro/vix-daily.csv",
}  # fmt: skip


def run(source: Path, catalog: Path, instrument: str, **options: object) -> IngestResult:
    return ingest(IngestRequest([source], catalog, instrument, **options))  # type: ignore[arg-type]


def nanos(stamps: pd.Series) -> np.ndarray:
    """Times with or without a zone, as nanoseconds since the epoch."""
    utc = stamps.dt.tz_convert("UTC").dt.tz_localize(None) if stamps.dt.tz is not None else stamps
    return utc.dt.as_unit("ns").astype("int64").to_numpy()


def test_no_file_of_the_folder_is_left_out(real_data: Path) -> None:
    here = {str(path.relative_to(real_data)) for path in real_data.rglob("*") if path.is_file()}
    sides = {name.format(side) for name, _ in PAIRS.values() for side in ("bid", "ask")}
    assert here == OTHERS | set(FEATHERS) | set(BROKERS) | sides


@pytest.mark.parametrize("name", FEATHERS)
def test_freqtrade_bars_come_back_equal(name: str, real_data: Path, tmp_path: Path) -> None:
    instrument, bar = FEATHERS[name]
    result = run(real_data / name, tmp_path, instrument)
    size = BarSize.parse(bar)
    bars, source = held(tmp_path, instrument, size), pyarrow.feather.read_feather(real_data / name)
    assert (result.bar, result.bars_written, result.quality.rejected) == (bar, len(source), {})
    # The outages of the exchange; the later files have none.
    assert result.quality.gaps.count == (0 if bar == "5m" else 10)
    assert np.array_equal(bars.ts_close_ns, nanos(source["date"]) + size.nanos)
    for column in (*PRICES, "volume"):
        assert np.array_equal(getattr(bars, column), source[column].to_numpy()), column


def test_sub_cent_klines_keep_their_eight_decimals(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "crypto" / "ADABTC-1m-2021-11-27.csv"
    result = run(path, tmp_path, "ADABTC.BINANCE")
    bars, source = held(tmp_path, "ADABTC.BINANCE", BarSize(60)), pd.read_csv(path, header=None)
    assert (result.bar, result.bars_written, result.price_precision) == ("1m", 10, 8)
    assert np.array_equal(bars.ts_close_ns, 10**6 * (source[6].to_numpy() + 1))
    for position, column in enumerate((*PRICES, "volume"), 1):
        assert np.array_equal(getattr(bars, column), source[position].to_numpy()), column


def test_minutes_of_a_perpetual_are_stamped_at_their_close(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "crypto" / "btc-perp-20211231-20220201_1m.csv"
    result = run(path, tmp_path, "BTC-PERP.TEST", read=ReadOptions(stamp="close"))
    bars = held(tmp_path, "BTC-PERP.TEST", BarSize(60))
    source = pd.read_csv(path, parse_dates=["timestamp"], float_precision="round_trip")
    assert (result.bars_written, result.quality.rejected, result.quality.gaps.count) == (45_031, {}, 0)
    assert np.array_equal(bars.ts_close_ns, nanos(source["timestamp"]))
    for column in PRICES:
        assert np.array_equal(getattr(bars, column), source[column].to_numpy()), column
    # Some volumes are quotients, with more digits than an instrument has.
    assert np.array_equal(bars.volume, np.round(source["volume"].to_numpy(), result.size_precision))
    assert result.size_precision >= 6


@pytest.mark.parametrize("symbol", PAIRS)
def test_minutes_of_two_sides_come_back_as_their_middle(symbol: str, real_data: Path, tmp_path: Path) -> None:
    name, decimals = PAIRS[symbol]
    bid_path, ask_path = (real_data / name.format(side) for side in ("bid", "ask"))
    result = run(bid_path, tmp_path, f"{symbol}.FXCM", ask=[ask_path])
    bars = held(tmp_path, f"{symbol}.FXCM", BarSize(60))
    bid, ask = (pd.read_csv(path, parse_dates=["timestamp"], index_col=0) for path in (bid_path, ask_path))
    both = bid.index.intersection(ask.index)
    kept = np.isin(nanos(both.to_series()) + 60 * 10**9, bars.ts_close_ns)
    assert len(bars) == result.bars_written == kept.sum() and kept.mean() > 0.99
    # The middle of two ticks has a digit more than a tick.
    unit = 10.0 ** (decimals + 1)
    for column in PRICES:
        middle = (bid.loc[both, column] + ask.loc[both, column]).to_numpy()[kept] / 2.0
        assert np.array_equal(np.rint(getattr(bars, column) * unit), np.rint(middle * unit)), column
    assert result.spreads is not None
    by_hour = result.spreads.by_hour_of_day()
    # Widest in the hour after New York's close.
    assert np.nanargmax(by_hour) == 22 and 0.1 < np.nanmin(by_hour) < np.nanmax(by_hour) < 2.0


@pytest.mark.parametrize("name", BROKERS)
def test_hours_of_a_broker_come_back_out_of_their_points(name: str, real_data: Path, tmp_path: Path) -> None:
    instrument, decimals = BROKERS[name]
    result = run(real_data / name, tmp_path, instrument)
    hour = BarSize.parse("1h")
    bars, source = held(tmp_path, instrument, hour), pd.read_csv(real_data / name, parse_dates=["Date"])
    # The broker's clock is seven hours ahead of New York, all year round.
    opened = (source["Date"] - pd.Timedelta("7h")).dt.tz_localize(
        "America/New_York", ambiguous="NaT", nonexistent="NaT"
    )
    closes = nanos(opened.fillna(pd.Timestamp(0, tz="America/New_York"))) + hour.nanos
    kept = np.isin(closes, bars.ts_close_ns)
    assert len(bars) == result.bars_written == kept.sum() and kept.mean() > 0.99
    for column in PRICES:
        points = np.round(source[column].to_numpy()[kept])
        assert np.array_equal(np.rint(getattr(bars, column) * 10**decimals), points), column
    assert np.array_equal(bars.volume, source["tick_volume"].to_numpy()[kept])


def test_hours_of_a_broker_move_most_when_new_york_hears_of_jobs(real_data: Path, tmp_path: Path) -> None:
    run(real_data / "fx" / "USDJPYh1.csv", tmp_path, "USDJPY.FX")
    bars = held(tmp_path, "USDJPY.FX", BarSize.parse("1h"))
    begins = pd.to_datetime(bars.ts_close_ns, utc=True) - pd.Timedelta("1h")
    reach = pd.Series(bars.high - bars.low, begins.tz_convert("America/New_York"))
    # First Fridays from 2015 on, winter and summer; until late 2014 this broker's clock was another.
    days = [day for day in pd.date_range("2015-01-01", "2017-12-31", freq="W-FRI") if day.day <= 7]
    wildest = [
        of_day.idxmax().hour
        for day in days
        if len(of_day := reach[(reach.index.date == day.date()) & (reach.index.hour >= 4) & (reach.index.hour < 13)])
    ]
    assert len(wildest) > 30
    assert sum(hour == 8 for hour in wildest) > len(wildest) / 2


@pytest.mark.parametrize("read", [ReadOptions(), ReadOptions(tz="America/New_York", price_scale=1e-4)])
def test_hours_of_new_york_come_back_to_the_last_digit(read: ReadOptions, real_data: Path, tmp_path: Path) -> None:
    path = real_data / "equity" / "spy.zip"
    result = run(path, tmp_path, "SPY.ARCA", read=read)
    hour = BarSize.parse("1h")
    bars = held(tmp_path, "SPY.ARCA", hour)
    source = pd.read_csv(path, names=["time", *PRICES, "volume"])
    opened = pd.to_datetime(source["time"], format="%Y%m%d %H:%M").dt.tz_localize("America/New_York")
    assert (result.bars_written, result.quality.rejected) == (len(source), {})
    assert np.array_equal(bars.ts_close_ns, nanos(opened) + hour.nanos)
    for column in PRICES:
        assert np.array_equal(bars.__dict__[column], np.round(source[column].to_numpy() / 1e4, 4)), column
    assert np.array_equal(bars.volume, source["volume"].to_numpy())
    assert result.quality.gaps.missing_bars < 0.01 * result.bars_written


def test_closes_alone_come_back(real_data: Path, tmp_path: Path) -> None:
    run(real_data / "equity" / "NDX.csv", tmp_path, "NDX.INDEX")
    source = pd.read_csv(real_data / "equity" / "NDX.csv")
    assert held(tmp_path, "NDX.INDEX", BarSize.parse("1d")).close.tolist() == source["close"].tolist()


def test_dirt_is_rejected_by_row_and_the_rest_comes_back(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "macro" / "vix-daily.csv"
    result = run(path, tmp_path, "VIX.CBOE")
    assert result.quality.rejected == {"OHLC inconsistent": 47}
    assert result.rejected_path is not None
    lines, rejected = path.read_text().splitlines(), pd.read_csv(result.rejected_path)
    for row, fields in rejected[["row", "fields"]].itertuples(index=False):
        assert fields == lines[row - 1]
    source = pd.read_csv(path).drop(index=rejected["row"] - 2)
    bars = held(tmp_path, "VIX.CBOE", BarSize.parse("1d"))
    for column in PRICES:
        assert getattr(bars, column).tolist() == source[column.upper()].tolist(), column


def test_recessions_are_no_bars_and_refused(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no open column among 'date', 'value'"):
        run(real_data / "macro" / "USREC.csv", tmp_path, "USREC.MACRO")
