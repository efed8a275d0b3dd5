"""``sage backtest --walk-forward`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["backtest", *arguments])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.toml"
    path.write_text("[data.synthetic]\nbars = 330\n[walk_forward.grid]\n'sizing.target_volatility' = [0.1, 0.4]\n")
    return path


def test_windows_are_printed_and_kept(tmp_path: Path, short: Path) -> None:
    done = sage("--walk-forward", "--folds", "2", "--train-bars", "150", "--level", "2", "--config", str(short),
                "--out", str(tmp_path / "walk"))  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "2024-01-07 to 2024-01-11" in done.stdout
    assert "2, each after all earlier bars" in done.stdout
    assert "sizing.target_volatility 0." in done.stdout
    assert "not modelled" in done.stdout
    document = json.loads((tmp_path / "walk" / "walk_forward.json").read_text())
    assert document["config"]["walk_forward"]["folds"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--folds", "3"], 2, "--folds goes with --walk-forward"),
        (["--rolling"], 2, "--rolling goes with --walk-forward"),
        (["--walk-forward", "--folds", "0"], 2, "folds"),
        (["--walk-forward", "--live"], 2, "--live shows one backtest"),
        (["--walk-forward", "--train-bars", "320"], 3, "too few"),
    ],
)
def test_what_makes_no_sense_is_said_and_leaves_nothing(
    tmp_path: Path, short: Path, arguments: list[str], code: int, said: str
) -> None:
    done = sage(*arguments, "--level", "2", "--config", str(short), "--out", str(tmp_path / "walk"))
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
