"""Files that appear whole or not at all, and errors that say which."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from regime.files import write_durably


def test_a_full_disk_leaves_what_was_there_and_is_told_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_durably(path, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as raised:
            write_durably(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "before"


def test_a_directory_that_is_not_there_is_told_with_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        write_durably(tmp_path / "nowhere" / "results.json", "")
    assert raised.value.filename == str(tmp_path / "nowhere" / "results.json")
