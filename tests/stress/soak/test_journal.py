"""What a soak writes down survives what happens to the place where it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import DataError
from stress.soak.journal import JOURNAL, VERSION, Journal, parsed, read_journal


def begun(directory: Path) -> Journal:
    journal = Journal(directory)
    journal.note("soak", 0.0, version=VERSION)
    return journal


def test_each_line_is_in_the_file_as_soon_as_it_is_noted(tmp_path: Path) -> None:
    journal = begun(tmp_path / "run")
    journal.note("event", 1.5, event="something")
    lines = (tmp_path / "run" / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["soak", "event"]
    assert journal.raw == read_journal(tmp_path / "run")


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    begun(tmp_path)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"kind":"sam')
    earlier = read_journal(tmp_path)
    journal = Journal(tmp_path, earlier)
    journal.note("event", 2.0, event="resumed")
    assert [line["kind"] for line in parsed(path.read_bytes())] == ["soak", "event"]


def test_a_place_that_is_gone_costs_nothing_but_the_file_and_all_of_it_comes_when_it_is_back(tmp_path: Path) -> None:
    journal = begun(tmp_path / "run")
    (tmp_path / "run" / JOURNAL).unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file in its way")
    journal.note("event", 1.0, event="lost")
    assert JOURNAL in journal.lost and journal.unwritten >= 1
    assert not journal.checkpoint()
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    assert journal.checkpoint() and not journal.lost and journal.unwritten == 0
    assert read_journal(tmp_path / "run") == journal.raw


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_journal(tmp_path)
    (tmp_path / JOURNAL).write_text('{"kind":"soak","at_s":0,"version":999}\n')
    with pytest.raises(DataError, match="of this version"):
        read_journal(tmp_path)
    (tmp_path / JOURNAL).write_text("nonsense\n")
    with pytest.raises(DataError, match="damaged"):
        read_journal(tmp_path)
