"""What people see where there is no terminal: a line now and then, and tables without padding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.render import LiveProgress, result_console, table_of
from tests.conftest import clean_environment


def test_a_long_stage_says_now_and_then_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveProgress(line_every_s=0.0) as progress:
        progress.stage("training", 3000)
        progress.advance(1200, "loss 0.31 [nats]")
        progress.advance(600)
        progress.advance(1200)
        progress.reach("downloading (MB)", 10, 141)
        progress.reach("downloading (MB)", 141, 141)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training ...",
        "training: 1,200 of 3,000  loss 0.31 [nats]",
        "training: 1,800 of 3,000",
        "downloading (MB) ...",
        "downloading (MB): 10 of 141",
    ]


def test_a_short_stage_says_no_more_than_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveProgress(line_every_s=3600.0) as progress:
        progress.stage("trading", 100)
        for _ in range(100):
            progress.advance(1)
    assert capsys.readouterr().err.splitlines() == ["trading ..."]


def test_a_table_in_a_file_has_no_blanks_at_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = result_console()
    console.print(table_of([("name", "short"), ("another", "x" * 300), ("", "two  blanks")], "title"))
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "name     short",
        f"another  {'x' * 300}",
        "         two  blanks",
    ]


def test_a_reader_who_has_enough_is_no_failure() -> None:
    script = Path(sys.executable).with_name("sage")
    command = f"set -o pipefail; '{script}' model list | head -0"
    environment = clean_environment()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
