"""How many ideas were ever tried on an instrument, and what they earned: a file that outlives sweeps.

A trial has one line when its run is handed out, and another one with its daily returns when it is over.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import OptionError
from data.places import kept
from sage.config import BacktestConfig, as_dict

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

VARIABLE = "SAGE_TRIALS"
_KEY_LETTERS = 16


def default_ledger() -> Path:
    """``$SAGE_TRIALS``, else ``sage/trials.jsonl`` under ``$XDG_DATA_HOME`` or ``~/.local/share``."""
    return kept(VARIABLE, "XDG_DATA_HOME", "trials.jsonl")


def idea_of(config: BacktestConfig, made_of: Iterable[str] = ()) -> str:
    """The same for the same idea, whatever the instrument, the days, or the place of the catalog it is tried on.

    ``made_of`` is what else makes it, such as digests: code that was changed and weights that were trained anew are
    tried anew, under whatever name. The seed is none: it is of simulated bars, and of the bootstrap.
    """
    values = as_dict(config)
    for what in ("data", "watch", "seed"):
        values.pop(what)
    values["model"].pop("store_dir")
    text = json.dumps([values, *made_of], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LETTERS]


@dataclass(frozen=True)
class DailyReturns:
    """Daily returns, and their days since the epoch in rising order; both have shape (days,)."""

    days: IntArray
    returns: FloatArray

    def packed(self) -> str:
        """As text; returns keep seven digits."""
        raw = self.days.astype("<i4").tobytes() + self.returns.astype("<f4").tobytes()
        return base64.b64encode(zlib.compress(raw)).decode()

    @classmethod
    def unpacked(cls, text: str) -> DailyReturns:
        """From what :meth:`packed` wrote. Raises ValueError for anything else."""
        try:
            raw = zlib.decompress(base64.b64decode(text, validate=True))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        half = len(raw) // 2
        days, returns = np.frombuffer(raw[:half], "<i4"), np.frombuffer(raw[half:], "<f4")
        return cls(days.astype(np.int64), returns.astype(np.float64))


class Ledger:
    """Appends trials to a file, and counts those that are there.

    A trial counts when its run is handed out, so that failed and interrupted ones do; the same idea on the same
    instrument counts once, however often it is run. ``damaged_lines`` are those that could not be read.

    Parameters
    ----------
    path
        The file; made if it is not there.

    Raises
    ------
    OptionError
        If it is a directory.
    OSError
        If it can be neither read nor written: trials that nobody counts would make every winner look good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged_lines = 0
        self._known: dict[str, dict[str, str]] = {}
        self._read_bytes = 0
        if path.is_dir():
            raise OptionError(
                f"{path}: is a directory, not the file that counts trials; name a file with --ledger or in ${VARIABLE}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass  # that it cannot be written is found out before the first run
        self.refresh()

    def refresh(self) -> None:
        """Read what was written since the last time, by other sweeps, too."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        # A line without an end may be another sweep's that is being written.
        text = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(text)
        for line in text.decode("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                ideas = self._known.setdefault(str(entry["question"]), {})
                ideas[str(entry["idea"])] = str(entry.get("returns", "")) or ideas.get(str(entry["idea"]), "")
            except (ValueError, KeyError, TypeError, AttributeError):
                self.damaged_lines += 1

    def count(self, questions: Iterable[str]) -> int:
        """How many ideas were tried on these instruments, each on each."""
        return sum(len(self._known.get(question, ())) for question in set(questions))

    def begin(self, question: str, idea: str, sweep: str) -> None:
        """Write down that an idea, by :func:`idea_of`, is tried. Raises OSError."""
        if idea not in self._known.get(question, {}):
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._append({"at": now, "question": question, "idea": idea, "sweep": sweep})
            self._known.setdefault(question, {})[idea] = ""

    def finish(self, question: str, idea: str, found: DailyReturns) -> None:
        """Write down what an idea has earned; the last word on it stands. Raises OSError."""
        packed = found.packed()
        if self._known.get(question, {}).get(idea) != packed:
            self._append({"question": question, "idea": idea, "returns": packed})
            self._known.setdefault(question, {})[idea] = packed

    def earlier(self, questions: Iterable[str], but: set[tuple[str, str]]) -> list[DailyReturns]:
        """What other ideas have earned on these instruments; ``but`` holds instruments and ideas to leave out."""
        found = []
        for question in sorted(set(questions)):
            for idea, packed in self._known.get(question, {}).items():
                if packed and (question, idea) not in but:
                    try:
                        found.append(DailyReturns.unpacked(packed))
                    except ValueError:
                        self.damaged_lines += 1
        return found

    def _append(self, entry: dict[str, str]) -> None:
        with self.path.open("a+b") as file:
            cut_off = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            # One write of one line: sweeps side by side do not mix them. After a crash what comes next is a line of
            # its own.
            file.write((b"\n" if cut_off else b"") + json.dumps(entry).encode() + b"\n")
