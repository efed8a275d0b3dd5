"""``sage stress`` as a user sees it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from cli.app import app
from cli.dashboard import Dashboard
from cli.exits import ExitCode
from cli.stress import _Audience, _failures_told
from sage.telemetry import Telemetry, telemetry
from sage.vitals import Vitals
from sage.watch import WatchConfig
from stress.soak.journal import JOURNAL, parsed
from tests.sage.receivers import receiver

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--segment-bars", "250", "--seed", "2"]


def stress(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stress", *arguments])


@pytest.fixture
def soaking(tmp_path: Path) -> subprocess.Popen[str]:
    """A soak without end in a process of its own."""
    command = [sys.executable, "-c", "from cli.app import app; app()", "stress", "--hours", "9", *SMALL]
    return subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_a_segment(directory: Path, process: subprocess.Popen[str]) -> None:
    """Until a segment is in the journal."""
    until = time.monotonic() + 120.0
    while time.monotonic() < until and process.poll() is None:
        if (directory / JOURNAL).exists() and '"kind":"segment"' in (directory / JOURNAL).read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"no segment in two minutes; exit code {process.poll()}")


def test_a_short_soak_is_undecided_and_its_json_has_everything(tmp_path: Path) -> None:
    done = stress(
        "--bars", "500", *SMALL, "--out", str(tmp_path / "run"), "--json", "--alerts", str(tmp_path / "run" / "a.jsonl")
    )
    assert done.exit_code == ExitCode.UNDECIDED, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "undecided" and document["bars"] == 500
    assert {"checks", "memory", "levels", "events", "configuration", "telemetry", "problems"} <= document.keys()
    assert document["memory"]["NautilusTrader alone (control)"]["ours"] is False
    assert (tmp_path / "run" / "report.html").exists()


def test_ctrl_c_leaves_a_report_and_says_how_to_go_on(soaking: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_for_a_segment(tmp_path / "run", soaking)
    family = psutil.Process(soaking.pid).children(recursive=True)
    soaking.send_signal(signal.SIGINT)
    stdout, stderr = soaking.communicate(timeout=60)
    assert soaking.returncode == ExitCode.INTERRUPTED
    assert "--resume" in stderr.splitlines()[-1] and "verdict" in stdout
    assert (tmp_path / "run" / "stress.json").exists()
    assert not psutil.wait_procs(family, timeout=20)[1]


def test_what_is_killed_outright_leaves_no_process_and_can_be_gone_on_with(
    soaking: subprocess.Popen[str], tmp_path: Path
) -> None:
    wait_for_a_segment(tmp_path / "run", soaking)
    family = psutil.Process(soaking.pid).children(recursive=True)
    os.kill(soaking.pid, signal.SIGKILL)
    soaking.communicate(timeout=60)
    assert not psutil.wait_procs(family, timeout=30)[1]
    played = sum(line["kind"] == "segment" for line in parsed((tmp_path / "run" / JOURNAL).read_bytes()))
    done = stress("--bars", str(250 * (played + 1)), *SMALL, "--resume", str(tmp_path / "run"), "--json")
    document = json.loads(done.stdout)
    assert document["segments"] == played + 1
    assert [event["event"] for event in document["events"]].count("resumed") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say how long"),
        (["--hours", "1", "--bars", "5"], "exclude each other"),
        (["--hours", "-1"], "--hours -1"),
        (["--bars", "500", "--faults", "some"], "--faults some"),
        (["--bars", "500", "--plant", "gold@trading=1"], "--plant gold@trading=1"),
        (["--bars", "500", "--architecture", "gpt"], "--architecture gpt"),
        (["--bars", "500", "--instrument", "BTCUSDT.TEST"], "--instrument goes with --catalog"),
        (["--bars", "500", "--metrics-port", "99999"], "99999"),
        (["--bars", "500", "--webhook-url-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (["--bars", "500", "--out", "a", "--resume", "b"], "exclude each other"),
        (["--bars", "500", "--out", "a", "--alerts", "a"], "--alerts a: the soak itself writes there"),
        (["--bars", "500", "--out", "a", "--alerts", "a/journal.jsonl"], "choose another name"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_before_anything_begins(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = stress(*arguments)
    assert done.exit_code == ExitCode.USAGE, done.stderr
    assert message in done.stderr and not list(tmp_path.iterdir())


def test_what_a_webhook_does_not_deliver_is_said_while_it_fails_and_each_alert_but_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    with receiver("404") as server, telemetry_to(server.url, monkeypatch) as consumer:
        view = Dashboard("SAGE stress", Console(file=written, width=80))
        with _failures_told(view):
            _Audience(view, consumer).update(Vitals(bars=7, elapsed_s=1.0, stalled=True))
            until = time.monotonic() + 20.0
            while "not delivered" not in written.getvalue():
                assert time.monotonic() < until, "nobody was told"
                time.sleep(0.01)
    told = written.getvalue().splitlines()
    assert told == [
        "7 bars: HIGH raised run.stalled: nothing is heard of the trading process",
        f"sage: webhook http://127.0.0.1:{server.server_address[1]}/…: an alert was not delivered: HTTP 404",
    ]


def telemetry_to(url: str, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[Telemetry]:
    monkeypatch.setenv("HOOK", url)
    return telemetry(WatchConfig(), webhook_url_env="HOOK")


def test_there_must_be_something_to_go_on_with(tmp_path: Path) -> None:
    done = stress("--bars", "500", "--resume", str(tmp_path))
    assert done.exit_code == ExitCode.BAD_DATA and JOURNAL in done.stderr


def test_without_a_model_there_is_nothing_to_soak(tmp_path: Path) -> None:
    done = stress("--bars", "500", "--model", "no-such-model", "--out", str(tmp_path / "run"))
    assert done.exit_code == ExitCode.MODEL_UNAVAILABLE and "no-such-model" in done.stderr
