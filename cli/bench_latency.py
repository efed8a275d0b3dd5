"""``sage bench-latency``: an answer in time, at every percentile?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from cli.exits import ExitCode, errors_as_exit_codes
from cli.options import choice, output_file

if TYPE_CHECKING:
    from regime.model.engines import EngineKind

VERDICTS = {"met": ExitCode.OK, "missed": ExitCode.CHECK_FAILED, "undecided": ExitCode.UNDECIDED}


def bench_latency(
    engine: Annotated[str, typer.Option(help="fast (or auto), stock or both; or native, torch.")] = "fast",
    model: Annotated[str | None, typer.Option(help="embedded, a checkpoint's path, or OWNER/NAME as pulled.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="tirex-35m or compact, with seeded random weights, instead of a model.")
    ] = None,
    context: Annotated[int, typer.Option(help="Bars that the model looks at.")] = 512,
    horizon: Annotated[int, typer.Option(help="Bars to forecast.")] = 16,
    rate: Annotated[float, typer.Option(help="Bars a second, whether answered or not.")] = 20.0,
    seconds: Annotated[float, typer.Option(help="How long, for each engine.")] = 60.0,
    slo_ms: Annotated[float, typer.Option(help="What p99 must keep within.")] = 50.0,
    deadline_ms: Annotated[
        float, typer.Option(help="Enforce this on every bar, as live trading would; 0: none.")
    ] = 0.0,
    background: Annotated[int, typer.Option(help="Busy processes beside the measurement.")] = 0,
    batch: Annotated[int, typer.Option(help="Also time batches of so many windows.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the native engine.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 products by torch's autocast.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of the bars and of random weights.")] = 7,
    html: Annotated[Path | None, typer.Option(help="Write a picture of the distribution to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the whole way of a bar: bar in, signal out, through the model process, at a constant rate.

    Latency counts from when a bar was due. Exit code 1 if p99 misses --slo-ms, 5 if the run is too short to tell.
    """
    with errors_as_exit_codes():
        from cli import render
        from data.errors import OptionError
        from regime.files import write_durably
        from regime.model.checkpoint import EMBEDDED
        from regime.model.engines import Device, Dtype, EngineSpec
        from stress.latency import measure
        from stress.latency_records import LatencyConfig
        from stress.latency_report import as_document, as_html

        engines: dict[str, tuple[EngineKind, ...]] = {
            "fast": ("auto",),
            "auto": ("auto",),
            "stock": ("stock",),
            "both": ("auto", "stock"),
            "native": ("native",),
            "torch": ("torch",),
        }
        choice("--engine", engine, list(engines))
        choice("--device", device, get_args(Device))
        choice("--dtype", dtype, get_args(Dtype))
        output_file("--html", html)
        if engine == "native" and (device, dtype) != ("cpu", "float32"):
            raise OptionError(f"--engine native runs float32 on the CPU only; for {dtype} on {device}: --engine torch")
        config = LatencyConfig(
            engines=engines[engine],
            engine=EngineSpec(device=device, dtype=dtype, threads=threads),  # type: ignore[arg-type]
            model=model or EMBEDDED,
            architecture=architecture,
            context_bars=context,
            horizon_bars=horizon,
            rate_hz=rate,
            seconds=seconds,
            slo_ms=slo_ms,
            deadline_ms=deadline_ms,
            background=background,
            batch_rows=batch,
            seed=seed,
        )
        with render.LiveProgress() as progress:
            report = measure(config, progress)
        if html is not None:
            write_durably(html, as_html(report))
        if as_json:
            typer.echo(json.dumps(as_document(report), indent=2, allow_nan=False))
        else:
            render.latency_summary(as_document(report), html)
        if VERDICTS[report.verdict]:
            raise typer.Exit(int(VERDICTS[report.verdict]))
