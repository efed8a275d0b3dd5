"""What options of several commands share: the option itself, or its check, which raises OptionError naming it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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


def data_options(
    data: str | None,
    catalog: Path | str | None,
    instrument: str | None = None,
    bar: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> dict[str, Any]:
    """Where bars come from, as keys of the configuration; None for what was not given."""
    from data.errors import OptionError

    if data not in {None, "synthetic", "sp500", "catalog"}:
        raise OptionError(f"--data {data}: must be synthetic or sp500; for ingested bars give --catalog DIR")
    if catalog is not None and data in {"synthetic", "sp500"}:
        raise OptionError(f"--catalog and --data {data} exclude each other")
    return {
        "source": "catalog" if catalog is not None else data,
        "catalog": str(catalog) if catalog is not None else None,
        "instrument": instrument,
        "bar": bar,
        "start": start,
        "end": end,
    }


def confirmed(what: str, *, yes: bool) -> None:
    """Ask before something goes. Raises OptionError where nobody can answer, and ends the command at a no."""
    import sys

    from data.errors import OptionError

    if yes:
        return
    if not sys.stdin.isatty():
        raise OptionError(f"{what} would go: say --yes")
    if not typer.confirm(f"Remove {what}?", err=True):
        raise typer.Abort
