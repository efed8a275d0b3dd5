"""Where alerts go, and what is left when a place cannot be written."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import OptionError
from regime.alerts import Alert, Severity
from sage.rundir import choose_directory
from sage.sinks import LOGGER, Delivery, FileSink, LogSink

RAISED = Alert(5, "machine.memory", Severity.HIGH, True, "90 % of 4 GiB – much")
CLEARED = Alert(6, "machine.memory", Severity.HIGH, False, "under 80 %")
DRIFT = Alert(7, "drift.errors", Severity.MEDIUM, True, "line\nbreak")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_gets_one_line_for_each_that_comes_or_goes(tmp_path: Path) -> None:
    path = tmp_path / "made" / "alerts.jsonl"
    sink = FileSink(path, clock=lambda: 1.5)
    for alert in (RAISED, CLEARED, DRIFT):
        sink.tell(alert)
    assert lines(path)[0] == {
        "time": "1970-01-01T00:00:01.500+00:00", "state": "raised", "name": "machine.memory", "severity": "HIGH",
        "detail": "90 % of 4 GiB – much", "ts_ns": 5,
    }  # fmt: skip
    assert [line["state"] for line in lines(path)] == ["raised", "cleared", "raised"]
    assert sink.close() == Delivery(f"file {path}", 3)


def test_a_file_is_gone_on_with_also_where_a_line_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    FileSink(path).tell(RAISED)
    with path.open("a") as file:
        file.write('{"half": ')
    FileSink(path).tell(CLEARED)
    whole = [json.loads(line) for line in path.read_text().splitlines() if line != '{"half": ']
    assert [line["state"] for line in whole] == ["raised", "cleared"]


def test_nothing_is_made_before_the_first_alert_so_that_a_file_may_lie_where_the_run_goes(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "a"
    sink = FileSink(place / "alerts.jsonl")
    assert list(tmp_path.iterdir()) == []
    assert choose_directory(place, "stress") == place
    sink.tell(RAISED)
    assert len(lines(place / "alerts.jsonl")) == 1


def test_what_was_there_stays_where_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    for name in ("empty.jsonl", "link.jsonl"):
        FileSink(tmp_path / name)
    assert (tmp_path / "empty.jsonl").exists() and (tmp_path / "link.jsonl").is_symlink()


def test_a_place_that_becomes_unwritable_is_counted_and_named(tmp_path: Path) -> None:
    place = tmp_path / "monitoring"
    sink = FileSink(place / "alerts.jsonl")
    sink.tell(RAISED)
    (place / "alerts.jsonl").unlink()
    place.rmdir()
    place.write_text("a file where the directory was")
    sink.tell(CLEARED)
    sink.tell(DRIFT)
    found = sink.close()
    assert (found.sent, found.failed) == (1, 2)
    assert found.error
    assert "1 sent, 2 failed" in str(found)


def test_a_full_disk_is_counted_too(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "alerts.jsonl")
    sink._path = Path("/dev/full")  # the check at the start would refuse a device
    sink.tell(RAISED)
    assert sink.close().failed == 1


def test_what_is_no_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--alerts .*is no file"):
        FileSink(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OptionError, match="is no file"):
        FileSink(pipe)


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OptionError, match=r"--alerts .*taken/a.jsonl: .*name a file that can be written"):
        FileSink(tmp_path / "taken" / "a.jsonl")


def test_the_log_hears_of_each_with_its_severity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sage.alerts")
    sink = LogSink()
    for alert in (RAISED, CLEARED, DRIFT):
        sink.tell(alert)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "WARNING"]
    assert caplog.records[0].getMessage() == "machine.memory raised: 90 % of 4 GiB – much"
    assert sink.close() == Delivery("log", 3)


def test_a_log_that_nobody_reads_is_told_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", False)  # to the handlers of the test run
    sink = LogSink()
    sink.tell(RAISED)
    assert sink.close() is None
    handler = logging.StreamHandler(io.StringIO())
    LOGGER.addHandler(handler)
    try:
        assert sink.close() == Delivery("log", 1)
    finally:
        LOGGER.removeHandler(handler)


def test_nothing_is_printed_where_nobody_set_up_logging() -> None:
    code = (
        "from regime.alerts import Alert, Severity\nfrom sage.sinks import LogSink\n"
        "LogSink().tell(Alert(1, 'a', Severity.HIGH, True, 'b'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
