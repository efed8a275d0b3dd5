"""Cells of a study outlive it."""

from __future__ import annotations

import math
from pathlib import Path

from sage.studies.kept import KeptCells


def test_a_cell_is_found_again_under_the_same_settings_only(tmp_path: Path) -> None:
    KeptCells(tmp_path, "regimes", {"seeds": 3}).put("a/b 1", {"accuracy": math.nan, "delay": 3})
    again = KeptCells(tmp_path, "regimes", {"seeds": 3})
    found = again.get("a/b 1")
    assert found is not None and math.isnan(found["accuracy"]) and found["delay"] == 3
    assert again.reused == 1
    assert KeptCells(tmp_path, "regimes", {"seeds": 4}).get("a/b 1") is None
    assert again.get("a/b 2") is None


def test_a_damaged_cell_is_made_again(tmp_path: Path) -> None:
    kept = KeptCells(tmp_path, "regimes", {})
    kept.put("cell", 1)
    [path] = tmp_path.glob("*/*.json")
    path.write_text(path.read_text()[:-5])
    assert kept.get("cell") is None


def test_without_a_directory_nothing_is_kept() -> None:
    kept = KeptCells(None, "regimes", {})
    kept.put("cell", 1)
    assert kept.get("cell") is None
