"""The engines: right against float64, the same whatever the batch and the threads, clear about what they refuse."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from regime.errors import ModelUnavailable
from regime.model.checkpoint import find_checkpoint
from regime.model.engines import Engine, EngineKind, EngineSpec, choose_engine, load_engine
from regime.model.random_weights import random_weights, write_random_checkpoint
from regime.model.weights import ARCHITECTURES, Architecture, Weights, load_weights
from tests.regime.model.oracle import oracle_forecast

HORIZON = 16

NATIVE = pytest.param("native", marks=pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"))
TORCH = pytest.param("torch", marks=pytest.mark.torch)
OURS = pytest.mark.parametrize("kind", [NATIVE, TORCH])

TALL = Architecture(width=64, heads=2, blocks=3, patch_bars=8, hidden=96, up=192, context_bars=2048)
"""Small sizes, long context, outputs (72) that fill no tile: what the shipped checkpoint does not show."""

_WEIGHTS = {
    "compact": load_weights(find_checkpoint("embedded")),
    "tall": Weights(TALL, random_weights(TALL, seed=5), TALL.hyper_parameters()),
}
_ENGINES: dict[tuple[str, str], Engine] = {}


def engine(kind: EngineKind, network: str = "compact") -> Engine:
    if (kind, network) not in _ENGINES:
        _ENGINES[kind, network] = load_engine(_WEIGHTS[network], EngineSpec(kind=kind))[0]
    return _ENGINES[kind, network]


def contexts(rows: int, bars: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (0.01 * rng.standard_t(4, size=(rows, bars))).astype(np.float32)


def deviations_off(found: NDArray[np.float32], exact: NDArray[np.float64], asked: NDArray[np.float32]) -> float:
    """Largest difference, in standard deviations of its context (or its level, where that is constant)."""
    asked = asked.astype(np.float64)
    spread = np.nanstd(asked, axis=1)
    unit = np.where(spread > 0, spread, np.abs(np.nanmean(asked, axis=1)) + 1e-5)
    return float(np.max(np.abs(found - exact) / unit[:, None, None]))


@OURS
@pytest.mark.parametrize("network", sorted(_WEIGHTS))
@pytest.mark.parametrize("bars", [1, 7, 8, 17, 128, 512, 2047, 2048, 2500])
def test_forecasts_are_those_of_float64(kind: EngineKind, network: str, bars: int) -> None:
    asked = contexts(2, bars, seed=bars)
    found = engine(kind, network).forecast(asked, HORIZON)
    assert found.shape == (2, HORIZON, 9)
    assert found.dtype == np.float32
    assert deviations_off(found, oracle_forecast(_WEIGHTS[network], asked, HORIZON), asked) < 1e-4


@OURS
@given(data=st.data())
def test_forecasts_are_those_of_float64_whatever_is_missing(kind: EngineKind, data: st.DataObject) -> None:
    bars, seed = data.draw(st.integers(1, 300)), data.draw(st.integers(0, 2**20))
    asked = contexts(2, bars, seed)
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.integers(0, bars - 1))
        asked[data.draw(st.integers(0, 1)), first : first + data.draw(st.integers(1, 80))] = np.nan
    horizon = data.draw(st.integers(1, 40))
    if np.isnan(asked).all(axis=1).any():
        return
    found = engine(kind).forecast(asked, horizon)
    assert deviations_off(found, oracle_forecast(_WEIGHTS["compact"], asked, horizon), asked) < 1e-4


@OURS
@pytest.mark.parametrize("horizon", [1, 8, 9, 100, 512])
def test_horizons_beyond_one_patch_are_those_of_float64(kind: EngineKind, horizon: int) -> None:
    asked = contexts(1, 512)
    found = engine(kind).forecast(asked, horizon)
    assert found.shape == (1, horizon, 9)
    assert deviations_off(found, oracle_forecast(_WEIGHTS["compact"], asked, horizon), asked) < 1e-4


@OURS
@pytest.mark.parametrize("level", [0.0, 0.01, -3.0, 1e6])
def test_a_series_that_does_not_vary_is_scaled_by_its_level(kind: EngineKind, level: float) -> None:
    asked = np.full((1, 333), level, dtype=np.float32)
    found = engine(kind).forecast(asked, HORIZON)
    assert deviations_off(found, oracle_forecast(_WEIGHTS["compact"], asked, HORIZON), asked) < 1e-4


@pytest.mark.torch
@OURS
def test_forecasts_are_those_of_tirex_ts_to_its_own_rounding(kind: EngineKind) -> None:
    asked = contexts(8, 512)
    asked[0, :200] = np.nan
    stock = load_engine(_WEIGHTS["compact"], EngineSpec(kind="stock"))[0].forecast(asked, HORIZON)
    ours = engine(kind).forecast(asked, HORIZON)
    exact = oracle_forecast(_WEIGHTS["compact"], asked, HORIZON)
    rounding = deviations_off(stock, exact, asked)
    assert deviations_off(ours, exact, asked) < rounding
    assert deviations_off(ours, stock.astype(np.float64), asked) < 2 * rounding < 0.05


def staggered(rows: int, bars: int = 512) -> NDArray[np.float32]:
    """Windows of all lengths, as they come while a run warms up."""
    asked = contexts(rows, bars)
    for row, known in enumerate(np.linspace(1, bars, rows).astype(int)):
        asked[row, : bars - known] = np.nan
    return asked


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("network", sorted(_WEIGHTS))
def test_a_row_of_the_native_engine_does_not_depend_on_its_batch_by_a_bit(network: str) -> None:
    asked = staggered(97)
    together = engine("native", network).forecast(asked, 20)
    np.testing.assert_array_equal(engine("native", network).forecast(asked[::-1].copy(), 20)[::-1], together)
    for rows in (1, 2, 3, 13):
        for start in range(0, 97 - rows, 19):
            part = engine("native", network).forecast(asked[start : start + rows], 20)
            np.testing.assert_array_equal(part, together[start : start + rows])


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_threads_change_no_bit(rows: int) -> None:
    asked = staggered(rows)
    alone = load_engine(_WEIGHTS["tall"], EngineSpec(kind="native", threads=1))[0].forecast(asked, HORIZON)
    shared = load_engine(_WEIGHTS["tall"], EngineSpec(kind="native", threads=2))[0]
    for _ in range(50):  # a race would show sooner or later
        np.testing.assert_array_equal(shared.forecast(asked, HORIZON), alone)


@OURS
def test_what_stands_in_other_rows_changes_nothing(kind: EngineKind) -> None:
    one, other = staggered(32), staggered(32)
    other[7:] = contexts(25, 512, seed=9)
    np.testing.assert_array_equal(engine(kind).forecast(one, HORIZON)[:7], engine(kind).forecast(other, HORIZON)[:7])


@OURS
@pytest.mark.parametrize(
    ("asked", "horizon", "said"),
    [
        (np.array([[0.1, np.inf, 0.2]], dtype=np.float32), 16, "context 0 is infinite at bar 1"),
        (np.vstack([contexts(1, 64), np.full((1, 64), np.nan, dtype=np.float32)]), 16, "context 1 holds no value"),
        (np.empty((1, 0), dtype=np.float32), 16, "zero bars"),
        (np.empty((0, 5), dtype=np.float32), 16, "a row at least"),
        (np.zeros(5, dtype=np.float32), 16, r"shape \(rows, bars\)"),
        (np.zeros((1, 5), dtype=np.int64), 16, "floating-point numbers, not int64"),
        (contexts(1, 64), -1, "horizon of -1 bars"),
        (contexts(1, 64), 0, "horizon of 0 bars"),
        (contexts(1, 64), 513, "between 1 and 512"),
    ],
)
def test_what_has_no_forecast_is_refused_with_the_reason(
    kind: EngineKind, asked: NDArray[np.generic], horizon: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        engine(kind).forecast(asked, horizon)


@pytest.mark.torch
def test_a_hyper_parameter_that_tirex_ts_does_not_know_is_told() -> None:
    weights = _WEIGHTS["compact"]
    model = weights.hyper_parameters["model_config"] | {"sliding": 3}
    strange = dataclasses.replace(weights, hyper_parameters=weights.hyper_parameters | {"model_config": model})
    with pytest.raises(ModelUnavailable, match=r"tirex-ts refuses this model \(.*'sliding'\); --engine torch"):
        load_engine(strange, EngineSpec(kind="stock"))


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelUnavailable, match="'warp': unknown; one of auto, native, torch, stock"):
        choose_engine(EngineSpec(kind="warp"))  # type: ignore[arg-type]


@pytest.mark.torch
def test_a_gpu_that_is_not_there_is_missed_with_a_message() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelUnavailable, match="torch finds no usable GPU"):
        load_engine(_WEIGHTS["compact"], EngineSpec(device="cuda"))
    with pytest.raises(ModelUnavailable, match="on the CPU only"):
        choose_engine(EngineSpec(kind="native", device="cuda"))


@pytest.mark.torch
def test_bfloat16_says_how_far_it_is_from_float32() -> None:
    rounded, choice = load_engine(_WEIGHTS["compact"], EngineSpec(dtype="bfloat16"))
    assert choice.kind == "torch"
    asked = contexts(4, 512)
    off = deviations_off(rounded.forecast(asked, HORIZON), oracle_forecast(_WEIGHTS["compact"], asked, HORIZON), asked)
    assert 1e-4 < off < 0.1
    said = re.search(r"up to (\S+) standard deviations from float32", choice.note)
    assert said is not None
    assert 1e-4 < float(said[1]) < 0.1
    with pytest.raises(ModelUnavailable, match="in float32 on the CPU only"):
        choose_engine(EngineSpec(kind="native", dtype="bfloat16"))


_SHORT_OF_MEMORY = """
import resource
import numpy as np
from regime.model.checkpoint import find_checkpoint
from regime.model.engines import EngineSpec, load_engine
from regime.model.weights import load_weights
engine, _ = load_engine(load_weights(find_checkpoint("embedded")), EngineSpec(kind="torch"))
windows = np.random.default_rng(0).standard_normal((2000, 512)).astype(np.float32)
engine.forecast(windows[:512, :16], 16)  # starts the threads, and keeps little memory to use again
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, ((used + 1000) * 1024,) * 2)
try:
    engine.forecast(windows, 16)
