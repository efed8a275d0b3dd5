"""Checks that options of several commands share; each refuses with OptionError naming the option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def choice(option: str, value: str | None, allowed: Sequence[str]) -> Any:
    """The value if it is one of the allowed ones, or None where the option was not given."""
    from data.errors import OptionError

    if value is not None and value not in allowed:
        raise OptionError(f"{option} {value}: must be one of {', '.join(allowed)}")
    return value


def output_file(option: str, path: Path | None) -> None:
    """Find out before the work that its result has a place to go."""
    from data.errors import OptionError

    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OptionError(f"{option} {path}: must be a file in a directory that is there")


def confirmed(what: str, *, yes: bool) -> None:
    """Ask before something goes. Raises OptionError where nobody can answer, and ends the command at a no."""
    import sys

    import typer

    from data.errors import OptionError

    if yes:
        return
    if not sys.stdin.isatty():
        raise OptionError(f"{what} would go: say --yes")
    if not typer.confirm(f"Remove {what}?", err=True):
        raise typer.Abort
