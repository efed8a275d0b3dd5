"""``sage model train`` as people call it: refused where it would write over something, interrupted, gone on with."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.exits import ExitCode

pytestmark = pytest.mark.torch


def train(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["model", "train", "--out", str(out), *arguments])


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts batches; the one whose number is the first of the list is interrupted. The state is saved at each step."""
    from regime.model import training

    real, wanted = training.SeriesPool.batch, [2]

    def batch(pool: training.SeriesPool) -> object:
        wanted[0] -= 1
        if wanted[0] == 0:
            raise KeyboardInterrupt
        return real(pool)

    small = functools.partial(
        training.TrainingConfig, batch_series=4, width=32, hidden_width=32, heads=2, blocks=1, context_bars=64
    )
    monkeypatch.setattr(training, "TrainingConfig", small)
    monkeypatch.setattr(training, "SAVE_EVERY_STEPS", 1)
    monkeypatch.setattr(training, "POOL_SERIES", 16)
    monkeypatch.setattr(training.SeriesPool, "batch", batch)
    yield wanted


def test_an_interrupted_training_says_what_is_kept_and_the_same_command_goes_on(
    tmp_path: Path, batches: list[int]
) -> None:
    out = tmp_path / "model"
    result = train(out, "--steps", "2")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        f"sage: interrupted; the state is in {out}.resume, saved every 1 steps: the same command goes on from there"
    )
    assert not out.exists()
    result = train(out, "--steps", "2")
    assert result.exit_code == ExitCode.OK, result.stderr
    assert f"sage model info {out}" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_one_that_is_interrupted_before_anything_was_saved_says_so(tmp_path: Path, batches: list[int]) -> None:
    batches[0] = 1
    result = train(tmp_path / "model", "--steps", "2")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "nothing is kept before step 1: the same command begins anew" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_training_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes").write_text("mine")
    result = train(tmp_path / "model")
    assert result.exit_code == ExitCode.USAGE
    assert "is there already" in result.stderr
    assert train(tmp_path / "no" / "model").exit_code == ExitCode.USAGE