except MemoryError as error:
    print("MemoryError:", error)
"""


@pytest.mark.torch
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked up in /proc")
def test_torch_short_of_memory_is_a_memory_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SHORT_OF_MEMORY], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.startswith("MemoryError"), done.stderr


@pytest.mark.torch
def test_sizes_that_fit_no_tile_are_left_to_torch_and_answered_right() -> None:
    odd = Architecture(width=24, heads=2, blocks=2, patch_bars=8, hidden=20, up=64, context_bars=64)
    weights = Weights(odd, random_weights(odd, seed=1), odd.hyper_parameters())
    chosen, choice = load_engine(weights, EngineSpec())
    assert choice.kind == "torch"
    assert "multiples" in choice.note
    asked = contexts(2, 64)
    assert deviations_off(chosen.forecast(asked, 8), oracle_forecast(weights, asked, 8), asked) < 1e-4
    with pytest.raises(ModelUnavailable, match="multiples"):
        load_engine(weights, EngineSpec(kind="native"))


SAYS_ITS_CHOICE = (
    "from regime.model.engines import EngineSpec, choose_engine\n"
    "choice = choose_engine(EngineSpec(kind={kind!r}))\n"
    "print(choice.kind, choice.name, choice.note)\n"
)


def chosen_in(environment: dict[str, str], kind: str = "auto") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SAYS_ITS_CHOICE.format(kind=kind)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.torch
def test_without_a_compiler_torch_takes_over_and_says_so(tmp_path: Path) -> None:
    found = chosen_in({"CC": "", "PATH": str(tmp_path)})
    assert found.stdout.startswith("torch torch-"), found.stderr
    assert "no C compiler found" in found.stdout


@pytest.mark.torch
def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\necho no such instruction >&2; exit 1\n')
    compiler.chmod(0o755)
    found = chosen_in({"CC": str(compiler), "XDG_CACHE_HOME": str(tmp_path)})
    assert found.stdout.startswith("torch "), found.stderr
    assert "no such instruction" in found.stdout
    assert not list(tmp_path.rglob("*.part"))
    insisting = chosen_in({"CC": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}, kind="native")
    assert insisting.returncode == 1
    assert "--engine torch runs without it" in insisting.stderr


FORECASTS_LIKE_FLOAT64 = """
import sys, numpy as np
from regime.model.engines import EngineSpec, load_engine
from tests.regime.model import test_engines as shared
engine, choice = load_engine(shared._WEIGHTS["tall"], EngineSpec(kind="native"))
asked = shared.staggered(13, 700)
exact = shared.oracle_forecast(shared._WEIGHTS["tall"], asked, 20)
together = engine.forecast(asked, 20)
assert (together[5:6] == engine.forecast(asked[5:6], 20)).all()
print(choice.name, shared.deviations_off(together, exact, asked))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")
@pytest.mark.parametrize(("march", "isa"), [("x86-64", "generic"), ("x86-64-v3", "avx2"), ("x86-64-v4", "avx512")])
def test_every_instruction_set_forecasts_like_float64(tmp_path: Path, march: str, isa: str) -> None:
    if isa != "generic" and f" {isa.replace('512', '512f')} " not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {isa}")
    environment = os.environ | {"SAGE_MARCH": march, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", FORECASTS_LIKE_FLOAT64]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, off = done.stdout.split()
    assert name.startswith(f"native-{isa}-")
    assert float(off) < 1e-4


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_native_engine_is_compiled_once_and_without_torch(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    first = chosen_in(environment)
    assert first.stdout.startswith("native native-"), first.stderr
    (library,) = (tmp_path / "sage" / "native").iterdir()
    made = library.stat().st_mtime_ns
    assert chosen_in(environment).stdout == first.stdout
    assert library.stat().st_mtime_ns == made


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("damage", [lambda content: content[:5000], lambda content: content[:-64] + bytes(64), None])
def test_a_library_that_was_damaged_is_compiled_again(tmp_path: Path, damage: Callable[[bytes], bytes] | None) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    first = chosen_in(environment)
    (library,) = (tmp_path / "sage" / "native").iterdir()
    content = library.read_bytes()
    library.write_bytes(b"" if damage is None else damage(content))
    again = chosen_in(environment)
    assert again.stdout == first.stdout, again.stderr
    (library,) = (tmp_path / "sage" / "native").iterdir()
    assert len(library.read_bytes()) == len(content)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_where_the_cache_cannot_be_written_the_library_is_made_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = chosen_in({"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)})
    assert found.stdout.startswith("native "), found.stderr
    assert list(tmp_path.glob("sage-native-*/forward-*.so"))


def test_random_checkpoints_are_seeded_and_forecast_in_order(tmp_path: Path) -> None:
    small = ARCHITECTURES["compact"]
    one, two, other = (
        find_checkpoint(str(write_random_checkpoint(small, seed, tmp_path / name)))
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.sha256 == two.sha256 != other.sha256
    chosen, _ = load_engine(load_weights(one), EngineSpec())
    found = chosen.forecast(contexts(4, 512), HORIZON)
    assert (np.diff(found, axis=2) > 0).all()
