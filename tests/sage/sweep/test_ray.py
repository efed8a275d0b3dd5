"""A sweep on a real Ray cluster: every result is there, once, and that of this machine, also when a node dies."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.errors import OptionError
from data.synthetic import SyntheticConfig
from regime.signal import Level
from sage.config import BacktestConfig, DataConfig, ModelConfig, with_keys
from sage.progress import Silent
from sage.sweep.axes import Axis
from sage.sweep.ledger import Ledger
from sage.sweep.plan import SweepConfig, plan_of
from sage.sweep.sweep import sweep
from sage.sweep.workers import LocalWorkers

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")

ASKED_BARS = 300
CONFIG = SweepConfig(
    with_keys(
        BacktestConfig(data=DataConfig(synthetic=SyntheticConfig(bars=600, bar_seconds=14_400))),
        {"regime.pinned_level": int(Level.SMART)},
    ),
    (Axis("seed", tuple(range(12))),),
)


def on_cluster(place: Path, kill_after: int) -> dict[str, Any]:
    """The cluster's result; in a network of its own, where Ray takes 127.0.0.1 and not the host's address."""
    alone = _unshared()
    if not alone:
        pytest.skip("no network of its own can be had for a cluster: neither unshare -n nor unshare -rn works here")
    place.mkdir()
    command = [
        *alone, "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
        sys.executable, "-m", "tests.sage.sweep.ray_cluster", str(place), str(kill_after),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert told, done.stdout[-2_000:] + done.stderr[-4_000:]
    found: dict[str, Any] = json.loads(told[0].removeprefix("RESULT "))
    return found


def _unshared() -> list[str]:
    """What runs a command in a network of its own; nothing where that cannot be had."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return []
    for options in ("-n", "-rn"):
        command = ["unshare", options]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


def test_with_a_node_lost_in_the_middle_every_result_is_there_once_and_as_it_is_here(tmp_path: Path) -> None:
    found = on_cluster(tmp_path / "cluster", kill_after=3)
    assert found["killed"] and found["workers"] == 2
    plan = plan_of(CONFIG)
    assert [run["key"] for run in found["runs"]] == [task.key for task in plan.tasks]
    assert {run["status"] for run in found["runs"]} == {"ok"}, found["runs"]
    local = sweep(plan, tmp_path / "local", LocalWorkers(2), Ledger(tmp_path / "trials.jsonl"), Silent())
    assert [run["determinism_hash"] for run in found["runs"]] == [row["determinism_hash"] for row in local.rows]
    command = found["command"]
    assert command["code"] == 0, command["said"]
    assert command["document"]["reused"] == len(plan.tasks)
    assert [run["key"] for run in command["document"]["runs"]][: len(plan.tasks)] == [task.key for task in plan.tasks]
    assert len(list((tmp_path / "cluster" / "runs").iterdir())) == len(plan.tasks) + 2
    *unseen, other_weights = found["refused"]
    assert len(unseen) == 2 and all("not seen by" in told for told in unseen)
    assert "model embedded: is not there, or has other weights, on 1 of 1 nodes" in other_weights
    # Forecasts made on the cluster are those that are made here, and so are the runs.
    asked = found["forecasting"]
    assert asked["code"] == 0, asked["said"]
    assert asked["document"]["forecasts"]["made"] > 0
    here = SweepConfig(
        BacktestConfig(
            data=DataConfig(synthetic=SyntheticConfig(bars=ASKED_BARS, bar_seconds=14_400)),
            model=ModelConfig(store_dir=str(tmp_path / "store")),
        ),
        (Axis("sizing.target_volatility", (0.1, 0.4)),),
    )
    own = sweep(plan_of(here), tmp_path / "asked", LocalWorkers(1), Ledger(tmp_path / "trials.jsonl"), Silent())
    assert [run["determinism_hash"] for run in asked["document"]["runs"]] == [
        row["determinism_hash"] for row in own.rows
    ]


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no cluster answers there"), ("somewhere", "write auto or HOST:PORT"), (":6379", "write auto")],
)
def test_a_cluster_that_does_not_answer_is_said_before_any_run(address: str, message: str) -> None:
    from sage.sweep.ray_workers import RayWorkers

    with pytest.raises(OptionError, match=f"--ray {address}: {message}"):
        RayWorkers(address)
