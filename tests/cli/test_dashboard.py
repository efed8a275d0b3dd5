"""The live view: on a real pseudo-terminal, and where there is none."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.app import app
from cli.dashboard import Dashboard
from cli.frame import ROWS_MAX
from sage.vitals import Vitals
from tests.cli.terminal import on_terminal
from tests.sage.vitals import busy


def short_run(directory: Path, bars: int) -> list[str]:
    """Arguments of a backtest on the indicators alone."""
    config = directory / "short.toml"
    config.write_text(f"[data.synthetic]\nbars = {bars}\n")
    return ["backtest", "--live", "--config", str(config), "--level", "2", "--out", str(directory / "run")]


def test_a_run_on_a_terminal_ends_with_its_figures_and_the_cursor_back(tmp_path: Path) -> None:
    left = on_terminal(short_run(tmp_path, 2_000), columns=140, rows=40)
    assert left.code == 0
    assert not left.cursor_hidden
    assert left.written.count("\x1b[?25l") == left.written.count("\x1b[?25h") == 1
    assert all(len(line) <= 140 for line in left.lines)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", left.written)
    last = shown[shown.rindex("SAGE backtest, synthetic") :]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for figure in ("2,000 of 2,000", "writing the report", "PINNED 2,000", f"{summary['orders']:,} orders", "now "):
        assert figure in last, figure
    # What people read afterwards stands below, untouched.
    assert "Built with technology from NXAI" in last
    assert "processes" in last
    moved_up = {len(move) // len("\x1b[1A\x1b[2K") for move in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", left.written)}
    assert moved_up == {ROWS_MAX - 1}, "every frame is as high as the one before"


def test_ctrl_c_leaves_the_terminal_as_it_was_and_the_last_figures_on_it(tmp_path: Path) -> None:
    arguments = short_run(tmp_path, 200_000)
    left = on_terminal(
        arguments, columns=80, rows=24, interrupt_when=lambda screen: bool(re.search(r"bars +\d?\d,\d{3} of", screen))
    )
    assert left.code == 130
    assert not left.cursor_hidden
    text = "\n".join(left.lines).rstrip()
    assert text.splitlines()[-1].startswith("sage: interrupted")
    assert text.startswith("SAGE backtest, synthetic"), "nothing has scrolled away"
    assert re.search(r"bars +\d+,\d{3} of 200,000", text)
    assert re.search(r"in all( +\d+\.\d\d){3}", text)
    assert text.count("levels %") == 1
    assert all(len(line) <= 80 for line in left.lines)
    assert not (tmp_path / "run").exists()


def test_in_a_pipe_there_are_lines_on_stderr_and_the_result_alone_on_stdout(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*short_run(tmp_path, 400), "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["bars"] == 400
    lines = done.stderr.splitlines()
    assert lines[:3] == ["loading bars ...", "trading ...", "writing the report ..."]
    assert lines[3].startswith("400 of 400 bars, ")
    assert "now SMART" in lines[3]


class Hand:
    """A stopwatch that somebody turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(hand: Hand) -> tuple[Dashboard, io.StringIO]:
    written = io.StringIO()
    return Dashboard("SAGE", Console(file=written, width=80), stopwatch=hand), written


def test_without_a_terminal_there_is_a_line_every_half_minute() -> None:
    hand = Hand()
    dashboard, written = plain(hand)
    calm = dataclasses.replace(busy(), alerts=())
    with dashboard:
        dashboard.stage("loading bars", 1)
        dashboard.stage("trading", 240_000)
        for second in range(90):
            hand.now = float(second)
            dashboard.update(dataclasses.replace(calm, bars=100 * (second + 1)))
        hand.now = 89.5
    lines = written.getvalue().splitlines()
    assert lines[:2] == ["loading bars ...", "trading ..."]
    assert [line.split(" of ")[0] for line in lines[2:]] == ["3,100", "6,100", "9,000"]
    assert "coverage 91.0 %; memory 629 MB; equity 101,000.00, drawdown 2.0 %" in lines[2]
    assert "\x1b" not in written.getvalue()


def test_without_a_terminal_each_alert_is_told_when_it_comes_and_when_it_goes() -> None:
    dashboard, written = plain(Hand())
    breaker, drift = busy().alerts
    for on in ((), (breaker,), (breaker, drift), (breaker, drift), (drift,)):
        dashboard.update(dataclasses.replace(busy(), alerts=on))
    assert written.getvalue().splitlines() == [
        "20,010 bars: HIGH raised model.breaker: the breaker is half-open",
        "20,010 bars: MEDIUM raised drift.errors: the index is 0.4",
        "20,010 bars: HIGH cleared model.breaker",
    ]


def test_a_long_stage_before_the_first_bar_says_now_and_then_how_far_it_is() -> None:
    hand = Hand()
    dashboard, written = plain(hand)
    dashboard.stage("forecasting ahead", 1_000)
    for _ in range(40):
        hand.now += 1.0
        dashboard.advance(25)
    dashboard.reach("downloading (MB)", 10, 141)
    assert written.getvalue().splitlines() == [
        "forecasting ahead ...",
        "forecasting ahead: 750 of 1,000",
        "downloading (MB) ...",
    ]


@pytest.mark.parametrize("reader", ["gone", "full"])
def test_a_log_that_takes_no_more_does_not_end_the_run(reader: str) -> None:
    if reader == "gone":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    code = "from cli.dashboard import Dashboard; view = Dashboard('x'); view.stage('a', 1); view.stage('b', 1)"
    done = subprocess.run([sys.executable, "-c", code], stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == 0


def test_nothing_is_said_of_a_run_that_had_no_bar() -> None:
    dashboard, written = plain(Hand())
    with dashboard:
        dashboard.update(Vitals())
    assert written.getvalue() == ""
