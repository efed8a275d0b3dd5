"""NautilusTrader's own catalogs, whose folders leave out what cannot be in a path, and who holds which bars in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from data.bars import BarSize
from data.catalog import BarCatalog, to_nautilus
from data.errors import DataError
from data.finding import out_of_catalog
from data.holdings import check, details, holdings, others
from data.ingest import IngestRequest, ingest
from data.market import catalog_market
from tests.data.files import HALF_HOUR, bars, held

FX = TestInstrumentProvider.default_fx_ccy("AUD/USD")


def foreign(root: Path, *specs: str) -> Path:
    """A catalog of AUD/USD.SIM as NautilusTrader writes it."""
    catalog = ParquetDataCatalog(str(root))
    catalog.write_data([FX])
    for spec in specs:
        kind = BarType.from_str(f"{FX.id}-{spec}")
        catalog.write_data([
            Bar(kind, one.open, one.high, one.low, one.close, one.volume, one.ts_event, one.ts_init)
            for one in to_nautilus(bars(), FX, HALF_HOUR)
        ])  # fmt: skip
    return root


@pytest.mark.parametrize("name", ["AUD/USD.SIM", "AUDUSD.SIM"])
def test_a_pair_with_a_stroke_in_its_name_is_found_in_a_catalog(tmp_path: Path, name: str) -> None:
    catalog = BarCatalog(foreign(tmp_path, "30-MINUTE-LAST-EXTERNAL", "30-MINUTE-BID-EXTERNAL"))
    assert [(one.instrument, one.rows) for one in holdings(catalog)] == [("AUD/USD.SIM", 10)]
    assert others(catalog) == ["AUDUSD.SIM-30-MINUTE-BID-EXTERNAL"]
    assert check(tmp_path, lambda *_: None).rows == 10 and not check(tmp_path, lambda *_: None).damage
    assert details(catalog, name, None)[0].holding.rows == 10
    assert len(catalog_market(tmp_path, name, "30m").bars) == 10
    catalog.remove(str(FX.id), HALF_HOUR)
    assert not holdings(catalog) and list(catalog.instruments()) == ["AUD/USD.SIM"]


def test_of_several_sides_the_last_prices_are_meant(tmp_path: Path) -> None:
    source = foreign(tmp_path / "one", *(f"30-MINUTE-{side}-EXTERNAL" for side in ("ASK", "BID", "LAST")))
    result = ingest(IngestRequest([source], tmp_path / "two", "AUDUSD.SIM", bar="30m"))
    assert result.bars_written == 10 and len(held(tmp_path / "two", "AUDUSD.SIM")) == 10


def test_of_two_sides_alone_both_are_advised_and_can_be_had_so(tmp_path: Path) -> None:
    source = foreign(tmp_path / "one", "30-MINUTE-ASK-EXTERNAL", "30-MINUTE-BID-EXTERNAL")
    with pytest.raises(DataError, match="name the folders of both sides in its place: ") as caught:
        ingest(IngestRequest([source], tmp_path / "two", "AUDUSD.SIM", bar="30m"))
    bid, _, ask = str(caught.value).partition("in its place: ")[2].partition(" --ask ")
    assert "-BID-" in bid and ingest(IngestRequest([Path(bid)], tmp_path / "two", "AUDUSD.SIM", [Path(ask)])).spreads


def test_of_bars_that_are_neither_one_folder_is_advised(tmp_path: Path) -> None:
    source = foreign(tmp_path, "30-MINUTE-MID-EXTERNAL", "30-MINUTE-BID-EXTERNAL")
    with pytest.raises(DataError, match=r"such as .*AUDUSD\.SIM-30-MINUTE-MID-EXTERNAL"):
        out_of_catalog(source, "AUDUSD.SIM", BarSize.parse("30m"))
