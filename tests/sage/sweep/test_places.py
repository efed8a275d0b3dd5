"""Results, store and catalog may lie where no directory of this machine is."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from data.errors import OptionError
from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.config import BacktestConfig, DataConfig, ModelConfig, with_keys
from sage.progress import Silent
from sage.sweep import places
from sage.sweep.axes import Axis
from sage.sweep.ledger import Ledger
from sage.sweep.places import Mirror, is_remote, local_path, mirror_of
from sage.sweep.plan import SweepConfig, plan_of
from sage.sweep.runs import MANIFEST, RUNS, run_task
from sage.sweep.sweep import SWEEP_FILE, planned_before, sweep
from sage.sweep.workers import LocalWorkers
from tests.sage.sweep.ftp import serving


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with serving(tmp_path / "there") as address:
        yield address, tmp_path / "there"
        _forget(address)
    mirror_of.cache_clear()
    places._fetched.cache_clear()


def _forget(address: str) -> None:
    for name in ("out", "store", "some"):
        shutil.rmtree(local_path(f"{address}/{name}"), ignore_errors=True)


def test_a_directory_is_itself_and_an_address_is_mirrored(shared: tuple[str, Path]) -> None:
    address, _ = shared
    assert not is_remote("/some/where") and not is_remote("file:///some/where") and is_remote(f"{address}/some")
    assert local_path("file:///some/where") == local_path("/some/where") == Path("/some/where")
    assert local_path(f"{address}/some") == local_path(f"{address}/some")


def test_what_is_written_on_one_machine_is_found_on_another(shared: tuple[str, Path]) -> None:
    address, there = shared
    mirror = Mirror(f"{address}/some")
    (mirror.path / "runs" / "a").mkdir(parents=True)
    (mirror.path / "runs" / "a" / MANIFEST).write_text("{}")
    (mirror.path / "runs" / "a" / "table.parquet").write_bytes(b"0123")
    (mirror.path / "runs" / ".half.partial").write_text("no")
    (mirror.path / "top.json").write_text("one")
    (mirror.path / "runs" / ".b.1234.partial").mkdir()
    (mirror.path / "runs" / ".b.1234.partial" / "half.json").write_text("no")
    mirror.publish(last=MANIFEST)
    assert sorted(path.name for path in (there / "some").rglob("*") if path.is_file()) == [
        MANIFEST, "table.parquet", "top.json",
    ]  # fmt: skip
    (there / "some" / "top.json").write_text("two")
    (there / "some" / "runs" / "b").mkdir()
    (there / "some" / "runs" / "b" / "more").write_text("more")
    mirror.fetch()
    assert (mirror.path / "top.json").read_text() == "two"
    assert (mirror.path / "runs" / "b" / "more").read_text() == "more"


def test_what_is_gone_or_changed_there_is_so_here(shared: tuple[str, Path]) -> None:
    address, there = shared
    mirror = Mirror(f"{address}/some")
    (there / "some" / "data").mkdir(parents=True)
    for name in ("old", "new"):
        (there / "some" / "data" / name).write_text(name)
    mirror.fetch(exact=True)
    (there / "some" / "data" / "old").unlink()
    (there / "some" / "data" / "new").write_text("wen")
    os.utime(there / "some" / "data" / "new", (1_700_000_000, 1_700_000_000))
    mirror.fetch(exact=True)
    assert {path.name: path.read_text() for path in (mirror.path / "data").iterdir()} == {"new": "wen"}
    mirror.remove("data")
    assert not (there / "some" / "data").exists()


def test_two_that_publish_the_same_files_are_not_in_each_others_way(shared: tuple[str, Path]) -> None:
    address, there = shared
    mirrors = [Mirror(f"{address}/some") for _ in range(3)]
    for number in range(20):
        (mirrors[0].path / "store").mkdir(exist_ok=True)
        (mirrors[0].path / "store" / f"{number}.part").write_bytes(b"x" * 1000)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda mirror: mirror.publish(), mirrors))
    left = [path.name for path in (there / "some" / "store").iterdir()]
    assert sorted(left) == sorted(f"{number}.part" for number in range(20))


def test_a_place_that_is_not_there_yet_is_empty(shared: tuple[str, Path]) -> None:
    mirror = Mirror(f"{shared[0]}/some")
    mirror.fetch()
    assert not [path for path in mirror.path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("address", ["nosuch://bucket/place", "ftp://quant:secret@127.0.0.1:1/place"])
def test_a_place_that_cannot_be_reached_is_refused(address: str) -> None:
    with pytest.raises(OptionError, match="cannot be reached") as raised:
        Mirror(address)
    assert "secret" not in str(raised.value)


def test_a_sweep_with_results_and_store_elsewhere_is_the_same_sweep(shared: tuple[str, Path], tmp_path: Path) -> None:
    address, there = shared
    data = DataConfig(synthetic=SyntheticConfig(bars=300, bar_seconds=14_400))
    axis = Axis("sizing.target_volatility", (0.1, 0.4))

    def swept(store: str, place: str | Path) -> list[dict[str, object]]:
        base = BacktestConfig(data=data, model=ModelConfig(store_dir=store))
        found = sweep(
            plan_of(SweepConfig(base, (axis,))), place, LocalWorkers(2), Ledger(tmp_path / "trials.jsonl"), Silent()
        )
        assert not found.failed and found.forecasts.needed > 0
        return [{name: row[name] for name in ("key", "determinism_hash")} for row in found.rows]

    elsewhere = swept(f"{address}/store", f"{address}/out")
    assert elsewhere == swept(str(tmp_path / "store"), tmp_path / "out")
    assert {path.name for path in (there / "out" / RUNS).iterdir()} == {row["key"] for row in elsewhere}
    assert list((there / "store").rglob("*.parquet"))
    # Another machine: nothing is here, everything is there.
    shutil.rmtree(local_path(f"{address}/out"))
    shutil.rmtree(local_path(f"{address}/store"))
    mirror_of.cache_clear()
    base = BacktestConfig(data=data, model=ModelConfig(store_dir=f"{address}/store"))
    more = dataclasses.replace(axis, values=(0.1, 0.4, 0.7))
    again = sweep(
        plan_of(SweepConfig(base, (more,))),
        f"{address}/out",
        LocalWorkers(1),
        Ledger(tmp_path / "trials.jsonl"),
        Silent(),
    )
    assert again.reused == 2 and again.forecasts.made == 0 and not again.failed
    assert isinstance(pd.read_parquet(there / "out" / RUNS / again.plan.tasks[2].key / "days.parquet"), pd.DataFrame)


PINNED = with_keys(
    BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=300, bar_seconds=14_400))),
    {"regime.pinned_level": int(Level.SMART)},
)
"""Without a model: quick."""


def test_what_was_removed_there_is_made_again_though_a_mirror_still_has_it(shared: tuple[str, Path]) -> None:
    address, there = shared
    (task,) = plan_of(SweepConfig(PINNED)).tasks
    manifest = there / "out" / RUNS / task.key / MANIFEST
    first = run_task(task, f"{address}/out", {})
    assert not first.error and manifest.exists()
    stamp = manifest.stat().st_mtime_ns
    run_task(task, f"{address}/out", {})
    assert manifest.stat().st_mtime_ns == stamp
    # As a sweep does with what was made from other bars; another node's mirror does not hear of it.
    mirror_of(f"{address}/out").remove(f"{RUNS}/{task.key}")
    again = run_task(task, f"{address}/out", {})
    assert not again.error and manifest.exists()
    assert again.figures["determinism_hash"] == first.figures["determinism_hash"]


def test_a_sweep_whose_driver_was_lost_is_gone_on_with_from_elsewhere(shared: tuple[str, Path], tmp_path: Path) -> None:
    address, there = shared
    config = SweepConfig(PINNED, (Axis("sizing.target_volatility", (0.1, 0.4)),))
    ledger = Ledger(tmp_path / "trials.jsonl")

    class Breaks(Silent):
        def advance(self, steps: int, note: str = "") -> None:
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        sweep(plan_of(config), f"{address}/out", LocalWorkers(1), ledger, Breaks())
    assert (there / "out" / SWEEP_FILE).exists()
    shutil.rmtree(local_path(f"{address}/out"))
    mirror_of.cache_clear()
    assert planned_before(f"{address}/out") == config
    again = sweep(plan_of(config), f"{address}/out", LocalWorkers(1), ledger, Silent())
    assert again.reused >= 1 and len(again.rows) == 2 and not again.failed
