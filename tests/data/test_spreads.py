"""Bid and ask: the mid prices between them, and the spread by the hour."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import catalog, journal
from data.catalog import BarCatalog
from data.errors import CatalogError, DataError
from data.ingest import IngestRequest, IngestResult, ingest
from data.market import catalog_market
from data.spreads import HourlySpreads, hour_of
from tests.data.files import bars, candles, held, write_csv

PRICES = ["open", "high", "low", "close"]


def sides(folder: Path, count: int = 8, start: str = "2024-01-01", spread: float = 0.5) -> tuple[Path, Path]:
    bid = candles(count, start)
    ask = bid.assign(**{name: bid[name] + spread for name in PRICES})
    return write_csv(folder / f"bid-{start}.csv", bid), write_csv(folder / f"ask-{start}.csv", ask)


def run(bid: Path, ask: Path, catalog: Path, **options: object) -> IngestResult:
    return ingest(IngestRequest([bid], catalog, "BTCUSDT.TEST", ask=[ask], **options))  # type: ignore[arg-type]


def spreads_of(catalog: Path) -> HourlySpreads:
    found = catalog_market(catalog, "BTCUSDT.TEST", "30m").spreads
    assert found is not None
    return found


def test_two_sides_make_bars_of_mid_prices_and_a_spread_by_the_hour(tmp_path: Path) -> None:
    result = run(*sides(tmp_path), tmp_path / "catalog")
    found, bid = held(tmp_path / "catalog"), candles()
    for name in PRICES:
        assert getattr(found, name).tolist() == (bid[name] + 0.25).tolist()
    assert found.volume.tolist() == bid["volume"].tolist()
    spreads = spreads_of(tmp_path / "catalog")
    assert spreads.bars.tolist() == [2, 2, 2, 2]
    expected = 1e4 * 0.25 / (bid["close"].to_numpy() + 0.25)
    assert spreads.half_spread_bps == pytest.approx(expected.reshape(4, 2).mean(axis=1))
    told = json.loads(result.report_path.read_text())
    assert told["half_spread_bps_by_hour"][:4] == pytest.approx(spreads.half_spread_bps, abs=1e-4)
    assert told["half_spread_bps_by_hour"][4:] == [None] * 20
    assert told["rows_read"] == 16
    assert len(told["sources"]) == 2


def test_bars_of_one_side_alone_are_rejected_and_written_down(tmp_path: Path) -> None:
    bid, ask = sides(tmp_path)
    write_csv(ask, pd.read_csv(ask).drop(index=3))
    result = run(bid, ask, tmp_path / "catalog")
    assert result.quality.rejected == {"one side only": 1}
    assert len(held(tmp_path / "catalog")) == 7
    assert result.rejected_path is not None
    assert "closes 2024-01-01T02:00:00Z" in result.rejected_path.read_text()


def test_sides_taken_for_each_other_are_refused(tmp_path: Path) -> None:
    bid, ask = sides(tmp_path)
    with pytest.raises(DataError, match="taken for each other"):
        run(ask, bid, tmp_path / "catalog")
    assert not (tmp_path / "catalog" / "spreads").exists()


def test_sides_without_a_common_bar_are_refused(tmp_path: Path) -> None:
    bid, _ = sides(tmp_path)
    _, ask = sides(tmp_path, start="2024-02-01")
    with pytest.raises(DataError, match="both sides"):
        run(bid, ask, tmp_path / "catalog")


def test_a_bar_whose_ask_closes_below_its_bid_counts_as_no_spread_and_is_told_of(tmp_path: Path) -> None:
    bid, ask = sides(tmp_path)
    frame = pd.read_csv(ask)
    frame.loc[0, PRICES] -= 0.75
    result = run(bid, write_csv(ask, frame), tmp_path / "catalog")
    assert result.bars_written == 8
    assert any("1 bars close with the ask below the bid" in note for note in result.quality.notes)
    assert spreads_of(tmp_path / "catalog").half_spread_bps[0] == pytest.approx(0.5 * 1e4 * 0.25 / 101.0)


def test_later_sides_are_added_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    run(*sides(tmp_path), tmp_path / "catalog")
    run(*sides(tmp_path, start="2024-01-02", spread=1.0), tmp_path / "catalog")
    before = spreads_of(tmp_path / "catalog")
    assert len(before.hour) == 8
    run(*sides(tmp_path), tmp_path / "catalog")
    assert spreads_of(tmp_path / "catalog").as_csv() == before.as_csv()


def test_that_no_spread_is_left_is_said_too(tmp_path: Path) -> None:
    bid, ask = sides(tmp_path)
    run(bid, ask, tmp_path / "catalog")
    result = ingest(IngestRequest([bid], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert any("spreads of 4 hours dropped" in note for note in result.quality.notes)


def test_a_damaged_file_of_spreads_is_named(tmp_path: Path) -> None:
    run(*sides(tmp_path), tmp_path / "catalog")
    path = next((tmp_path / "catalog" / "spreads").iterdir())
    path.write_text("hour_from_epoch,half_spread_bps,bars\n473352,nan,2\n")
    with pytest.raises(CatalogError, match=path.name):
        catalog_market(tmp_path / "catalog", "BTCUSDT.TEST", "30m")


def test_bars_in_the_place_of_those_that_had_a_spread_take_it_away(tmp_path: Path) -> None:
    bid, ask = sides(tmp_path)
    run(bid, ask, tmp_path / "catalog")
    run(*sides(tmp_path, start="2024-01-02"), tmp_path / "catalog")
    bid, _ = sides(tmp_path)
    result = ingest(IngestRequest([bid], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert any("spreads of 4 hours dropped" in note for note in result.quality.notes)
    left = spreads_of(tmp_path / "catalog")
    assert len(left.hour) == 4 and left.hour[0] == pd.Timestamp("2024-01-02", tz="UTC").value // 3_600_000_000_000
    ingest(IngestRequest([sides(tmp_path, start="2024-01-02")[0]], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert catalog_market(tmp_path / "catalog", "BTCUSDT.TEST", "30m").spreads is None


def test_spreads_change_with_their_bars_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bid, ask = sides(tmp_path)
    run(bid, ask, tmp_path / "catalog")
    before = spreads_of(tmp_path / "catalog").as_csv()

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    for module, name in ((catalog, "sweep_staging"), (journal, "finish_journal")):
        assert spreads_of(tmp_path / "catalog").as_csv() == before
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, stop)
            ingest(IngestRequest([bid], tmp_path / "catalog", "BTCUSDT.TEST"))
    # The journal is there: whoever opens the catalog next carries it out, all of it.
    assert catalog_market(tmp_path / "catalog", "BTCUSDT.TEST", "30m").spreads is None
    assert held(tmp_path / "catalog").close.tolist() == candles()["close"].tolist()


def test_one_side_alone_has_no_spread(tmp_path: Path) -> None:
    ingest(IngestRequest([sides(tmp_path)[0]], tmp_path / "catalog", "BTCUSDT.TEST"))
    assert catalog_market(tmp_path / "catalog", "BTCUSDT.TEST", "30m").spreads is None
    assert BarCatalog(tmp_path / "catalog").bar_sizes("BTCUSDT.TEST")


@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=80), st.integers(0, 100), st.integers(0, 80))
def test_what_is_charged_is_the_mean_of_this_hour_over_earlier_days(values: list[float], now: int, cut: int) -> None:
    hour = 480_000 + np.arange(len(values))
    whole = HourlySpreads(hour, np.array(values), np.ones(len(values), dtype=np.int64))
    ts_ns = (480_000 + now) * 3_600_000_000_000 + 1
    earlier = [value for at, value in enumerate(values) if at < now]
    same = [value for at, value in enumerate(values) if at < now and (now - at) % 24 == 0]
    found = whole.half_spread_before(ts_ns)
    if not earlier:
        assert found is None
    else:
        assert found == pytest.approx(np.mean(same or earlier), abs=1e-9)
    # What is measured from this hour on makes no difference.
    kept = slice(None, max(cut, now))
    known = HourlySpreads(hour[kept], whole.half_spread_bps[kept], whole.bars[kept])
    assert known.half_spread_before(ts_ns) == found


def test_a_bar_belongs_to_the_hour_that_it_lies_in() -> None:
    half_hours = bars(1, 4)  # closing at 00:30, 01:00, 01:30, 02:00
    assert np.diff(hour_of(half_hours.ts_close_ns)).tolist() == [0, 1, 0]


def test_spreads_come_back_from_text_as_they_were() -> None:
    spreads = HourlySpreads(np.array([5, 7]), np.array([1 / 3, math.pi]), np.array([60, 59]))
    again = HourlySpreads.parse(spreads.as_csv())
    assert again.half_spread_bps.tolist() == spreads.half_spread_bps.tolist()
    assert (again.hour.tolist(), again.bars.tolist()) == ([5, 7], [60, 59])
