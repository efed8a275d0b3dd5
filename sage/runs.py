"""The directories that runs leave: which there are, what each came to, and where two of them part."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from data.errors import DataError, OptionError
from regime.files import LOCK, alone_in
from sage.compare import Difference, first_difference
from sage.replay import read_recording


class RunKind(StrEnum):
    """What has left a directory, each known by a file of its own."""

    BACKTEST = "backtest"
    WALK_FORWARD = "walk-forward"
    SWEEP = "sweep"
    STRESS = "stress"


_MARKS = {
    RunKind.WALK_FORWARD: "walk_forward.json",
    RunKind.SWEEP: "sweep.json",
    RunKind.STRESS: "stress.json",
    RunKind.BACKTEST: "manifest.json",
}
_RESULTS = {
    RunKind.BACKTEST: "summary.json",
    RunKind.WALK_FORWARD: "walk_forward.json",
    RunKind.SWEEP: "results.json",
    RunKind.STRESS: "stress.json",
}
_MADE_FROM = {
    RunKind.BACKTEST: ("manifest.json", ("config", "data", "checkpoint", "own", "versions", "git_sha", "machine")),
    RunKind.WALK_FORWARD: ("walk_forward.json", ("config", "data", "checkpoint", "versions", "git_sha", "machine")),
    RunKind.SWEEP: ("sweep.json", ("config", "versions", "git_sha", "machine")),
    RunKind.STRESS: ("stress.json", ("configuration", "limits", "versions")),
}
"""The file that says what a run was made from, and the tables in it that do."""

HEADLINES = {
    RunKind.BACKTEST: ("instrument", "bar", "bars", "total_return", "sharpe", "max_drawdown", "fills", "costs_paid",
                       "coverage.realised", "missed_deadlines", "determinism_hash"),
    RunKind.WALK_FORWARD: ("pooled.days", "pooled.total_return", "pooled.sharpe", "pooled.max_drawdown",
                           "pooled.costs_paid", "pooled.coverage.realised"),
    RunKind.SWEEP: ("trials", "trials_ever", "days", "winner.sharpe", "winner.max_drawdown",
                    "deflated_sharpe.probability", "overfitting.probability"),
    RunKind.STRESS: ("status", "hours", "bars", "segments", "faults"),
}  # fmt: skip
"""Figures by which runs of a kind are told apart, by their place in its results."""

_UNALIKE_EACH_TIME = {
    RunKind.BACKTEST: {"seconds", "peak_rss_mb", "model_peak_rss_mb", "bars_per_second", "latency_ms", "notes",
                       "forecasts_computed", "forecasts_reused"},
    RunKind.WALK_FORWARD: {"created", "notes"},
    RunKind.SWEEP: {"seconds", "overhead_s", "forecasts", "reused", "stale", "findings"},
    RunKind.STRESS: {"seconds", "hours", "minutes", "memory", "latency_ms", "checks", "events", "alerts", "notes"},
}  # fmt: skip
"""What the clock, the machine and the stores decide, wherever it stands in the results, and what is said of it."""


_MONEY = {"final_equity", "total_return", "sharpe", "max_drawdown", "costs_paid"}
"""Of backtests, what signals, orders and fills do not tell: cash, and what holding costs."""


@dataclass(frozen=True)
class RunSummary:
    """One directory; ``figures`` are its headlines, by name, and ``problem`` why there are none.

    ``kind`` is None where nobody may look which it is.
    """

    directory: Path
    kind: RunKind | None
    created: str
    figures: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Differing:
    """Something that is not the same in two runs; None where one of them has no such thing."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """Where two runs part: what they were made from, what they came to, and the first signal or order that differs.

    ``moment`` is only looked for in backtests; ``same_signals`` is None for all others.
    """

    first: RunSummary
    second: RunSummary
    made_from: list[Differing]
    figures: list[Differing]
    same_signals: bool | None
    moment: Difference | None

    @property
    def is_same(self) -> bool:
        """Whether both came to the same: signals, orders and money of backtests, all figures of others."""
        if self.same_signals is None:
            return not self.figures
        return self.same_signals and not any(one.name in _MONEY for one in self.figures)


def kind_of(directory: Path) -> RunKind | None:
    """What has left a directory; None if it is none of a run. Raises DataError where nobody may look."""
    try:
        return next((kind for kind, mark in _MARKS.items() if (directory / mark).is_file()), None)
    except PermissionError as error:
        raise DataError(f"{directory}: cannot be read ({error.strerror}); check its rights") from error


def find_runs(root: Path) -> list[RunSummary]:
    """The runs right under a directory, the newest last.

    Raises
    ------
    DataError
        If there is no such directory.
    """
    try:
        every = sorted(path for path in root.iterdir() if path.is_dir())
    except PermissionError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}); check its rights") from error
    except OSError as error:
        raise DataError(f"{root}: no such directory; runs go to runs/ unless --out says otherwise") from error
    found = map(_listed, every)
    return sorted((run for run in found if run is not None), key=lambda run: run.created)


def _listed(directory: Path) -> RunSummary | None:
    """A run's headlines, or the problem with a directory that nobody may look into; None for what is no run."""
    try:
        kind = kind_of(directory)
    except DataError as error:
        return RunSummary(directory, None, _written(directory), {}, str(error))
    return None if kind is None else summary_of(directory)


