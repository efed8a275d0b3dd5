"""``sage model train``: the recipe of the model that ships."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import errors_as_exit_codes


def train(
    out: Annotated[Path, typer.Option(help="Directory for the new checkpoint.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Batches; 10000 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the series and of the first weights.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile first: minutes, then several times faster.")
    ] = False,
) -> None:
    """Train the compact model from scratch on simulated series; no market data is used.

    Its state is saved every 100 steps: an interrupted training goes on from there when the same command is given
    again.
    """
    with errors_as_exit_codes():
        # Before torch loads: spinning threads would starve each other.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from cli import render
        from data.errors import OptionError
        from regime.model import training
        from sage.config import with_values

        if not out.absolute().parent.is_dir():
            raise OptionError(f"--out {out}: no such directory {out.absolute().parent}")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OptionError(f"--out {out}: is there already, and a checkpoint is not written over")
        config = with_values(training.TrainingConfig(), steps=steps, seed=seed)
        if not os.access(out if out.exists() else out.absolute().parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(out))
        with training.flushed_denormals(), render.LiveProgress() as progress:
            progress.stage("training", config.steps)
            try:
                training.train(config, out, compiled=compiled, on_step=progress.advance)
            except ValueError as error:
                raise OptionError(str(error)) from error
            except KeyboardInterrupt:
                state, every = out.with_name(f"{out.name}.resume"), training.SAVE_EVERY_STEPS
                kept = f"the state is in {state}, saved every {every} steps: the same command goes on from there"
                none = f"nothing is kept before step {every}: the same command begins anew"
                raise KeyboardInterrupt(kept if state.exists() else none) from None
        typer.echo(f"{out}: trained; look at it with: sage model info {out}")
