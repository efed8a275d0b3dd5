"""``--version``, wherever it stands."""

from __future__ import annotations

import typer


def show_version(wanted: bool) -> None:
    """Print the version and leave, if it is wanted."""
    if wanted:
        import importlib.metadata

        typer.echo(f"sage {importlib.metadata.version('sage')}")
        raise typer.Exit
