"""A soak from configuration to report: begun, or gone on with where an earlier one ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError, OptionError
from regime.errors import UserCodeRaised
from regime.files import LOCK, alone_in
from regime.model.random_weights import write_random_checkpoint
from regime.model.weights import ARCHITECTURES
from sage.config import as_dict
from sage.rundir import software
from stress.scratch import scratch_directory
from stress.soak.config import SoakConfig, check
from stress.soak.journal import JOURNAL, VERSION, Journal, parsed, read_journal
from stress.soak.record import Record
from stress.soak.report import HTML_FILE, JSON_FILE, write
from stress.soak.soak import Progress, Show, Soak
from stress.soak.staff import WorkerDied, WorkerFailed
from stress.soak.verdict import Assessment, assess
from stress.soak.worker import endless_market

_NICE = 15


@dataclass(frozen=True)
class Outcome:
    """What a soak has left. ``problems`` are what could not be written; ``interrupted`` says that it was stopped."""

    directory: Path
    record: Record
    assessment: Assessment
    problems: tuple[str, ...]
    interrupted: bool = False
    is_written: bool = True


def run_soak(config: SoakConfig, directory: Path, show: Show, *, resume: bool = False) -> Outcome:
    """Soak.

    Parameters
    ----------
    config
        What to do, and how long; with ``resume`` how long all of it is to be.
    directory
        Where journal, ``stress.json`` and ``report.html`` go.
    show
        Who looks on.
    resume
        Go on with what is there.

    Returns
    -------
    What came of it, also where it was interrupted.

    Raises
    ------
    OptionError
        If the configuration makes no sense, or the place is taken; to go on, if it is not that of the earlier soak, or
        if that one is still at work.
    DataError
        If there are no bars, or nothing to go on with.
    ModelUnavailable
        If there is no model.
    OSError
        If nothing can be written to the directory to begin with.
    """
    check(config)
    endless_market(config)  # what is wrong with the bars is said before any process is started
    _require_place(directory, resume=resume)
    directory.mkdir(parents=True, exist_ok=True)
    with alone_in(directory, OptionError(f"{directory}: another soak is at work there; wait for its end")):
        return _soaked(config, directory, show, resume=resume)


def _soaked(config: SoakConfig, directory: Path, show: Show, *, resume: bool) -> Outcome:
    earlier, began = _earlier(directory, resume=resume)
    config = _going_on(config, directory, began) if resume else _with_segments(config, config.bars_a_segment)
    with contextlib.ExitStack() as stack:
        shown = config
        config = _with_model(config, stack)
        journal = Journal(directory, earlier)
        if not earlier:
            journal.note("soak", 0.0, **header(shown))
        else:
            journal.note("event", began.seconds, event="resumed", detail=f"after {began.seconds:,.0f} s")
        reporter = stack.enter_context(Reporter(directory))
        soak = Soak(config, journal, show, reporter.draw, began.seconds, _progress(began))
        interrupted = False
        try:
            soak.run()
        except KeyboardInterrupt:
            interrupted = True
            journal.note("event", soak.now_s, event="interrupted", detail="told to stop")
        except WorkerDied as death:
            if not soak.has_begun:
                raise
            # It cannot go on, and what that says of the system is the verdict's part.
            journal.note("event", soak.now_s, event="ended", detail=f"the trading process dies too often: {death}")
        except Exception as error:
            trace = {"trace": error.trace} if isinstance(error, WorkerFailed | UserCodeRaised) else {}
            journal.note("event", soak.now_s, event="ended", detail=f"{type(error).__name__}: {error}", **trace)
            if soak.has_played:
                _finish(directory, journal, interrupted=True)
            elif not soak.has_begun:
                reporter.stop()
                _clear(directory)
            raise
    return _finish(directory, journal, interrupted=interrupted)


def own_files(directory: Path) -> tuple[Path, ...]:
    """What a soak writes to its directory."""
    return tuple(directory / name for name in (JOURNAL, JSON_FILE, HTML_FILE, LOCK))


def _clear(directory: Path) -> None:
    """Leave no trace of a soak that never began: its place is free for the next try."""
    for path in own_files(directory):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


def _finish(directory: Path, journal: Journal, *, interrupted: bool) -> Outcome:
    journal.checkpoint()
    problems = [f"{journal.lost}: {journal.unwritten:,} lines are not in the journal"] if journal.lost else []
    written = True
    raw = journal.raw
    try:
        record, assessment = write(directory, raw)
    except OSError as error:
        written = False
        problems.append(f"{directory}: {error.strerror or error}; the report was not written")
        record = Record.of(parsed(raw))
        assessment = assess(record)
    return Outcome(directory, record, assessment, tuple(problems), interrupted, written)


def planned_length(directory: Path) -> tuple[float | None, int | None]:
    """Hours and bars that an earlier soak was to last. Raises DataError if there is none."""
    config = next(parsed(read_journal(directory)))["config"]
    return config["hours"], config["bars"]


def _require_place(directory: Path, *, resume: bool) -> None:
    """Refuse a place that is not empty for a new soak, and one without a journal to go on with."""
    if resume:
        if not (directory / JOURNAL).exists():
            read_journal(directory)  # tells why there is nothing to go on with
    elif directory.exists() and (not directory.is_dir() or any(path.name != LOCK for path in directory.iterdir())):
        told = "; to go on with it: --resume" if (directory / JOURNAL).exists() else "; choose another place"
        raise OptionError(f"--out {directory}: is there already and not empty{told}")


def _earlier(directory: Path, *, resume: bool) -> tuple[bytes, Record]:
    """What an earlier soak has left, now that it is not at work any more."""
    if not resume:
        return b"", Record()
    raw = read_journal(directory)
    return raw, Record.of(parsed(raw))


def _going_on(config: SoakConfig, directory: Path, began: Record) -> SoakConfig:
    """The configuration of what goes on: that of before, whose segments keep the length they had."""
    if config.segment_bars is None and began.begun.get("config"):
        config = _with_segments(config, int(began.begun["config"]["segment_bars"]))
    differs = _what_differs(began.begun, header(config))
    if differs is not None:
        raise OptionError(f"--resume {directory}: that soak had another configuration: {differs}")
    return config


def _with_segments(config: SoakConfig, bars: int) -> SoakConfig:
    """With the length of segments written out, which the length of a soak may decide."""
    return dataclasses.replace(config, segment_bars=bars)


def _what_differs(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first key whose value is not what it was; how long it is to be, and where it was made, may differ."""
    for key in ("config", "limits"):
        # As JSON gives it back: tuples have become lists.
        before, after = then.get(key), json.loads(json.dumps(now[key]))
        if isinstance(before, dict):
            for name in sorted(before.keys() | after.keys()):
                if name not in {"hours", "bars"} and before.get(name) != after.get(name):
                    return f"{name} was {before.get(name)!r}, and is {after.get(name)!r}"
        elif before != after:
            raise DataError(f"the journal has no {key}: begin anew with another --out")
    return None


