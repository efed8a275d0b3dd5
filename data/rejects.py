"""Rows that are no bars: kept as a table on the disk, however many they are."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import pandas as pd

_HELD_BYTES = 2**22
"""More of the table than that lies on the disk, in a file without a name, which goes with the process."""


class Rejects:
    """Collects rejected rows with the columns ``file, row, reason, fields``.

    Use as a context manager; leaving it drops what :meth:`save` has not saved.

    Parameters
    ----------
    near
        An existing directory on the disk that has room for them.
    """

    def __init__(self, near: Path) -> None:
        self._table = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            _HELD_BYTES, mode="w+", encoding="utf-8", newline="", dir=str(near)
        )
        self._count = 0

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    def append(self, rows: pd.DataFrame) -> None:
        """Keep rows. Raises OSError where the disk is full."""
        if len(rows):
            rows.to_csv(self._table, index=False, header=not self._count)
            self._count += len(rows)

    def save(self, path: Path) -> Path | None:
        """Replace a CSV file by these rows at once, and only where it has others; without rows it goes.

        Returns
        -------
        Where they are, or None if there are none.
        """
        if not self._count:
            path.unlink(missing_ok=True)
            return None
        temporary = path.with_name(f".{path.name}.tmp")
        self._table.seek(0)
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            shutil.copyfileobj(self._table, stream)
        if path.exists() and filecmp.cmp(temporary, path, shallow=False):
            temporary.unlink()
        else:
            os.replace(temporary, path)
        return path
