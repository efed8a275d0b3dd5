"""What a fault needs to be provoked, and why it cannot be had here."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from regime.errors import ModelUnavailable
from regime.model.engines import EngineSpec, choose_engine
from stress.cases import InjectConfig
from stress.scratch import scratch_directory
from stress.whole_runs import in_tiny_filesystem

_PATIENCE_S = 20.0


def missing(needs: Iterable[str], config: InjectConfig) -> str:
    """Why what is needed is not there; empty if it is."""
    return "; ".join(filter(None, (_CHECKS[need](config) for need in sorted(needs))))


def _process(config: InjectConfig) -> str:  # noqa: ARG001 (every check is asked the same way)
    there = hasattr(os, "memfd_create") and hasattr(signal, "SIGSTOP")
    return "" if there else "a model process that can be stopped and told to misbehave needs Linux"


def _native(config: InjectConfig) -> str:
    try:
        kind = choose_engine(EngineSpec(kind=config.engine)).kind
    except ModelUnavailable as error:
        return str(error)
    return "" if kind == "native" else f"its memory is measured for the native engine, this one is {kind}"


def _hub(config: InjectConfig) -> str:  # noqa: ARG001
    if find_spec("huggingface_hub") is None:
        return "huggingface_hub is not installed: there is no hub to be down"
    if find_spec("torch") is None:
        return "torch is not installed, without which no model is pulled"
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        return f"there is no loopback interface for a hub ({error.strerror})"
    return ""


@functools.cache
def _why_no_filesystem() -> str:
    with scratch_directory() as directory:
        try:
            done = subprocess.run(
                in_tiny_filesystem(Path(directory), 'mount -t tmpfs -o size=64k none "$1"'),
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"a small file system cannot be mounted here ({error})"
    said = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return f"a small file system cannot be mounted here ({said})" if done.returncode else ""


_CHECKS: dict[str, Callable[[InjectConfig], str]] = {
    "process": _process,
    "checkpoint": _process,
    "native": _native,
    "health": lambda _config: "",  # a matter of configuration
    "hub": _hub,
    "tiny file system": lambda _config: _why_no_filesystem(),
}
