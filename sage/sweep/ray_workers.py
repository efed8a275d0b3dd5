"""A Ray cluster that is there already, as the workers of a sweep."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import fsspec

from data.errors import OptionError
from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import EngineSpec, choose_engine
from sage.sweep.places import without_secrets
from sage.sweep.workers import RUNS_A_WORKER, Died

Item = TypeVar("Item")
Found = TypeVar("Found")

RETRIES = 3
"""How often work is done again whose node was lost."""

_LOOK_PATIENCE_S = 60.0
_KNOCK_S = 5.0


class RayWorkers:
    """Processes of a cluster, a core each; work whose node is lost is done again on another.

    Parameters
    ----------
    address
        ``auto`` for the cluster of this machine, or ``HOST:PORT``.
    runs_a_worker
        After so many pieces of work a process is replaced by a new one.

    Raises
    ------
    OptionError
        If Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, runs_a_worker: int = RUNS_A_WORKER) -> None:
        try:
            import ray
        except ImportError as error:
            raise OptionError("--ray: Ray is not installed; pip install 'sage[ray]'") from error
        _require_answer(address)
        self._ray = ray
        self._runs_a_worker = runs_a_worker
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise OptionError(f"--ray {address}: no cluster answers there ({told})") from error
        self.count = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: its processes are the cluster's."""

    def each(self, work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[tuple[Item, Found | Died]]:
        """Do the work on each item, and give the results as they come; see :class:`sage.sweep.workers.LocalWorkers`."""
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=RETRIES, max_calls=self._runs_a_worker)(_do)
        shared = ray.put(work)
        waiting = iter(items)
        under_way: dict[Any, Item] = {}
        try:
            while True:
                while len(under_way) < 2 * self.count and (item := next(waiting, None)) is not None:
                    under_way[remote.remote(shared, item)] = item
                if not under_way:
                    return
                done, _ = ray.wait(list(under_way), num_returns=1, timeout=1.0)
                for reference in done:
                    yield under_way.pop(reference), self._result(reference)
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)

    def require_shared(self, written: Sequence[str], read: Sequence[str] = ()) -> None:
        """See that every node finds these places, directories or what fsspec reaches, and what is written there here.

        Raises
        ------
        OptionError
            Naming the first place and the nodes that do not see it, or why a node cannot look.
        OSError
            If nothing can be written there from here.
        """
        for place in written:
            token = f"{place.rstrip('/')}/.sage-{uuid.uuid4().hex}"
            files, path = fsspec.core.url_to_fs(token)
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, b"sage")
            try:
                self._require_seen(place, token)
            finally:
                files.rm_file(path)
        for place in read:
            self._require_seen(place, place)

    def require_alike(self, spec: EngineSpec) -> None:
        """See that every node would answer with the same engine: forecasts of one are nothing to a run on another.

        Raises
        ------
        OptionError
            Naming the engines.
        """
        engines = self._ask_all(_engine_name, spec)
        if len(set(engines.values())) > 1:
            told = "; ".join(f"{node}: {name}" for node, name in engines.items())
            raise OptionError(
                f"--ray: nodes would answer with different engines ({told}); set SAGE_MARCH to one that all have, or "
                "serving.engine.kind"
            )

    def require_model(self, checkpoint: Checkpoint) -> None:
        """See that every node finds this model by its name, with the same weights.

        Raises
        ------
        OptionError
            Naming the nodes that do not.
        """
        there = self._ask_all(_digest_of, checkpoint.name)
        without = [node for node, digest in there.items() if digest != checkpoint.digest]
        if without:
            raise OptionError(
                f"--ray: model {checkpoint.name}: is not there, or has other weights, on {len(without)} of "
                f"{len(there)} nodes ({', '.join(without)}); pull it on every node, or give a path that all of them see"
            )

    def _require_seen(self, place: str, path: str) -> None:
        seen = self._ask_all(_sees, path)
        blind = [node for node, sees in seen.items() if not sees]
        if blind:
            raise OptionError(
                f"{without_secrets(place)}: not seen by {len(blind)} of {len(seen)} nodes ({', '.join(blind)}); with "
                "--ray model, catalog, store and results must lie where all nodes see them"
            )

    def _ask_all(self, ask: Callable[[Item], Found], about: Item) -> dict[str, Found]:
        """What each node answers, by its name. Raises OptionError where one cannot."""
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {
            f"{node['NodeManagerHostname']} {node['NodeID'][:8]}": ray.remote(num_cpus=0)(_do)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(ask, about)
            for node in ray.nodes()
            if node["Alive"]
        }
        found: dict[str, Found] = {}
        for node, reference in asked.items():
            try:
                found[node] = ray.get(reference, timeout=_LOOK_PATIENCE_S)
            except (ray.exceptions.RayError, TimeoutError) as error:
                told = without_secrets(_last_line(error))
                raise OptionError(f"--ray: node {node} cannot be used: {told}") from error
        return found

    def _result(self, reference: Any) -> Any:
        ray = self._ray
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayError as error:
            # Its node was lost more often than it is tried again, or the kernel took its memory.
            return Died(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _last_line(error: Exception) -> str:
    """What it comes to: Ray tells of a node's error by its whole trace."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _require_answer(address: str) -> None:
    """Knock first: Ray itself goes on knocking for minutes. Raises OptionError."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise OptionError(f"--ray {address}: write auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise OptionError(f"--ray {address}: no cluster answers there ({getattr(error, 'strerror', error)})") from error


def _do(work: Callable[[Item], Found], item: Item) -> Found:
    return work(item)


def _sees(place: str) -> bool:
    files, path = fsspec.core.url_to_fs(place)
    files.invalidate_cache()
    return bool(files.exists(path))


def _digest_of(name: str) -> str:
    try:
        return find_checkpoint(name).digest
    except ModelUnavailable:
        return ""


def _engine_name(spec: EngineSpec) -> str:
    return choose_engine(spec).name
