"""What the processes of a run take of the machine: memory, files, threads, processor time.

Resident memory counts pages that are shared once for each process; the proportional set size (PSS) divides them
among those that share them, so that its sum over processes is what they take together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_MODEL_MODULES = ("regime.serving.server", "regime.serving.own", "stress.faulty_server")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""By which libraries are told how many threads to have."""

_LOOK_AT_PARENT_S = 1.0
_GPU_EVERY_S = 10.0
_GPU_PATIENCE_S = 5.0
_MIB = 1 << 20


@dataclass(frozen=True)
class ProcessSample:
    """One process. ``role`` is what it does in the run: ``trading``, ``model``, ``control``, ``watching``, ``other``.

    ``pss_bytes`` is None where the system does not tell. ``shared_bytes`` is shared memory (files mapped from
    memory) within the resident one. ``cpu_s`` is processor time since it started.
    """

    role: str
    pid: int
    rss_bytes: int
    pss_bytes: int | None
    shared_bytes: int
    open_files: int
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class MachineSample:
    """All processes of a run at one time of the stopwatch, and what they live in.

    ``limit_bytes`` is the memory that the container allows, or what the machine has where there is no container;
    ``used_bytes`` is what counts against it. ``gpu_bytes`` and ``gpu_limit_bytes`` are None without a GPU.
    """

    at_s: float
    processes: tuple[ProcessSample, ...]
    used_bytes: int
    limit_bytes: int
    gpu_bytes: int | None = None
    gpu_limit_bytes: int | None = None


def end_with(parent: int) -> None:
    """For a worker process: Ctrl-C at the terminal is for the parent, which ends its workers, and its end is theirs.

    A worker that waits for work would wait for ever: it holds the other end of the pipe itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_AT_PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, name="sage-orphan-watch", daemon=True).start()


class Machine:
    """Takes samples of a process and all its descendants.

    Parameters
    ----------
    roles
        Roles by process id, asked anew each time. Model processes are recognised without; any other is ``other``.
    root
        The process id whose tree is looked at; this process by default.
    stopwatch
        Seconds that pass.
    gpu
        Ask for the memory of GPUs, too, where there are any; that takes a process, and up to some seconds.
    """

    def __init__(
        self,
        roles: Callable[[], Mapping[int, str]],
        root: int | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
        *,
        gpu: bool = True,
    ) -> None:
        self._roles = roles
        self._root = psutil.Process(root)
        self._stopwatch = stopwatch
        self._models: set[tuple[int, float]] = set()
        self._gpu_command = shutil.which("nvidia-smi") if gpu else None
        self._gpu: tuple[int, int] | None = None
        self._gpu_asked_at = -_GPU_EVERY_S

    def sample(self) -> MachineSample:
        """How things are now; a process that ends meanwhile is left out."""
        at_s, roles = self._stopwatch(), self._roles()
        found = []
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                found.append(self._look_at(process, roles))
        used, limit = memory_of_container()
        self._ask_gpu(at_s)
        gpu, gpu_limit = self._gpu or (None, None)
        return MachineSample(at_s, tuple(found), used, limit, gpu, gpu_limit)

    def _look_at(self, process: psutil.Process, roles: Mapping[int, str]) -> ProcessSample:
        with process.oneshot():
            memory, times = process.memory_info(), process.cpu_times()
            return ProcessSample(
                role=roles.get(process.pid) or self._recognise(process),
                pid=process.pid,
                rss_bytes=memory.rss,
                pss_bytes=_pss_bytes(process.pid),
                shared_bytes=getattr(memory, "shared", 0),
                open_files=process.num_fds(),
                threads=process.num_threads(),
                cpu_s=times.user + times.system,
            )

    def _recognise(self, process: psutil.Process) -> str:
        # Only what is sure is remembered: a process that is about to become a model is still something else.
        key = process.pid, process.create_time()
        if key not in self._models:
            words = process.cmdline()
            if not any(module in words for module in _MODEL_MODULES):
                return "other"
            self._models.add(key)
        return "model"

    def _ask_gpu(self, at_s: float) -> None:
        """Ask the driver's own command: loading its library, or torch, is nothing for this process."""
        if self._gpu_command is None or at_s - self._gpu_asked_at < _GPU_EVERY_S:
            return
        self._gpu_asked_at = at_s
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self._gpu = asked_gpu_memory(self._gpu_command)


class Sampler:
    """Takes samples in a thread of its own while its context lasts, so that whoever trades need not wait for one.

    ``newest`` is the last one, None before the first; a machine that cannot be looked at any more gives no newer one.
    """

    def __init__(self, machine: Machine, every_s: float = 2.0) -> None:
        self.newest: MachineSample | None = None
        self._machine = machine
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, psutil.Error):
                self.newest = self._machine.sample()
            if self._over.wait(self._every_s):
                return


def asked_gpu_memory(command: str) -> tuple[int, int] | None:
    """What ``nvidia-smi``, by its path, tells of memory; see :func:`gpu_memory`. Raises OSError, SubprocessError."""
    query = [command, "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    return gpu_memory(subprocess.run(query, capture_output=True, text=True, timeout=_GPU_PATIENCE_S, check=True).stdout)


def gpu_memory(told: str) -> tuple[int, int] | None:
    """Used and total bytes of the fullest GPU, from ``nvidia-smi``'s lines of ``used, total`` in MiB."""
    found = []
    for line in told.splitlines():
        with contextlib.suppress(ValueError):
            used, total = (int(word) for word in line.split(","))
            found.append((used * _MIB, total * _MIB))
    return max(found, key=lambda one: one[0] / max(1, one[1]), default=None)


def memory_of_container(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> tuple[int, int]:
    """Bytes used, and the limit: the container's (cgroup 2, else 1), or the machine's where there is none.

    The kernel's page cache of files that nobody uses now is not counted: it gives way when memory is short.
    """
    machine = psutil.virtual_memory()
    found = (machine.total - machine.available, machine.total)
    for directory, names in _places(root, proc):
        try:
            used = int((directory / names[0]).read_text())
            idle = _field(directory / "memory.stat", names[2])
            limit = int((directory / names[1]).read_text())
        except (OSError, ValueError):  # ``max`` is no number either
            continue
        # The tightest counts: that of a parent may be, and one above what the machine has is none.
        if limit < found[1]:
            found = max(0, used - idle), limit
    return found


_NAMES_2 = ("memory.current", "memory.max", "inactive_file")
_NAMES_1 = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")


def _places(root: Path, proc: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """Where this process's memory may be accounted: its own group and all above it."""
    places: list[tuple[Path, tuple[str, str, str]]] = []
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                places += [(place, _NAMES_2) for place in _upwards(root, path)]
            elif "memory" in controllers.split(","):
                places += [(place, _NAMES_1) for place in _upwards(root / "memory", path)]
    return places


def _upwards(root: Path, path: str) -> list[Path]:
    """A group's directory, and those of all groups that hold it."""
    own = root / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(root))]


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name:
            return int(words[1])
    return 0


def _pss_bytes(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError), Path(f"/proc/{pid}/smaps_rollup").open() as lines:
        for line in lines:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None
