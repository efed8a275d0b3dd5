"""The catalog: what goes in comes out, and a crash leaves the old bars or the new ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import PRICE_MAX
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from data.bars import Bars, BarSize
from data.catalog import BarCatalog, Outcome, to_nautilus
from data.errors import CatalogError, DataError
from data.instruments import Kind, Precision, make_instrument, parse_instrument_id
from data.journal import JOURNAL, STAGING_PREFIX
from tests.conftest import clean_environment
from tests.data.files import HALF_HOUR, START_NS, bars, from_nautilus, instrument, read_by_nautilus, tree

REPOSITORY = Path(__file__).parents[2]


def all_bars(root: Path, wanted: Instrument | None = None, size: BarSize = HALF_HOUR) -> Bars:
    return from_nautilus(read_by_nautilus(root, wanted or instrument(), size))


def joined(*parts: Bars) -> Bars:
    return Bars(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))


# --- values -------------------------------------------------------------------------------------------------


@given(
    places=st.integers(0, 12),
    ticks=st.lists(st.integers(1, 10**12), min_size=1, max_size=30),
    traded=st.lists(st.integers(0, 10**12), min_size=30, max_size=30),
)
@settings(max_examples=100)
def test_prices_of_any_precision_come_back_equal_to_the_last_digit(
    places: int, ticks: list[int], traded: list[int]
) -> None:
    prices = np.array([float(f"{tick}e-{places}") for tick in ticks])
    volume = np.array([float(f"{lot}e-3") for lot in traded[: len(ticks)]])
    ts = START_NS + HALF_HOUR.nanos * np.arange(len(ticks), dtype=np.int64)
    given_bars = Bars(ts, prices, prices, prices, prices, volume)
    back = from_nautilus(to_nautilus(given_bars, instrument(price=places), HALF_HOUR))
    assert back.sha256() == given_bars.sha256()


@pytest.mark.parametrize(("price", "places"), [(1e-8, 8), (1e-12, 12), (0.00002853, 8), (1e9, 2), (1.7e13, 0)])
def test_very_small_and_very_large_prices_survive_the_catalog(tmp_path: Path, price: float, places: int) -> None:
    assert price < PRICE_MAX
    column = np.array([price, price])
    given_bars = Bars(START_NS + HALF_HOUR.nanos * np.arange(2), column, column, column, column, np.array([1.0, 0.0]))
    BarCatalog(tmp_path, create=True).write(given_bars, instrument(price=places), HALF_HOUR)
    assert all_bars(tmp_path).sha256() == given_bars.sha256()


def test_nautilus_reads_the_catalog_by_itself(tmp_path: Path) -> None:
    BarCatalog(tmp_path, create=True).write(bars(), instrument(), HALF_HOUR)
    nautilus = ParquetDataCatalog(str(tmp_path))
    read: list[Bar] = nautilus.bars(["BTCUSDT.TEST-30-MINUTE-LAST-EXTERNAL"])
    assert [bar.ts_init for bar in read] == [bar.ts_event for bar in read] == bars().ts_close_ns.tolist()
    assert [str(found.id) for found in nautilus.instruments()] == ["BTCUSDT.TEST"]


def test_reading_is_bounded_by_closes_on_both_sides(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), instrument(), HALF_HOUR)
    ts = bars().ts_close_ns
    part = catalog.bars(instrument(), HALF_HOUR, int(ts[2]), int(ts[5]))
    assert part.ts_close_ns.tolist() == ts[2:6].tolist()
    assert len(catalog.bars(instrument(), BarSize.parse("1h"))) == 0


# --- outcomes -----------------------------------------------------------------------------------------------


def test_the_same_bars_again_change_nothing(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    first = catalog.write(bars(), instrument(), HALF_HOUR)
    before = tree(tmp_path)
    second = catalog.write(bars(), instrument(), HALF_HOUR)
    assert (first.outcome, first.bars_before) == (Outcome.ADDED, 0)
    assert (second.outcome, second.bars_before) == (Outcome.UNCHANGED, 10)
    assert tree(tmp_path) == before


def test_changed_bars_replace_their_interval(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), instrument(), HALF_HOUR)
    written = catalog.write(bars(close=200.0), instrument(), HALF_HOUR)
    assert (written.outcome, written.bars_before) == (Outcome.REPLACED, 10)
    assert all_bars(tmp_path).sha256() == bars(close=200.0).sha256()


def test_a_partial_overlap_keeps_the_bars_outside_of_it(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(0, 10), instrument(), HALF_HOUR)
    catalog.write(bars(20, 10), instrument(), HALF_HOUR)
    written = catalog.write(bars(5, 20, close=300.0), instrument(), HALF_HOUR)
    assert (written.outcome, written.bars_before) == (Outcome.REPLACED, 10)
    expected = joined(bars(0, 10)[:5], bars(5, 20, close=300.0), bars(20, 10)[5:])
    assert all_bars(tmp_path).sha256() == expected.sha256()


def test_bars_within_a_larger_file_replace_only_themselves(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(0, 30), instrument(), HALF_HOUR)
    catalog.write(bars(10, 5, close=300.0), instrument(), HALF_HOUR)
    expected = joined(bars(0, 30)[:10], bars(10, 5, close=300.0), bars(0, 30)[15:])
    assert all_bars(tmp_path).sha256() == expected.sha256()


def test_instruments_whose_names_begin_alike_keep_apart(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    names = ["BTC-USD.X", "BTC-USDT.X", "BTC_USDT.X", "BTC-USDT.X-30", "BTC-USDT-PERP.X"]
    for place, name in enumerate(names):
        catalog.write(bars(close=100.0 + place), instrument(name), HALF_HOUR)
    assert list(catalog.instruments()) == sorted(names)
    for place, name in enumerate(names):
        assert all_bars(tmp_path, instrument(name)).open[0] == 100.0 + place
        assert catalog.bar_sizes(name) == ["30-MINUTE-LAST-EXTERNAL"]


@pytest.mark.parametrize("name", ["BRK.B.NYSE", "^GSPC.INDEX", "BTC-USD_250328.X", "A#B.X", "$SPX.X"])
def test_odd_identifiers_that_are_allowed_can_be_read_back(tmp_path: Path, name: str) -> None:
    odd = make_instrument(parse_instrument_id(name), Kind.EQUITY, Precision(2, 3))
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), odd, HALF_HOUR)
    assert catalog.write(bars(), odd, HALF_HOUR).outcome is Outcome.UNCHANGED
    found = catalog.instrument(name)
    assert found is not None and str(found.id) == name


@pytest.mark.parametrize("folder", ["with space", "ümlaut", "a#b", "50%"])
def test_a_catalog_may_lie_in_a_folder_of_any_usual_name(tmp_path: Path, folder: str) -> None:
    BarCatalog(tmp_path / folder, create=True).write(bars(), instrument(), HALF_HOUR)
    assert len(all_bars(tmp_path / folder)) == 10


# --- errors -------------------------------------------------------------------------------------------------


def test_a_catalog_that_is_not_there_or_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such catalog"):
        BarCatalog(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="is a file"):
        BarCatalog(tmp_path / "file", create=True)
    with pytest.raises(CatalogError, match="wildcards"):
        BarCatalog(tmp_path / "bars[1]", create=True)


def test_opening_a_catalog_for_writing_makes_nothing_yet(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path / "new", create=True)
    assert catalog.instrument("BTCUSDT.TEST") is None
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="no bars"):
        catalog.write(bars(count=0), instrument(), HALF_HOUR)
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_in_the_catalog_is_named(tmp_path: Path) -> None:
    BarCatalog(tmp_path, create=True).write(bars(), instrument(), HALF_HOUR)
    file = next((tmp_path / "data" / "bar").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CatalogError, match="damaged"):
        BarCatalog(tmp_path).bars(instrument(), HALF_HOUR)


def test_a_second_ingest_at_the_same_time_is_refused(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), instrument(), HALF_HOUR)
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from data.journal import locked\n"
            "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with held:
        assert held.stdin is not None and held.stdout is not None
        assert held.stdout.readline() == "held\n"
        with pytest.raises(CatalogError, match="another ingest"):
            catalog.write(bars(close=200.0), instrument(), HALF_HOUR)
        assert len(all_bars(tmp_path)) == 10
        held.stdin.close()
        held.wait()
    assert catalog.write(bars(close=200.0), instrument(), HALF_HOUR).outcome is Outcome.REPLACED


@pytest.mark.parametrize(("price", "size"), [(4, 3), (2, 2)])
def test_bars_made_for_other_decimals_than_another_ingest_has_fixed_are_refused(
    tmp_path: Path, price: int, size: int
) -> None:
    first, second = (BarCatalog(tmp_path, create=True) for _ in range(2))
    first.write(bars(), instrument(), HALF_HOUR)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"another ingest has fixed it meanwhile, at 2 decimals of price and 3 of size"):
        second.write(bars(20), instrument(price=price, size=size), HALF_HOUR)
    assert tree(tmp_path) == before
    assert second.write(bars(20), instrument(), HALF_HOUR).outcome is Outcome.ADDED


def test_a_disk_that_refuses_leaves_the_catalog_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(), instrument(), HALF_HOUR)
    before = tree(tmp_path)

    def no_space(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_batch", no_space)
    with pytest.raises(CatalogError, match="No space left"):
        catalog.write(bars(close=200.0), instrument(), HALF_HOUR)
    assert tree(tmp_path) == before


# --- crashes ------------------------------------------------------------------------------------------------

# For n = 1, 2, ...: copies a catalog, and has a child write to the copy that SIGKILL ends just before its n-th step,
# a step being any of the calls by which a write changes the disk. Ends with the first child that was done before.
_DIES = """
import os, shutil, signal, sys
from pathlib import Path
import nautilus_trader.persistence.catalog.parquet as parquet
from data.catalog import BarCatalog
from tests.data.files import HALF_HOUR, bars, instrument

