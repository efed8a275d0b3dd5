"""Forecast stores for tests: forecasts that any process can tell right from wrong by their window's number."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regime.serving.store import ForecastStore, StoreKey

KEY = StoreKey("ab" * 32, "native-1-avx2", "float32", "cpu", context_bars=512, horizon_bars=4)
OTHER_KEY = StoreKey("cd" * 32, "native-1-avx2", "float32", "cpu", context_bars=512, horizon_bars=4)

ROOT = Path(__file__).parent.parent.parent


def window(number: int) -> bytes:
    """The key of a window, 16 bytes."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def answer(number: int, engine: int = 0) -> NDArray[np.float32]:
    """What the model says of that window, shape (4, 9); a second engine says something else."""
    return (number + 0.5 * engine + np.arange(36).reshape(4, 9) / 64).astype(np.float32)


def fill(store: ForecastStore, numbers: Iterable[int], engine: int = 0) -> int:
    """Put the forecasts of these windows, as one part."""
    chosen = list(numbers)
    return store.put_many([window(number) for number in chosen], np.stack([answer(n, engine) for n in chosen]))


def filled(root: Path, *parts: Iterable[int], key: StoreKey = KEY) -> ForecastStore:
    """A store with these parts, opened anew."""
    writer = ForecastStore(root, key)
    for numbers in parts:
        fill(writer, numbers)
    return ForecastStore(root, key)


def held(store: ForecastStore, numbers: Iterable[int]) -> list[int]:
    """Those of these windows that the store answers; every answer must be the right one."""
    found = []
    for number in numbers:
        quantiles = store.get(window(number))
        if quantiles is not None:
            assert np.array_equal(quantiles, answer(number)), number
            found.append(number)
    return found


def part_paths(root: Path, key: StoreKey = KEY) -> list[Path]:
    """The parts of a key, in no order that means anything."""
    return sorted((root / key.digest).glob("part-*.parquet"))


def part_of(root: Path, number: int) -> Path:
    """The part that holds a window."""
    (found,) = (path for path in part_paths(root) if window(number) in path.read_bytes())
    return found


def leftovers(root: Path) -> list[Path]:
    """Temporary files."""
    return sorted(root.rglob(".tmp-*"))


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that knows this module's names, and its arguments as ``arguments``."""
    head = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from regime.errors import StoreError\n"
        "from regime.serving.store import ForecastStore\n"
        "from regime.serving.storekeeping import prune\n"
        "from tests.regime.stores import *\n"
        "arguments = sys.argv[1:]\n"
        "def die(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and output of a process, once it is over."""
    output, _ = running.communicate(timeout=120)
    return running.returncode, output
