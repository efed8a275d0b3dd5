"""A sweep on a cluster of two nodes on loopback, one of which dies in the middle, and then the command on what is left:
run by test_ray, in a process and, where that can be had, a network of its own.

Prints a line of JSON: the runs' hashes and statuses by key, and what the command said.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from cli.app import app
from data.errors import OptionError
from regime.model.checkpoint import find_checkpoint
from sage.progress import Silent
from sage.sweep.ledger import Ledger
from sage.sweep.plan import plan_of
from sage.sweep.ray_workers import RayWorkers
from sage.sweep.sweep import sweep
from tests.sage.sweep.test_ray import ASKED_BARS, CONFIG


def refused(workers: RayWorkers, place: Path) -> list[str]:
    """What is said of a place that is this process's own, of one that is not there, and of weights that no node has."""
    told = []
    for written, read in ((["memory://own"], []), ([], [str(place / "nowhere")])):
        try:
            workers.require_shared(written, read)
        except OptionError as error:
            told.append(str(error))
    try:
        workers.require_model(dataclasses.replace(find_checkpoint("embedded"), sha256="other"))
    except OptionError as error:
        told.append(str(error))
    return told


def command(address: str, place: Path) -> dict[str, Any]:
    """Go on with two more seeds by ``sage sweep --ray``."""
    config = place.with_suffix(".toml")
    config.write_text("[data.synthetic]\nbars = 600\nbar_seconds = 14400\n[regime]\npinned_level = 2\n")
    return _sage("--config", config, "--set", f"seed={','.join(map(str, range(14)))}", "--ray", address, "--json",
                 "--resume", place, "--ledger", place / "trials.jsonl", "--store-dir", place / "store")  # fmt: skip


def forecasting(address: str, place: Path) -> dict[str, Any]:
    """A sweep that asks the model, whose forecasts are made on the cluster."""
    config = place.with_suffix(".toml")
    config.write_text(f"[data.synthetic]\nbars = {ASKED_BARS}\nbar_seconds = 14400\n")
    return _sage("--config", config, "--set", "sizing.target_volatility=0.1,0.4", "--ray", address, "--json", "--out",
                 place / "asked", "--ledger", place / "trials.jsonl", "--store-dir", place / "store")  # fmt: skip


def _sage(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["sweep", *map(str, arguments)])
    return {"code": done.exit_code, "said": done.stderr[-2_000:], "document": json.loads(done.stdout or "{}")}


def main(place: Path, kill_after: int) -> None:
    """Run it; after so many finished runs a node is killed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # What is lost is noticed soon: a test need not wait as long as a cluster across a slow network should.
    os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    killed = threading.Event()

    class Kills(Silent):
        done = 0

        def advance(self, steps: int, note: str = "") -> None:
            self.done += steps
            if self.done >= kill_after and not killed.is_set():
                killed.set()
                cluster.remove_node(second, allow_graceful=False)

    plan = plan_of(CONFIG)
    workers = RayWorkers(cluster.address)
    workers.require_shared([str(place)], [str(place)])
    workers.require_model(find_checkpoint(plan.config.backtest.model.name))
    workers.require_alike(plan.config.backtest.serving.engine)
    began = time.monotonic()
    found = sweep(plan, place, workers, Ledger(place / "trials.jsonl"), Kills())
    result = {
        "runs": [{name: row[name] for name in ("key", "status", "error", "determinism_hash")} for row in found.rows],
        "killed": killed.is_set(),
        "workers": workers.count,
        "seconds": time.monotonic() - began,
        "refused": refused(workers, place),
        "command": command(cluster.address, place),
        "forecasting": forecasting(cluster.address, place),
    }
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    sys.stdout.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