def summary_of(directory: Path) -> RunSummary:
    """One run's headlines. Raises DataError if the directory is none of a run."""
    kind = kind_of(directory)
    if kind is None:
        raise DataError(f"{directory}: is no run: it holds none of {', '.join(_MARKS.values())}")
    try:
        results = _read(directory / _RESULTS[kind])
        created = str(_read(directory / _MADE_FROM[kind][0]).get("created", "")) or _created_by(directory, kind)
        return RunSummary(directory, kind, created, {name: _at(results, name) for name in HEADLINES[kind]})
    except DataError as error:
        return RunSummary(directory, kind, _created_by(directory, kind), {}, str(error))


def compare(first: Path, second: Path) -> Comparison:
    """Compare two runs of one kind.

    Raises
    ------
    DataError
        If one of them is no run or cannot be read.
    OptionError
        If they are of two kinds.
    """
    runs = [summary_of(directory) for directory in (first, second)]
    for run in runs:
        if run.problem:
            raise DataError(run.problem)
    kind = runs[0].kind
    assert kind is not None
    if runs[1].kind is not kind:
        raise OptionError(f"{first} is a {kind} and {second} a {runs[1].kind}: there is nothing to compare")
    made = [_made_from(directory, kind) for directory in (first, second)]
    results = [_flat(_read(directory / _RESULTS[kind])) for directory in (first, second)]
    figures = [one for one in _differing(*results) if not _left_out(one.name.split("."), kind)]
    same = moment = None
    if kind is RunKind.BACKTEST:
        recordings = [read_recording(directory) for directory in (first, second)]
        same = recordings[0].hash == recordings[1].hash
        moment = None if same else first_difference(recordings[0].tables, recordings[1].tables)
    return Comparison(runs[0], runs[1], _differing(*made), figures, same, moment)


def remove(directory: Path) -> None:
    """Remove a run's directory, and nothing that is none.

    Raises
    ------
    DataError
        If it is no run, or too damaged to tell.
    OptionError
        If it is still at work.
    OSError
        If it cannot be removed.
    """
    kind = kind_of(directory)
    if kind is None:
        raise DataError(f"{directory}: is no run, and stays: it holds none of {', '.join(_MARKS.values())}")
    name = _MADE_FROM[kind][0]
    try:
        told = _read(directory / name)
    except DataError as error:
        raise DataError(f"{error}; nothing tells whose it is, and it stays: remove it by hand") from error
    if "versions" not in told:
        # Others have a manifest.json, too.
        raise DataError(f"{directory}: stays, for its {name} does not tell by which SAGE it was made")
    directory = directory.resolve()
    at_work = OptionError(f"{directory}: is still at work, and stays; wait for its end, or interrupt it")
    with alone_in(directory, at_work) if (directory / LOCK).exists() else nullcontext():
        # Gone at once, whatever happens while its files are removed.
        doomed = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.removed")
        os.replace(directory, doomed)
    shutil.rmtree(doomed)


def _made_from(directory: Path, kind: RunKind) -> dict[str, Any]:
    """Configuration, bars, weights, code and software."""
    name, tables = _MADE_FROM[kind]
    document = _read(directory / name)
    return _flat({table: document.get(table) for table in tables})


def _left_out(parts: list[str], kind: RunKind) -> bool:
    """Whether a result is none of what a run came to: the clock's, or what it was made from."""
    return parts[0] in _MADE_FROM[kind][1] or not _UNALIKE_EACH_TIME[kind].isdisjoint(parts)


def _differing(first: dict[str, Any], second: dict[str, Any]) -> list[Differing]:
    names = [*first, *(name for name in second if name not in first)]
    return [Differing(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def _flat(document: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names, and those of a list by their numbers in it; other lists are values."""
    if isinstance(document, list) and document and all(isinstance(one, dict) for one in document):
        document = dict(enumerate(document))
    if not isinstance(document, dict):
        return {prefix: document}
    found: dict[str, Any] = {}
    for name, value in document.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _at(document: dict[str, Any], name: str) -> Any:
    value: Any = document
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there; the run was interrupted, or is under way") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: is not as it was written")
    return document


def _created_by(directory: Path, kind: RunKind) -> str:
    """When the file was written that makes it a run, where the run does not say."""
    return _written(directory / _MARKS[kind])


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
