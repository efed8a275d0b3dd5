"""Finished cells of a study, kept so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regime.files import write_durably


class KeptCells:
    """A study's cells on disk: ``DIRECTORY/STUDY-<digest of settings>/KEY.json``.

    Parameters
    ----------
    directory
        Where; None keeps nothing.
    study
        Name of the study.
    settings
        All that every cell depends on, plain enough for JSON; other settings are other cells. A version of the
        method belongs to it.
    """

    def __init__(self, directory: Path | None, study: str, settings: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._directory = None if directory is None else directory / f"{study}-{digest}"
        self._settings = settings
        self.reused = 0

    def get(self, key: str) -> Any | None:
        """The cell kept under this key, or None; a damaged file counts as none."""
        if self._directory is None:
            return None
        try:
            document = json.loads(self._path(key).read_text(encoding="utf-8"))
            if document["key"] != key:
                return None
            cell = document["cell"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        self.reused += 1
        return cell

    def put(self, key: str, cell: Any) -> None:
        """Keep a cell (plain enough for JSON; NaN stays NaN). Raises OSError."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        document = {"settings": self._settings, "key": key, "cell": cell}
        write_durably(self._path(key), json.dumps(document) + "\n")

    def _path(self, key: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{quote(key, safe='')}.json"
