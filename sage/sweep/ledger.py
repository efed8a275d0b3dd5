"""How many ideas were ever tried on an instrument: a file that outlives sweeps, one line for each trial made."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from sage.config import BacktestConfig, as_dict

VARIABLE = "SAGE_TRIALS"
_KEY_LETTERS = 16


def default_ledger() -> Path:
    """``$SAGE_TRIALS``, else ``sage/trials.jsonl`` under ``$XDG_DATA_HOME`` or ``~/.local/share``."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    root = Path(data) if data else Path.home() / ".local" / "share"
    return root / "sage" / "trials.jsonl"


def question_of(config: BacktestConfig) -> str:
    """What trials compete on: the instrument and its bars."""
    data = config.data
    if data.source == "catalog":
        return f"{data.instrument} {data.bar or ''}".strip()
    return data.source


def idea_of(config: BacktestConfig) -> str:
    """The same for the same idea, whatever the days, the place of the catalog or the window it is tried on."""
    values = as_dict(config)
    for name in ("catalog", "start", "end"):
        values["data"].pop(name)
    values.pop("watch")
    values["model"].pop("store_dir")
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LETTERS]


class Ledger:
    """Appends trials to a file, and counts those that are there.

    A trial counts when its run is handed out, so that failed and interrupted ones do; the same idea on the same
    instrument counts once, however often it is run.

    Parameters
    ----------
    path
        The file; made if it is not there.

    Raises
    ------
    OSError
        If it can be neither read nor written: trials that nobody counts would make every winner look good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged_lines = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, set[str]] = {}
        with path.open("ab") as file:  # that it cannot be written is found out before the first run
            text = path.read_text(encoding="utf-8", errors="replace")
            if text and not text.endswith("\n"):
                # Cut off by a crash: what comes next is a line of its own.
                file.write(b"\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._known.setdefault(str(entry["question"]), set()).add(str(entry["idea"]))
            except (ValueError, KeyError, TypeError):
                self.damaged_lines += 1

    def count(self, questions: Iterable[str]) -> int:
        """How many ideas were tried on these instruments, each on each."""
        return sum(len(self._known.get(question, ())) for question in set(questions))

    def begin(self, config: BacktestConfig, sweep: str) -> None:
        """Write down that an idea is tried. Raises OSError."""
        question, idea = question_of(config), idea_of(config)
        ideas = self._known.setdefault(question, set())
        if idea in ideas:
            return
        entry = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "question": question, "idea": idea,
            "sweep": sweep,
        }  # fmt: skip
        with self.path.open("ab") as file:
            # One write of one line: sweeps side by side do not mix them.
            file.write(json.dumps(entry).encode() + b"\n")
        ideas.add(idea)
