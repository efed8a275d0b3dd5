"""``sage evaluate ensemble`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.app import app

SMALL = ("--markets", "2", "--bars", "500", "--alphas", "3")


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "ensemble", *arguments])


def test_the_study_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    done = sage(*SMALL, "--out", str(tmp_path / "kept"), "--html", str(tmp_path / "ensemble.html"))
    assert done.exit_code == 0, done.stderr
    assert "alternating" in done.stdout and "regret before the floor" in done.stdout
    assert "Sharpe ratios" in (tmp_path / "ensemble.html").read_text()
    again = sage(*SMALL, "--out", str(tmp_path / "kept"), "--json", "--check")
    document = json.loads(again.stdout)
    assert document["reused"] == 8
    met = [finding["met"] for finding in document["findings"]]
    assert again.exit_code == (1 if False in met else 0)


def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    done = sage("--markets", "1")
    assert done.exit_code == 2
    assert "--markets" in done.stderr
    assert sage("--floor", "0.5").exit_code == 2
    (tmp_path / "file").write_text("")
    assert sage("--out", str(tmp_path / "file")).exit_code == 2
