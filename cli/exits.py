"""Exit codes, and the one place where errors become messages and codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import IO

import typer

from data.errors import DataError, OptionError
from regime.errors import ModelUnavailable, StoreError, UserCodeRaised


class ExitCode(IntEnum):
    """What the shell gets; the README documents each."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    BAD_DATA = 3
    MODEL_UNAVAILABLE = 4
    UNDECIDED = 5
    INTERNAL = 6
    INTERRUPTED = 130


def leave_by(met: Iterable[bool | None]) -> None:
    """End a command under ``--check`` by what each of its targets came to; None is for one that could not be told.

    Any that was missed: CHECK_FAILED. None that was met: UNDECIDED, for a check that judges nothing must not pass.
    """
    known = [one for one in met if one is not None]
    if not all(known):
        raise typer.Exit(int(ExitCode.CHECK_FAILED))
    if not known:
        print("sage: --check: nothing here could be judged; see the findings for what is missing", file=sys.stderr)
        raise typer.Exit(int(ExitCode.UNDECIDED))


@contextmanager
def errors_as_exit_codes(without_model: str = "") -> Iterator[None]:
    """Turn what a command raises into one message on stderr and an exit code.

    ``without_model`` is the command's advice where there is no model. Who knows what an interruption leaves raises
    KeyboardInterrupt again with words for it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the result has enough of it. Python would complain again at its end.
        to_nowhere(sys.stdout)
    except OptionError as error:
        _leave(ExitCode.USAGE, error)
    except DataError as error:
        _leave(ExitCode.BAD_DATA, error)
    except ModelUnavailable as error:
        _leave(ExitCode.MODEL_UNAVAILABLE, f"{error}. {without_model}" if without_model else error)
    except KeyboardInterrupt as error:
        _leave(ExitCode.INTERRUPTED, f"interrupted; {str(error) or 'no result was written'}")
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except UserCodeRaised as error:
        print(error.trace, file=sys.stderr)
        _leave(ExitCode.INTERNAL, error)
    except StoreError as error:
        _leave(ExitCode.INTERNAL, error)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        # Standard output has no name: what was made may all be there, and only nobody told.
        left = "nothing was written there" if place else "what was finished by then is kept"
        _drop_unprintable()
        _leave(ExitCode.INTERNAL, f"{place}{error.strerror or error}; {left}")
    except SystemExit as error:
        # Nobody here asks Python to end: it was the code of a user or of a library, and says nothing about the result.
        traceback.print_exc(file=sys.stderr)
        _leave(ExitCode.INTERNAL, f"something called sys.exit({error.code!r}); no result was written")
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        _leave(ExitCode.INTERNAL, f"{type(error).__name__}: {error}")


def _drop_unprintable() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        to_nowhere(sys.stdout)


def to_nowhere(stream: IO[str]) -> None:
    """Let what is still to be written nowhere go: Python would try again at its end, and make that the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave(code: ExitCode, message: object) -> None:
    print(f"sage: {message}", file=sys.stderr)
    raise typer.Exit(int(code))