place, steps = Path(sys.argv[1]), 0

def deadly(real):
    def step(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return step

def write(root):
    os.replace, os.fsync, shutil.rmtree = deadly(os.replace), deadly(os.fsync), deadly(shutil.rmtree)
    Path.unlink, Path.mkdir = deadly(Path.unlink), deadly(Path.mkdir)
    parquet.pq.write_table = deadly(parquet.pq.write_table)
    BarCatalog(root, create=True).write(bars(5, 20, close=300.0), instrument(), HALF_HOUR)

for last in range(1, 100):
    root = place / f"killed-{last:02}"
    if (place / "before").exists():
        shutil.copytree(place / "before", root)
    child = os.fork()
    if child == 0:
        write(root)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(root.name, status, flush=True)
    if status != -signal.SIGKILL:
        sys.exit(status)
"""


@pytest.mark.parametrize("held_before", [True, False])
def test_a_killed_write_leaves_all_old_or_all_new_bars_and_the_next_one_finishes(
    tmp_path: Path, held_before: bool
) -> None:
    old, new = bars(count=0), bars(5, 20, close=300.0)
    if held_before:
        old, new = joined(bars(0, 10), bars(20, 10)), joined(bars(0, 10)[:5], new, bars(20, 10)[5:])
        BarCatalog(tmp_path / "before", create=True).write(bars(0, 10), instrument(), HALF_HOUR)
        BarCatalog(tmp_path / "before").write(bars(20, 10), instrument(), HALF_HOUR)
    ended = subprocess.run(
        [sys.executable, "-c", _DIES, str(tmp_path)],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    roots = [tmp_path / line.split()[0] for line in ended.stdout.splitlines()]
    assert len(roots) > 8
    seen = []
    for root in roots:
        found = all_bars(root) if root.exists() else bars(count=0)
        assert found.sha256() in {old.sha256(), new.sha256()}
        seen.append(found.sha256() == new.sha256())
        BarCatalog(root, create=True).write(bars(5, 20, close=300.0), instrument(), HALF_HOUR)
        assert all_bars(root).sha256() == new.sha256()
        assert not (root / JOURNAL).exists()
        assert not list(root.glob(f"{STAGING_PREFIX}*"))
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
