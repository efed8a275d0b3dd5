"""What a run trades on, from each of its three sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.catalog import BarCatalog
from data.errors import CatalogError, OptionError
from data.instruments import Kind
from data.market import catalog_market, sp500_market, synthetic_market
from data.synthetic import SyntheticConfig
from tests.data.files import HALF_HOUR, START_NS, bars, from_nautilus, instrument


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred half hours from the start of 2024, the first of which closes at midnight."""
    root = tmp_path_factory.mktemp("catalog")
    BarCatalog(root, create=True).write(bars(0, 100), instrument(), HALF_HOUR)
    return root


def test_the_simulated_market_has_labels_and_the_same_bars_in_both_forms() -> None:
    market = synthetic_market(SyntheticConfig(bars=300))
    assert market.labels is not None
    assert len(market.labels.direction) == len(market.bars) == 300
    assert from_nautilus(market.nautilus_bars).sha256() == market.bars.sha256()
    assert str(market.bar_type) == "SYNTHUSDT.SIM-1-HOUR-LAST-EXTERNAL"


def test_the_sp500_history_needs_no_network() -> None:
    market = sp500_market()
    assert (market.kind, str(market.size), market.labels) == (Kind.EQUITY, "1d", None)
    assert len(market.bars) > 5_000
    assert (np.diff(market.bars.ts_close_ns) > 0).all()
    assert (market.bars.high >= np.maximum(market.bars.open, market.bars.close)).all()
    assert (market.bars.low <= np.minimum(market.bars.open, market.bars.close)).all()
    assert from_nautilus(market.nautilus_bars).sha256() == market.bars.sha256()


def test_a_catalog_gives_back_what_was_written(catalog: Path) -> None:
    market = catalog_market(catalog, "BTCUSDT.TEST", "30m")
    assert market.kind is Kind.CRYPTO
    assert market.bars.sha256() == bars(0, 100).sha256()


def test_the_only_bar_size_need_not_be_named(catalog: Path) -> None:
    assert catalog_market(catalog, "BTCUSDT.TEST", None).size == HALF_HOUR


def test_start_and_end_bound_the_closes(catalog: Path) -> None:
    market = catalog_market(catalog, "BTCUSDT.TEST", "30m", "2024-01-01T02:00", "2024-01-01T05:00:00Z")
    closes = pd.to_datetime(market.bars.ts_close_ns)
    assert (str(closes[0]), str(closes[-1])) == ("2024-01-01 02:00:00", "2024-01-01 05:00:00")


def test_an_end_given_as_a_date_includes_that_day(catalog: Path) -> None:
    market = catalog_market(catalog, "BTCUSDT.TEST", "30m", end="2024-01-01")
    assert market.bars.ts_close_ns[-1] == START_NS + 86_400 * 10**9


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("yesterday's", None, "--start"),
        (None, "31.31.2024", "--end"),
        ("NaT", None, "no date"),
        ("2024-01-02", "2024-01-01T00:00", "lies after"),
    ],
)
def test_times_that_make_no_sense_are_errors_of_the_options(
    catalog: Path, start: str | None, end: str | None, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        catalog_market(catalog, "BTCUSDT.TEST", "30m", start, end)


def test_what_the_catalog_lacks_is_an_error_that_lists_what_it_has(catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"holds BTCUSDT\.TEST"):
        catalog_market(catalog, "ETHUSDT.TEST", "30m")
    with pytest.raises(CatalogError, match=r"no 1h bars.*30-MINUTE-LAST-EXTERNAL"):
        catalog_market(catalog, "BTCUSDT.TEST", "1h")
    with pytest.raises(CatalogError, match="between 2030-01-01 and the last"):
        catalog_market(catalog, "BTCUSDT.TEST", "30m", start="2030-01-01")
    with pytest.raises(CatalogError, match="no such catalog"):
        catalog_market(tmp_path / "none", "BTCUSDT.TEST", "30m")


def test_several_bar_sizes_must_be_told_apart(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), instrument(), HALF_HOUR)
    catalog.write(bars()[::2], instrument(), type(HALF_HOUR).parse("1h"))
    with pytest.raises(OptionError, match="--bar; held: 1-HOUR-LAST-EXTERNAL, 30-MINUTE-LAST-EXTERNAL"):
        catalog_market(tmp_path, "BTCUSDT.TEST", None)


@pytest.mark.parametrize("text", ["9999-12-31", "1500-01-01", "2262-04-11", "soon"])
def test_a_time_that_no_bar_can_have_is_an_error_of_the_options(catalog: Path, text: str) -> None:
    with pytest.raises(OptionError, match=f"--end '{text}' is no date"):
        catalog_market(catalog, "BTCUSDT.TEST", None, None, text)
