"""``sage evaluate ablation`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.app import app


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "ablation", *arguments])


def test_the_ablation_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[regime]\npinned_level = 2\n[ensemble]\nalphas = ["trend", "reversal"]\n')
    options = ["--seeds", "1", "--bars", "500", "--config", str(config), "--out", str(tmp_path / "kept"), "--check"]
    done = sage(*options, "--html", str(tmp_path / "ablation.html"))
    assert done.exit_code == 5, done.stderr  # a single simulated market decides nothing
    for name in ("trend", "reversal", "equal weights", "ensemble", "buy and hold"):
        assert name in done.stdout
    assert "beside equal weights" in (tmp_path / "ablation.html").read_text()
    assert json.loads(sage(*options, "--json").stdout)["reused"] == 4


def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    for options, said in ((("--seeds", "0"), "nothing to run on"), (("--data", "gold"), "--data gold")):
        done = sage(*options)
        assert done.exit_code == 2
        assert said in done.stderr
    (tmp_path / "file").write_text("")
    assert sage("--out", str(tmp_path / "file")).exit_code == 2
