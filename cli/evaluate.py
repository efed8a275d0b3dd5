"""``sage evaluate``: are regimes, intervals, weights and levels right, and what are they worth? One study a command."""

from __future__ import annotations

import typer

evaluate = typer.Typer(
    name="evaluate",
    help="Hold regimes, intervals, weights and levels against known truth, peers and targets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@evaluate.callback()
def _studies() -> None:
    """One study a command."""