def _progress(record: Record) -> Progress:
    return Progress(
        segments=len(record.segments),
        generation=record.generations,
        deaths=record.event_count("trading_died"),
        totals=list(record.totals.values()),
    )


def header(config: SoakConfig) -> dict[str, Any]:
    """The first line of a soak's journal: what it is to do, by which limits, and with which software."""
    values = as_dict(dataclasses.replace(config, plants=()))
    values["plants"] = [str(plant) for plant in config.plants]
    long = f"{config.hours:g} hours" if config.hours is not None else f"{config.bars:,} bars"
    rate = f"at {config.rate:g} bars a second" if config.rate else "as fast as it goes"
    faults = "" if config.faults == "none" else f", {config.faults} faults"
    load = f", {config.background} busy processes beside it" if config.background else ""
    return {
        "version": VERSION,
        "told": f"{long} {rate}, segments of {config.bars_a_segment:,} bars{faults}{load}",
        "config": values,
        "faults": str(config.faults),
        "witnessed": config.is_witnessed,
        "limits": {
            "leak_mb_per_hour": config.leak_limit_mb_per_hour,
            "growth_mb": config.growth_limit_mb,
            "target_ms": config.backtest.regime.deadline_ms,
        },
        "versions": software(),
    }


def _with_model(config: SoakConfig, stack: contextlib.ExitStack) -> SoakConfig:
    """With random weights of an architecture written out, where one is asked for."""
    if config.architecture is None:
        return config
    directory = Path(stack.enter_context(scratch_directory()))
    written = write_random_checkpoint(ARCHITECTURES[config.architecture], config.seed, directory / config.architecture)
    model = dataclasses.replace(config.backtest.model, name=str(written))
    return dataclasses.replace(config, backtest=dataclasses.replace(config.backtest, model=model))


class Reporter:
    """Lets the report be drawn in a process of its own, one at a time, and waits for none."""

    def __init__(self, directory: Path) -> None:
        self._command = [sys.executable, "-P", "-m", "stress.soak.report", str(directory), str(_NICE)]
        self._drawing: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let what is being drawn be."""
        if self._drawing is not None:
            self._drawing.kill()
            self._drawing.wait()

    def draw(self) -> None:
        """Draw it anew, unless that is still going on."""
        if self._drawing is not None and self._drawing.poll() is None:
            return
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            self._drawing = subprocess.Popen(self._command, stdin=quiet, stdout=quiet, stderr=quiet)
