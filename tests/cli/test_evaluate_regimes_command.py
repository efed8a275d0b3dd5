"""``sage evaluate regimes`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.app import app

SMALL = ("--seeds", "1", "--bars", "300")


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "regimes", *arguments])


def test_the_study_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    kept, picture = tmp_path / "kept", tmp_path / "regimes.html"
    done = sage(*SMALL, "--out", str(kept), "--html", str(picture))
    assert done.exit_code == 0, done.stderr
    assert "Transition within 20 bars" in done.stdout and "no target" in done.stdout
    assert "Are the regimes right?" in picture.read_text()
    before = sorted((path, path.stat().st_mtime_ns) for path in kept.rglob("*.json"))
    again = sage(*SMALL, "--out", str(kept), "--json", "--check")
    document = json.loads(again.stdout)
    assert again.exit_code == 5  # one series decides nothing, and that is no pass
    assert len(document["cells"]) == 4
    assert before == sorted((path, path.stat().st_mtime_ns) for path in kept.rglob("*.json"))


def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    done = sage("--seeds", "0")
    assert done.exit_code == 2
    assert "--seeds" in done.stderr
    assert sage("--bars", "10").exit_code == 2
    (tmp_path / "file").write_text("")
    assert sage("--out", str(tmp_path / "file")).exit_code == 2
