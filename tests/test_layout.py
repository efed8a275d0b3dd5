"""The layout is the architecture: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("cli", "stress", "sage", "regime", "data")

ALLOWED = {
    "cli": {"cli", "stress", "sage", "regime", "data"},
    "stress": {"stress", "sage", "regime", "data"},
    "sage": {"sage", "regime", "data"},
    "regime": {"regime"},
    "data": {"data"},
}

NAUTILUS_IN_REGIME = {"actor.py", "nt_signal.py"}
TORCH_IN = {f"regime/model/{name}.py" for name in ("pickled", "portable", "scan", "slstm", "stock", "training")}
NAUTILUS_FREE_IN_SAGE = {
    "sizing.py", "ledger.py", "performance.py", "config.py", "ensemble.py", "weights.py", "votes.py",
    "vitals.py", "watch.py", "sinks.py", "webhook.py", "metrics.py", "telemetry.py", "collector.py",
    *(f"models/{name}.py" for name in ("alpha", "forecast", "trend", "reversal", "features", "breakout", "built_in")),
}  # fmt: skip


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards_only(room: str) -> None:
    for path in files_of(room):
        upwards = imports_of(path) & set(ROOMS) - ALLOWED[room]
        assert not upwards, f"{path.relative_to(ROOT)} imports {upwards}"


def test_the_rule_would_notice_an_upward_import(tmp_path: Path) -> None:
    offender = tmp_path / "offender.py"
    offender.write_text("def late():\n    from sage.strategy import SageStrategy\n")
    assert imports_of(offender) & set(ROOMS) - ALLOWED["regime"] == {"sage"}


def test_in_regime_only_actor_and_signal_know_nautilus() -> None:
    knowing = {path.name for path in files_of("regime") if "nautilus_trader" in imports_of(path)}
    assert knowing == NAUTILUS_IN_REGIME


def test_decision_logic_knows_no_nautilus_types() -> None:
    for name in NAUTILUS_FREE_IN_SAGE:
        assert "nautilus_trader" not in imports_of(ROOT / "sage" / name), name


def test_torch_stays_with_the_model() -> None:
    heavy = {"torch", "tirex"}
    knowing = {str(path.relative_to(ROOT)) for room in ROOMS for path in files_of(room) if imports_of(path) & heavy}
    assert knowing == TORCH_IN


def test_the_trading_side_loads_without_torch() -> None:
    code = "import sys, cli.app, sage.backtest, sage.rundir; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_declares_itself_without_heavy_imports() -> None:
    heavy = "{'numpy', 'pandas', 'nautilus_trader', 'torch', 'pyarrow'}"
    code = f"import sys, cli.app; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


COMMANDS = {
    "training.py",
    "bench.py",
    "lateness.py",
    "growth_study.py",
    "luck_study.py",
    "sweep_bench.py",
    "ingest_bench.py",
}
"""Command lines of their own."""


def test_no_library_code_prints() -> None:
    for room in ("data", "regime", "sage", "stress"):
        for path in files_of(room):
            if path.name in COMMANDS:
                continue
            calls = [
                node
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            ]
            assert not calls, path


def test_every_package_is_installed() -> None:
    """An editable install would hide one that is left out."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(declared) == found
