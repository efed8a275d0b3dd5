"""``sage evaluate coverage`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.app import app


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "coverage", *arguments])


def test_coverage_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    options = ["--data", "synthetic", "--breaks", "0", "--bars", "300", "--warm-up", "200", "--check"]
    options += ["--out", str(tmp_path / "kept")]
    done = sage(*options, "--html", str(tmp_path / "coverage.html"))
    assert done.exit_code == 5, done.stderr  # a series so short is not judged, and that is no pass
    assert "SYNTHUSDT.SIM 1h" in done.stdout
    assert "no target: SYNTHUSDT.SIM 1h has" in done.stdout
    assert "By bar ahead" in (tmp_path / "coverage.html").read_text()
    document = json.loads(sage(*options, "--json").stdout)
    assert document["reused"] == 1
    assert document["series"][0]["judged"] == 300


def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    done = sage("--breaks", "0")
    assert done.exit_code == 2
    assert "nothing to look at" in done.stderr
    assert sage("--catalog", str(tmp_path), "--data", "sp500").exit_code == 2
    assert sage("--catalog", str(tmp_path / "none")).exit_code == 3
