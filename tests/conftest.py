"""What several folders of tests share: seeds, the real model process, one real run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from regime.model.checkpoint import find_checkpoint
from regime.serving.client import ModelClient
from sage.backtest import run_backtest
from sage.config import BacktestConfig
from sage.run import BacktestRun

settings.register_profile(
    "sage", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sage")

SHORT_BARS = 600


def pytest_configure(config: pytest.Config) -> None:
    """Keep the forecasts of tests apart from the user's, in a store that begins empty and goes with the run."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a shell; commands under test would inherit it and never hear of Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    place = tempfile.TemporaryDirectory(prefix="sage-test-store-")
    config.add_cleanup(place.cleanup)
    os.environ["SAGE_STORE"] = place.name
    os.environ["SAGE_TRIALS"] = f"{place.name}/trials.jsonl"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long tests out unless asked for, and those of torch's engines where torch is not installed."""
    asked = config.getoption("-m")
    no_torch = importlib.util.find_spec("torch") is None
    for item in items:
        if "long" in item.keywords and "long" not in asked:
            item.add_marker(pytest.mark.skip(reason="long; run with -m long"))
        if "torch" in item.keywords and no_torch:
            item.add_marker(pytest.mark.skip(reason="torch is not installed"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what was not tested for want of a program; quiet runs tell no reasons."""
    skipped = {str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", [])}
    for reason in sorted(reason for reason in skipped if " is not on PATH" in reason):
        terminalreporter.write_line(reason, yellow=True)


@pytest.fixture(scope="session")
def model() -> Iterator[ModelClient]:
    """The shipped checkpoint in its own process."""
    with ModelClient(find_checkpoint("embedded")) as client:
        client.start()
        yield client


def short_config(bars: int = SHORT_BARS) -> BacktestConfig:
    """A backtest on a short simulated market."""
    config = BacktestConfig()
    synthetic = dataclasses.replace(config.data.synthetic, bars=bars)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, synthetic=synthetic))


@pytest.fixture(scope="session")
def short_run() -> BacktestRun:
    """One real run: real NT engine, real model process, real checkpoint."""
    return run_backtest(short_config())


def clean_environment() -> dict[str, str]:
    """The environment for subprocesses, without colours that would clutter what they print."""
    return os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
