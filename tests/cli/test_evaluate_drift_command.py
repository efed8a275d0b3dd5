"""``sage evaluate drift`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app


def sage(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "drift", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", "1"], "--streams must lie"),
        (["--before", "1000"], "--before must be 3,512 or more"),
        (["--kind", "wild"], "must be one of independent"),
        (["--engine", "steam"], "--engine steam"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], message: str) -> None:
    done = sage(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_file_is_no_place_to_keep_streams(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert sage("--out", str(tmp_path / "file")).exit_code == 2


@pytest.mark.long
def test_the_study_is_printed_drawn_and_kept(tmp_path: Path) -> None:
    options = ["--kind", "independent", "--streams", "2", "--before", "3600", "--after", "600", "--out", str(tmp_path)]
    done = sage(*options, "--html", str(tmp_path / "drift.html"))
    assert done.exit_code == 0, done.stderr
    assert "False alarms per 1,000 bars" in done.stdout
    assert "met: health finds model's widths x3 on 100%" in done.stdout
    assert "volatility x2" in (tmp_path / "drift.html").read_text()
    document = json.loads(sage(*options, "--json").stdout)
    assert document["false_alarms_per_1000_bars"]["independent t(5)"]["health"]["count"] == 0
