"""An ingest that is killed at any time leaves a catalog that can be read, and the next one finishes the work."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.holdings import check
from data.ingest import IngestRequest, ingest
from data.journal import JOURNAL, STAGING_PREFIX
from data.spool import SPOOL_PREFIX
from tests.data.files import candles, held, write_csv

REPOSITORY = Path(__file__).parents[2]
KILLS = 6
SEED = 20_240_101
OLD_ROWS, NEW_ROWS = 3_000, 20_000


def ended(source: Path, held_rows: int, after_s: dict[Path, float]) -> list[float]:
    """How long each ingest took that ended by itself, or minus the signal that ended it."""
    named = [str(part) for pair in after_s.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.killed_ingest", str(source), str(held_rows), *named],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    return list(map(float, done.stdout.split()))


@pytest.mark.parametrize("held_rows", [10**9, 5_000], ids=["at once", "some at a time"])
def test_a_kill_at_any_time_leaves_the_old_bars_or_the_new_ones(held_rows: int, tmp_path: Path) -> None:
    old = write_csv(tmp_path / "old.csv", candles(OLD_ROWS, base=50.0))
    new = write_csv(tmp_path / "new.csv", candles(NEW_ROWS))
    before = tmp_path / "before"
    ingest(IngestRequest([old], before, "BTCUSDT.TEST"))
    whole = shutil.copytree(before, tmp_path / "whole")
    (took_s,) = ended(new, held_rows, {whole: 0.0})
    assert took_s > 0.0
    digests = {held(before).sha256(), held(whole).sha256()}
    times = np.random.default_rng(SEED).uniform(0.0, 1.2, KILLS) * took_s
    catalogs = [shutil.copytree(before, tmp_path / f"catalog-{number}") for number in range(KILLS)]
    ends = ended(new, held_rows, dict(zip(catalogs, np.maximum(1e-3, times).tolist(), strict=True)))
    for catalog, after_s in zip(catalogs, times, strict=True):
        assert held(catalog).sha256() in digests, f"seed {SEED}, {catalog.name}, killed after {after_s:.4f} s"
        assert not check(catalog, lambda *_: None).damage
        ingest(IngestRequest([new], catalog, "BTCUSDT.TEST"))
        assert held(catalog).sha256() == held(whole).sha256()
        left = [path.name for path in catalog.iterdir()]
        assert not [name for name in left if name.startswith((STAGING_PREFIX, SPOOL_PREFIX)) or name == JOURNAL]
    assert set(ends) >= {-signal.SIGKILL} and all(end > 0 or end == -signal.SIGKILL for end in ends)
