"""What the processes of a run take of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.processes import Machine, MachineSample, Sampler, gpu_memory, memory_of_container

MIB = 1 << 20
HOARDER = "import sys\nheld = bytearray(b'1') * (64 << 20)\nprint('held', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def hoarder() -> Iterator[subprocess.Popen[str]]:
    """A child that holds 64 MiB."""
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", HOARDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.communicate()


def test_a_childs_memory_is_seen_under_its_role(hoarder: subprocess.Popen[str]) -> None:
    sample = Machine(lambda: {os.getpid(): "watching", hoarder.pid: "control"}).sample()
    roles = {process.role: process for process in sample.processes}
    control = roles["control"]
    assert control.pid == hoarder.pid
    assert 64 * MIB < control.rss_bytes < 100 * MIB
    assert control.pss_bytes is None or 64 * MIB < control.pss_bytes <= control.rss_bytes
    assert control.threads == 1 and control.open_files >= 3
    assert roles["watching"].pid == os.getpid()


def test_a_child_that_nobody_named_is_another_one(hoarder: subprocess.Popen[str]) -> None:
    sample = Machine(dict).sample()
    assert {process.role for process in sample.processes if process.pid == hoarder.pid} == {"other"}


def test_a_child_that_ended_is_left_out(hoarder: subprocess.Popen[str]) -> None:
    machine = Machine(dict)
    assert hoarder.pid in {process.pid for process in machine.sample().processes}
    hoarder.communicate()
    assert hoarder.pid not in {process.pid for process in machine.sample().processes}


def container(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /sys/fs/cgroup and /proc."""
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(line)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root, proc


def test_a_container_of_the_second_kind_says_its_limit_and_what_is_used(tmp_path: Path) -> None:
    files = {
        "app/memory.current": "700",
        "app/memory.max": "1000",
        "app/memory.stat": "anon 600\ninactive_file 50\n",
    }
    assert memory_of_container(*container(tmp_path, "0::/app\n", files)) == (650, 1000)


def test_seen_from_inside_the_container_is_the_root(tmp_path: Path) -> None:
    files = {"memory.current": "700", "memory.max": "1000", "memory.stat": "inactive_file 0\n"}
    assert memory_of_container(*container(tmp_path, "0::/elsewhere\n", files)) == (700, 1000)


def test_a_container_of_the_first_kind_says_them_too(tmp_path: Path) -> None:
    files = {
        "memory/app/memory.usage_in_bytes": "700",
        "memory/app/memory.limit_in_bytes": "1000",
        "memory/app/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
    }
    assert memory_of_container(*container(tmp_path, "4:memory:/app\n0::/\n", files)) == (650, 1000)


@pytest.mark.parametrize("limit", ["max", str((1 << 63) - 4096), "nonsense"])
def test_without_a_limit_the_machines_memory_is_it(tmp_path: Path, limit: str) -> None:
    files = {"memory.current": "700", "memory.max": limit, "memory.stat": "inactive_file 0\n"}
    used, total = memory_of_container(*container(tmp_path, "0::/\n", files))
    assert total > 256 * MIB and 0 < used < total


def test_the_tightest_group_above_counts_and_none_that_exceeds_the_machine(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    own = root / "tight" / "own"
    own.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/tight/own\n")
    for place, limit in ((own, "max"), (root / "tight", str(64 << 20)), (root, str(1 << 59))):
        (place / "memory.current").write_text(str(32 << 20))
        (place / "memory.max").write_text(limit)
        (place / "memory.stat").write_text("inactive_file 0\n")
    assert memory_of_container(root, proc) == (32 << 20, 64 << 20)


def test_of_several_gpus_the_fullest_counts() -> None:
    assert gpu_memory("100, 1000\n900, 1000\n") == (900 * MIB, 1000 * MIB)
    assert gpu_memory("N/A, N/A\n") is None


def test_a_sampler_looks_again_and_again_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with Sampler(Machine(dict), every_s=0.01) as sampler:
        seen = set()
        until = time.monotonic() + 30.0
        while len(seen) < 3 and time.monotonic() < until:
            seen.add(sampler.newest.at_s if sampler.newest is not None else None)
            time.sleep(0.01)
    assert len(seen) >= 3
    assert threading.active_count() == before


def test_a_sampler_outlives_a_machine_that_cannot_be_looked_at() -> None:
    class Blind(Machine):
        looks = 0

        def sample(self) -> MachineSample:
            Blind.looks += 1
            if Blind.looks < 3:
                raise PermissionError("not now")
            return super().sample()

    with Sampler(Blind(dict), every_s=0.01) as sampler:
        until = time.monotonic() + 30.0
        while sampler.newest is None and time.monotonic() < until:
            time.sleep(0.01)
    assert sampler.newest is not None
