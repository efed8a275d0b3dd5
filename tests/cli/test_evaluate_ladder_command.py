"""``sage evaluate ladder`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.app import app


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "ladder", *arguments])


def test_the_ladder_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    options = ["--seeds", "1", "--bars", "600", "--seed", "7", "--out", str(tmp_path / "kept"), "--check"]
    done = sage(*options, "--html", str(tmp_path / "ladder.html"))
    assert done.exit_code == 0, done.stderr
    assert "5 EMERGENCY" in done.stdout
    assert "met: EMERGENCY holds nothing" in done.stdout
    assert "BASIC in the place of FULL: Sharpe" in done.stdout
    assert "buy and hold" in (tmp_path / "ladder.html").read_text()
    document = json.loads(sage(*options, "--json").stdout)
    assert document["reused"] == 6
    assert document["findings"][0]["met"] is True


def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    done = sage("--seeds", "0")
    assert done.exit_code == 2
    assert "nothing to run on" in done.stderr
    (tmp_path / "file").write_text("")
    assert sage("--out", str(tmp_path / "file")).exit_code == 2
