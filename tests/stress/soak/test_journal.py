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


def test_a_file_that_somebody_has_cut_off_is_written_again_whole(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.note("event", 1.0, event="something")
    (tmp_path / JOURNAL).write_bytes(b"")
    journal.note("event", 2.0, event="more")
    assert read_journal(tmp_path) == journal.raw


def test_a_long_journal_is_held_packed_and_comes_back_whole(tmp_path: Path) -> None:
    journal = begun(tmp_path / "run")
    for number in range(2_000):
        journal.note("event", float(number), event="something", detail="x" * 50)
    path = tmp_path / "run" / JOURNAL
    assert journal.raw == path.read_bytes()
    path.unlink()
    path.mkdir()
    for number in range(2_000):
        journal.note("event", float(number), event="lost", detail="x" * 50)
    assert journal.unwritten == 2_000
    path.rmdir()
    assert journal.checkpoint() and journal.unwritten == 0
    assert path.read_bytes() == journal.raw
    assert sum(1 for _ in parsed(journal.raw)) == 4_001


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_journal(tmp_path)
    (tmp_path / JOURNAL).write_text('{"kind":"soak","at_s":0,"version":999}\n')
    with pytest.raises(DataError, match="of this version"):
        read_journal(tmp_path)
    (tmp_path / JOURNAL).write_text("nonsense\n")
    with pytest.raises(DataError, match="damaged"):
        read_journal(tmp_path)
