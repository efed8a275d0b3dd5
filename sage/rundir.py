"""The run directory: written beside its place and renamed into it, so that it is there whole or not at all."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from data.bars import iso
from data.errors import OptionError
from data.places import sha256_of
from regime.files import LOCK, alone_in
from sage.config import as_dict
from sage.results import Tables, summary, tables
from sage.run import BacktestRun
from sage.tearsheet import render
from sage.votes import telemetry

SCHEMA_VERSION = 2
"""Of the run directory; ``sage replay`` reads no other."""

_PACKAGES = ("nautilus_trader", "tirex-ts", "torch", "numpy", "pandas", "pyarrow")


def choose_directory(wanted: Path | None, label: str) -> Path:
    """Where the run goes: as wanted, or ``runs/<time>-<label>``.

    Raises
    ------
    OptionError
        If the place is taken; an earlier run is never overwritten.
    OSError
        If nothing can be written there.
    """
    if wanted is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{stamp}-{re.sub(r'[^A-Za-z0-9.-]+', '-', label)}"
        wanted = Path("runs") / name
        if wanted.exists():
            wanted = wanted.with_name(f"{name}-{uuid.uuid4().hex[:4]}")
    if wanted.is_dir() and [path.name for path in wanted.iterdir()] == [LOCK]:
        # All that is left of what was interrupted before it began.
        with alone_in(wanted, OptionError(f"--out {wanted}: another process is at work there; choose another place")):
            (wanted / LOCK).unlink()
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise OptionError(f"--out {wanted}: is there already and not empty; choose another place or remove it")
    # Found out now, not after the run.
    wanted.parent.mkdir(parents=True, exist_ok=True)
    Path(tempfile.mkdtemp(prefix=f".{wanted.name}.", dir=wanted.parent)).rmdir()
    return wanted


@contextmanager
def claimed(wanted: Path | None, label: str) -> Iterator[Path]:
    """The place of :func:`choose_directory`; one that it has named is made, so that no other run begun in the same
    second takes it, and is gone again if nothing comes of the run.

    Raises
    ------
    OptionError, OSError
        As :func:`choose_directory`.
    """
    if wanted is not None:
        yield choose_directory(wanted, label)
        return
    while True:
        directory = choose_directory(None, label)
        try:
            directory.mkdir()
            break
        except FileExistsError:
            continue  # it has just been taken, and gets another name
    try:
        yield directory
    finally:
        with suppress(OSError):
            directory.rmdir()  # which leaves alone what holds anything


@contextmanager
def whole(directory: Path) -> Iterator[Path]:
    """A place to write to that becomes the directory when all is written, and is gone where that fails."""
    partial = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if directory.exists():
            directory.rmdir()  # empty: claimed, or choose_directory would have refused it
        os.replace(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write(run: BacktestRun, directory: Path) -> dict[str, object]:
    """Write everything about a run; returns the summary."""
    started = time.perf_counter()
    tabled = tables(run)
    figures = summary(run, tabled)
    with whole(directory) as partial:
        for name in ("signals", "rejections", "orders", "fills", "positions", "equity", "timing", "weights"):
            frame: pd.DataFrame = getattr(tabled, name)
            frame.to_parquet(partial / f"{name}.parquet", index=False)
        manifest = manifest_of(run)
        write_json(partial / "summary.json", figures)
        write_json(partial / "alpha-latency.json", telemetry(run.ensemble))
        with (partial / "run.jsonl").open("w") as log:
            for event in _events(run, tabled, figures):
                log.write(json.dumps(plain(event)) + "\n")
        (partial / "report.html").write_text(render(run, tabled, figures, manifest), encoding="utf-8")
        # Last of all, over all that is there: what is altered later can then be told.
        manifest["files"] = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        write_json(partial / "manifest.json", manifest)
    run.seconds["report"] = time.perf_counter() - started
    return figures


def manifest_of(run: BacktestRun) -> dict[str, Any]:
    """What a run was made from: software, model, data, configuration."""
    bars = run.market.bars
    return {
        "schema_version": SCHEMA_VERSION,
        **provenance(run),
        "model_error": run.model_error or None,
        "forecasts": run.forecasts_made,
        "notes": run.notes,
        "own": {option: dataclasses.asdict(source) for option, source in run.own.items()},
        "partial": str(run.stopped) if run.stopped is not None else None,
        "data": {
            "description": run.market.description,
            "instrument": str(run.market.instrument.id),
            "kind": str(run.market.kind),
            "bar_type": str(run.market.bar_type),
            "bars": len(bars),
            "first_close": iso(int(bars.ts_close_ns[0])),
            "last_close": iso(int(bars.ts_close_ns[-1])),
            "sha256": bars.sha256(),
        },
        "seed": run.config.seed,
        "config": as_dict(run.config),
    }


def software() -> dict[str, Any]:
    """The time, all versions, and the kind of machine."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "sage": _version("sage"),
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "git_sha": _git_sha(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def provenance(run: BacktestRun) -> dict[str, Any]:
    """When, with which software, on what kind of machine and with which model a run was made."""
    return {
        **software(),
        "checkpoint": None
        if run.checkpoint is None
        else {
            "name": run.checkpoint.name,
            "sha256": run.checkpoint.sha256,
            "network": run.checkpoint.network,
            "engine": run.engine_name,
        },
    }


def _events(run: BacktestRun, tabled: Tables, figures: dict[str, object]) -> Iterator[dict[str, object]]:
    """The run's story, one event a line, in bar time."""
    yield {"event": "run_started", "ts": _first_close(run), "data": run.market.description}
    if run.model_error:
        yield {"event": "model_unavailable", "severity": "HIGH", "detail": run.model_error}
    happened: list[tuple[int, dict[str, object]]] = []
    previous = None
    for signal in run.signals:
        if signal.level != previous:
            faults = [str(reason) for reason in signal.reasons if reason.is_fault]
            happened.append(
                (
                    signal.ts_event,
                    {
                        "event": "level_changed",
                        "severity": "MEDIUM" if faults else "INFO",
                        "from": previous.name if previous is not None else None,
                        "to": signal.level.name,
                        "reasons": [str(reason) for reason in signal.reasons],
                    },
                )
            )
            previous = signal.level
    for alert in run.alerts:
        happened.append(
            (
                alert.ts_ns,
                {
                    "event": "alert_raised" if alert.raised else "alert_cleared",
                    "severity": str(alert.severity),
                    "alert": alert.name,
                    "detail": alert.detail,
                },
            )
        )
    for rejected in run.rejections:
        happened.append((rejected.ts_event, {"event": "bar_rejected", "severity": "MEDIUM", "why": rejected.why}))
    for ts_ns, order_id, why in run.refused_orders:
        happened.append((ts_ns, {"event": "order_rejected", "severity": "HIGH", "order_id": order_id, "why": why}))
    for fill in run.ledger.fills:
        happened.append(
            (
                fill.ts_ns,
                {
                    "event": "fill",
                    "severity": "INFO",
                    "order_id": fill.order_id,
                    "quantity": fill.side * fill.quantity,
                    "price": fill.price,
                },
            )
        )
    for ts_ns, event in sorted(happened, key=lambda item: item[0]):
        yield {"ts": iso(ts_ns), **event}
    if run.stopped is not None:
        yield {"event": "run_stopped", "severity": "HIGH", "ts": iso(run.answer_stamps[-1]), "why": str(run.stopped)}
        return
    yield {
        "event": "run_finished",
        "ts": iso(int(run.market.bars.ts_close_ns[-1])),
        "bars": figures["bars"],
        "signals": figures["signals"],
        "total_return": figures["total_return"],
        "rejected_bars": len(tabled.rejections),
    }


def _first_close(run: BacktestRun) -> str:
    return iso(int(run.market.bars.ts_close_ns[0]))


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_sha() -> str | None:
    """Commit of SAGE's own source, where it runs from a checkout."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def write_json(path: Path, document: object) -> None:
    """Write a document; JSON has no NaN and no infinity, which become null."""
    path.write_text(json.dumps(plain(document), indent=2) + "\n")


def plain(value: object) -> object:
    """A document as JSON can hold it. JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
