"""Rows that are no bars, however many they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data.rejects import Rejects


def rows(first: int, count: int) -> pd.DataFrame:
    numbers = range(first, first + count)
    return pd.DataFrame({"file": "a.csv", "row": numbers, "reason": "duplicate", "fields": ['1,2,"x"\n'] * count})


def test_more_than_fits_in_memory_is_kept_in_its_order_on_a_disk_that_shows_no_file(tmp_path: Path) -> None:
    with Rejects(tmp_path) as rejects:
        for first in range(0, 300_000, 50_000):
            rejects.append(rows(first, 50_000))
        assert list(tmp_path.iterdir()) == []
        saved = rejects.save(tmp_path / "rejected.csv")
    assert saved is not None
    read = pd.read_csv(saved)
    assert read["row"].tolist() == list(range(300_000)) and set(read["fields"]) == {'1,2,"x"\n'}
    assert list(tmp_path.iterdir()) == [saved]


def test_the_same_rows_again_leave_the_file_as_it_is_and_none_remove_it(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    stamps = []
    for count in (3, 3, 4, 0):
        with Rejects(tmp_path) as rejects:
            rejects.append(rows(0, count))
            assert rejects.save(path) == (path if count else None)
        stamps.append(path.stat().st_mtime_ns if count else None)
    assert stamps[0] == stamps[1] != stamps[2]
    assert list(tmp_path.iterdir()) == []
