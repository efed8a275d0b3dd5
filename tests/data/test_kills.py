"""An ingest that is killed at any time leaves a catalog that can be read, and the next one finishes the work."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.catalog import JOURNAL, STAGING_PREFIX, BarCatalog
from data.holdings import check
from data.ingest import IngestRequest, ingest
from data.spool import SPOOL_PREFIX
from tests.data.files import candles, held, write_csv

REPOSITORY = Path(__file__).parents[2]
KILLS = 6
SEED = 20_240_101
OLD_ROWS, NEW_ROWS = 3_000, 20_000


def ingested(source: Path, catalog: Path, after_s: float, held_rows: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.data.killed_ingest", str(source), str(catalog), str(after_s), str(held_rows)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip


@pytest.mark.parametrize("held_rows", [10**9, 5_000], ids=["at once", "some at a time"])
def test_a_kill_at_any_time_leaves_the_old_bars_or_the_new_ones(held_rows: int, tmp_path: Path) -> None:
    old = write_csv(tmp_path / "old.csv", candles(OLD_ROWS, base=50.0))
    new = write_csv(tmp_path / "new.csv", candles(NEW_ROWS))
    before = tmp_path / "before"
    ingest(IngestRequest([old], before, "BTCUSDT.TEST"))
    whole = shutil.copytree(before, tmp_path / "whole")
    done = ingested(new, whole, 0.0, held_rows)
    assert done.returncode == 0, done.stderr
    took_s, digests = float(done.stdout), {held(before).sha256(), held(whole).sha256()}
    rng = np.random.default_rng(SEED)
    killed = 0
    for number, share in enumerate(rng.uniform(0.0, 1.2, KILLS)):
        catalog = shutil.copytree(before, tmp_path / f"catalog-{number}")
        killed += ingested(new, catalog, max(1e-3, share * took_s), held_rows).returncode == -signal.SIGKILL
        assert held(catalog).sha256() in digests, f"seed {SEED}, kill {number} after {share * took_s:.4f} s"
        assert not check(BarCatalog(catalog), lambda *_: None).damage
        ingest(IngestRequest([new], catalog, "BTCUSDT.TEST"))
        assert held(catalog).sha256() == held(whole).sha256()
        left = [path.name for path in catalog.iterdir()]
        assert not [name for name in left if name.startswith((STAGING_PREFIX, SPOOL_PREFIX)) or name == JOURNAL]
    assert killed
