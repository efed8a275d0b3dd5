"""The command line: declares commands and options, nothing else.

Heavy imports (NautilusTrader, pandas) happen inside the commands, so that ``sage --help`` answers at once.
"""

from __future__ import annotations

import signal

import typer

from cli.backtest import backtest
from cli.bench_latency import bench_latency
from cli.catalog import catalog
from cli.doctor import doctor
from cli.evaluate import evaluate
from cli.evaluate_ablation import ablation
from cli.evaluate_coverage import coverage
from cli.evaluate_drift import drift
from cli.evaluate_ensemble import ensemble
from cli.evaluate_ladder import ladder
from cli.evaluate_regimes import regimes
from cli.ingest import ingest
from cli.inject_fault import inject_fault
from cli.model import model
from cli.model_evaluate import evaluate as model_evaluate
from cli.model_train import train
from cli.replay import replay
from cli.runs import runs
from cli.store import store
from cli.stress import stress
from cli.sweep import sweep
from cli.version import show_version

app = typer.Typer(
    name="sage",
    help="A crash-test rig for model-driven trading. Built with technology from NXAI.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(backtest)
app.command()(replay)
app.command()(ingest)
app.command("bench-latency")(bench_latency)
app.command("inject-fault")(inject_fault)
app.command()(stress)
app.command()(doctor)
app.command()(sweep)
evaluate.command()(ablation)
evaluate.command()(coverage)
evaluate.command()(drift)
evaluate.command()(ensemble)
evaluate.command()(ladder)
evaluate.command()(regimes)
app.add_typer(evaluate)
model.command("evaluate")(model_evaluate)
model.command()(train)
app.add_typer(model)
app.add_typer(store)
app.add_typer(catalog)
app.add_typer(runs)


@app.callback()
def main(
    version: bool = typer.Option(  # noqa: ARG001 (its callback does it all)
        False, "--version", help="Print the version and exit.", callback=show_version, is_eager=True
    ),
) -> None:
    """A crash-test rig for model-driven trading. Built with technology from NXAI."""
    # Being told to end is like Ctrl-C: what is half-written is taken back, and no process is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
