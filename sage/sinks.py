"""Where alerts go: the log, and a file of one JSON object per line. Neither stops a run, whatever becomes of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from data.errors import OptionError
from regime.alerts import Alert, Severity

LOGGER = logging.getLogger("sage.alerts")
# Without a handler of anybody's, Python would print warnings to stderr, across a live view.
LOGGER.addHandler(logging.NullHandler())

WallClock = Callable[[], float]


@dataclass(frozen=True)
class Delivery:
    """What became of the alerts that one sink was told: how many arrived, failed, or were never tried to the end.

    ``error`` is what went wrong last, empty where nothing did.
    """

    sink: str
    sent: int
    failed: int = 0
    dropped: int = 0
    error: str = ""

    def __str__(self) -> str:
        lost = [f"{count} {word}" for count, word in ((self.failed, "failed"), (self.dropped, "dropped")) if count]
        return f"{self.sink}: {', '.join([f'{self.sent} sent', *lost])}" + (f" ({self.error})" if self.error else "")


class Sink(Protocol):
    """Hears of alerts. Neither method raises, and ``tell`` returns at once."""

    def tell(self, alert: Alert) -> None:
        """An alert was raised or cleared."""

    def close(self) -> Delivery | None:
        """There will be no more; what became of them, None where nobody has listened."""


def record_of(alert: Alert, at_s: float) -> dict[str, str | int]:
    """An alert for JSON. ``time`` is the wall clock's, ``ts_ns`` the close of the newest bar."""
    return {
        "time": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds"),
        "state": "raised" if alert.raised else "cleared",
        "name": alert.name,
        "severity": str(alert.severity),
        "detail": alert.detail,
        "ts_ns": alert.ts_ns,
    }


class LogSink:
    """Python's logging, logger ``sage.alerts``: HIGH is an error, MEDIUM a warning, what is cleared an information."""

    def __init__(self) -> None:
        self._sent = 0

    def tell(self, alert: Alert) -> None:
        """Log it."""
        level = logging.ERROR if alert.severity is Severity.HIGH else logging.WARNING
        state = "raised" if alert.raised else "cleared"
        LOGGER.log(level if alert.raised else logging.INFO, "%s %s: %s", alert.name, state, alert.detail)
        self._sent += 1

    def close(self) -> Delivery | None:
        """How many were logged; None where no handler takes them, and the log is as good as none."""
        return Delivery("log", self._sent) if _is_heard() else None


def _is_heard() -> bool:
    logger: logging.Logger | None = LOGGER
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class FileSink:
    """One line of JSON for each alert, appended as it comes; that it can be is found out at once.

    Parameters
    ----------
    path
        The file; it and its directory are made with the first alert if they are not there.
    clock
        The time of day, in seconds since the epoch.

    Raises
    ------
    OptionError
        If nothing can be appended to it.
    """

    def __init__(self, path: Path, clock: WallClock = time.time) -> None:
        try:
            if path.exists() and not path.is_file():
                raise OptionError(f"--alerts {path}: is no file; name a file to which alerts are appended")
            _try(path)
        except OSError as error:
            raise OptionError(f"--alerts {path}: {error.strerror or error}; name a file that can be written") from error
        self._path = path
        self._clock = clock
        self._sent, self._failed, self._error = 0, 0, ""

    def tell(self, alert: Alert) -> None:
        """Append a line, or count that it could not be."""
        line = json.dumps(record_of(alert, self._clock())).encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                # An earlier line may have been cut short by a full disk, or with the process that wrote it.
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    line = b"\n" + line
                file.write(line)
        except OSError as error:
            self._failed += 1
            self._error = error.strerror or str(error)
        else:
            self._sent += 1

    def close(self) -> Delivery:
        """How many lines were written, and how many not."""
        return Delivery(f"file {self._path}", self._sent, self._failed, 0, self._error)


def _try(path: Path) -> None:
    """Raise OSError where nothing can be appended, and leave no trace: it may lie where a run wants an empty place."""
    # Links are there, wherever they lead.
    made = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.unlink() if one == path else one.rmdir()
