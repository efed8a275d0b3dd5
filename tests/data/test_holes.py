"""What is held where new bars have a hole: it stays, in order, and damage there is not passed over."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.bars import Bars, joined
from data.catalog import BarCatalog, Outcome
from data.errors import CatalogError
from data.gaps import find_gaps
from data.holes import Holes, filled
from data.spreads import HOUR_NS, HourlySpreads
from tests.data.files import HALF_HOUR, START_NS, bars, instrument

DAY = 48


def holes_of(new: Bars) -> Holes:
    return Holes.of(find_gaps(new.ts_close_ns, HALF_HOUR))


def in_parts(whole: Bars, cuts: list[int]) -> list[Bars]:
    ends = [0, *sorted({cut for cut in cuts if 0 < cut < len(whole)}), len(whole)]
    return [whole[slice(begin, end)] for begin, end in itertools.pairwise(ends) if end > begin]


@given(st.data())
def test_old_and_new_come_in_the_order_of_time_however_they_are_parted(data: st.DataObject) -> None:
    days = data.draw(st.lists(st.booleans(), min_size=1, max_size=8))
    is_new = np.repeat([True, *days, True], 3 * DAY)
    whole = bars(0, len(is_new))
    cuts = st.lists(st.integers(0, len(is_new)), max_size=6)
    new, old = (in_parts(whole[chosen], data.draw(cuts)) for chosen in (is_new, ~is_new))
    assert joined([*filled(new, iter(old))]).sha256() == whole.sha256()
    assert holes_of(whole[is_new]).contain(whole.ts_close_ns).tolist() == (~is_new).tolist()


def test_a_gap_of_less_than_a_day_is_no_hole() -> None:
    new = joined([bars(0, 10), bars(10 + DAY - 1, 10)])
    assert not len(holes_of(new).after_ns)
    assert len(holes_of(joined([bars(0, 10), bars(10 + DAY, 10)])).after_ns) == 1


def test_a_damaged_file_in_a_hole_is_not_thrown_away(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    for day in (0, 1, 2):
        catalog.write(bars(day * DAY, DAY), instrument(), HALF_HOUR)
    new = joined([bars(0, DAY, close=200.0), bars(2 * DAY, DAY, close=200.0)])
    damaged = catalog.files(instrument(), HALF_HOUR)[1].path
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-100])
    with pytest.raises(CatalogError, match="ingest all of its interval again"):
        catalog.write(new, instrument(), HALF_HOUR, holes=holes_of(new))
    assert damaged.read_bytes() == before[:-100]


def test_a_damaged_file_with_a_hole_in_it_is_mended_by_the_same_bars(tmp_path: Path) -> None:
    catalog = BarCatalog(tmp_path, create=True)
    new = joined([bars(0, DAY), bars(2 * DAY, DAY)])
    catalog.write(new, instrument(), HALF_HOUR)
    (file,) = catalog.files(instrument(), HALF_HOUR)
    file.path.write_bytes(file.path.read_bytes()[:-100])
    assert catalog.write(new, instrument(), HALF_HOUR, holes=holes_of(new)).outcome is Outcome.REPLACED
    assert catalog.bars(instrument(), HALF_HOUR).sha256() == new.sha256()


def test_spreads_in_a_hole_stay_with_their_bars(tmp_path: Path) -> None:
    def measured(first: int, count: int, bps: float) -> HourlySpreads:
        hours = START_NS // HOUR_NS + np.arange(first, first + count)
        return HourlySpreads(hours, np.full(count, bps), np.full(count, 2))

    catalog = BarCatalog(tmp_path, create=True)
    catalog.write(bars(0, 3 * DAY), instrument(), HALF_HOUR, spreads=measured(0, 72, 1.0))
    new = joined([bars(1, DAY - 1, close=200.0), bars(2 * DAY + 1, DAY, close=200.0)])
    both = HourlySpreads.together([measured(0, 24, 2.0), measured(48, 24, 2.0)])
    catalog.write(new, instrument(), HALF_HOUR, spreads=both, holes=holes_of(new))
    found = catalog.spreads(instrument(), HALF_HOUR)
    assert found is not None and found.half_spread_bps[::24].tolist() == [2.0, 1.0, 2.0] and len(found.hour) == 72
    written = catalog.write(bars(1, 3 * DAY, close=300.0), instrument(), HALF_HOUR)
    assert written.hours_dropped == 72
