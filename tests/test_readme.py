"""The commands of the README and of the pages that it links: all exist, and all run, most on less than they name.

The second is a long form: ninety commands, one after the other, as a reader of all pages would call them. Those of the
README itself are ``make test-readme``, which CI runs.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from cli.app import app
from cli.exits import ExitCode
from data.synthetic import SyntheticConfig, simulate
from tests.archive import LoopbackArchive
from tests.conftest import clean_environment
from tests.hub import FILE, REPO, REVISION, LoopbackHub, published
from tests.readme import ROOT, Command, anchors, commands, links, mentions, pages
from tests.sage.receivers import receiver

SCRIPT = Path(sys.executable).with_name("sage")
LIMIT_S = 1_200
"""Longest time for one command; one that takes it has failed."""

RUNS_ELSEWHERE = {
    "make backtest": "CI runs it",
    "make test": "CI runs it",
    "sage sweep --ray auto": "tests/sage/sweep/test_ray.py",
    "promtool query instant": "tests/sage/test_prometheus.py",
    "export HOOK=": "the environment of this test",
}
"""What is not for this file, by its beginning, and who runs it."""


@dataclasses.dataclass(frozen=True)
class Less:
    """How a command that takes minutes or hours is run on less.

    ``begins`` is how it stands on its page; ``add`` are further options, ``instead`` replaces words of it,
    ``ends`` are the exit codes that are right for it. After ``interrupt_s`` it gets a Ctrl-C, and is to end with 130.
    """

    begins: str
    add: str = ""
    instead: tuple[tuple[str, str], ...] = ()
    ends: tuple[ExitCode, ...] = (ExitCode.OK,)
    interrupt_s: float | None = None


JUDGED = (ExitCode.OK, ExitCode.CHECK_FAILED, ExitCode.UNDECIDED)
"""Of so little, a check may come out any way."""
SHORT = "--config short.toml"
HUB = ("NX-AI/TiRex", REPO)

# The first whose beginning fits is taken; a command that none fits is run as it stands.
ON_LESS = (
    Less("sage ingest binance:", "--archive {archive}"),
    Less("sage backtest --data"),
    Less("sage backtest --walk-forward --fold-bars", "--end 2023-06-01"),
    Less("sage backtest --walk-forward", SHORT + " --train-bars 300"),
    Less("sage backtest --model", SHORT, instead=(HUB,)),
    Less("sage backtest --catalog"),
    Less("sage backtest", SHORT),
    Less("sage runs compare", ends=(ExitCode.CHECK_FAILED,)),
    Less("sage runs rm", "--yes"),
    Less("sage catalog rm", "--yes"),
    Less("sage bench-latency --architecture tirex-35m", "--seconds 2", ends=JUDGED),
    Less("sage bench-latency", "--seconds 3", ends=JUDGED),
    Less("sage inject-fault --all --html", instead=(("--all", "model.hang data.nan"),)),
    Less("sage inject-fault --schedules", instead=(("1000", "30"),)),
    Less("sage inject-fault --real", instead=(("10", "1"),)),
    Less("sage sweep --catalog", SHORT,
         instead=(("--catalog catalog", "--catalog hours"), ("4000", "400"), ("1000", "600"))),
    Less("sage sweep --resume"),
    Less("sage sweep", SHORT),
    Less("sage stress --hours 8 --resume", interrupt_s=40.0),
    Less("sage stress --hours 8 --alerts", instead=(("--hours 8", "--bars 500"), ("9464", "{port}")), ends=JUDGED),
    Less("sage stress --hours 8", instead=(("--hours 8", "--bars 500"),), ends=JUDGED),
    Less("sage stress --hours 24", instead=(("--hours 24 --rate 2", "--bars 300 --rate 60"),), ends=JUDGED),
    Less("sage stress --hours 1", instead=(("--hours 1", "--bars 900"),), ends=JUDGED),
    Less("sage stress --hours 0.1", instead=(("--hours 0.1", "--bars 900"),), ends=JUDGED),
    Less("sage stress --hours 0.05", instead=(("--hours 0.05", "--bars 900"),), ends=JUDGED),
    Less("sage model pull", f"--revision {REVISION}", instead=(HUB,)),
    Less("sage model train", "--steps 2"),
    Less("sage model list"),
    Less("sage model evaluate", "--forecasts 160", ends=JUDGED),
    Less("sage model", instead=(HUB,)),
    Less("sage evaluate coverage --breaks", instead=(("400", "2"),), ends=JUDGED),
    Less("sage evaluate coverage", "--bars 2500 --breaks 2", ends=JUDGED),
    Less("sage evaluate drift --kind", instead=(("50", "2"), HUB), ends=JUDGED),
    Less("sage evaluate drift", "--streams 2", ends=JUDGED),
    Less("sage evaluate ensemble", "--markets 2", ends=JUDGED),
    Less("sage evaluate ablation --seeds 0", "--bars 1200", ends=JUDGED),
    Less("sage evaluate ablation", "--seeds 1 --bars 1200", ends=JUDGED),
    Less("sage evaluate regimes --seeds 200", instead=(("200", "1"),), ends=JUDGED),
    Less("sage evaluate regimes", "--seeds 1", ends=JUDGED),
    Less("sage evaluate ladder", "--seeds 1 --bars 900", ends=JUDGED),
)  # fmt: skip


def less_of(command: Command) -> Less:
    """How this command is run here."""
    return next((less for less in ON_LESS if command.text.startswith(less.begins)), Less(command.text))


def runs_here(command: Command) -> bool:
    return not any(command.text.startswith(beginning) for beginning in RUNS_ELSEWHERE)


# --- they exist ---------------------------------------------------------------------------------------------


def name_of(command: Command) -> str:
    return f"{command.page}: {command.text}"


@pytest.mark.parametrize("command", [each for each in commands() if each.program == "sage"], ids=name_of)
def test_every_command_exists_with_its_options(command: Command) -> None:
    found, words = typer.main.get_command(app), list(command.words[1:])
    while isinstance(found, TyperGroup):
        name = words.pop(0)
        assert name in found.commands, f"no command {name!r}"
        found = found.commands[name]
    assert isinstance(found, TyperCommand)
    found.make_parser(found.context_class(found)).parse_args(words)


def test_what_the_text_mentions_exists_too() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert mentions("sage") <= set(group.commands)
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert mentions("make") <= targets


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}: no such heading"


def test_what_is_run_elsewhere_is_there_and_nothing_is_prepared_in_vain() -> None:
    texts = [command.text for command in commands()]
    for beginning in [*RUNS_ELSEWHERE, *(less.begins for less in ON_LESS)]:
        assert any(text.startswith(beginning) for text in texts), f"no page has a command {beginning!r}"
    assert all((ROOT / place).is_file() for place in RUNS_ELSEWHERE.values() if place.endswith(".py"))


# --- they run -----------------------------------------------------------------------------------------------


def simulated_feather(path: Path, start: str, bars: int, minutes: int, seed: int) -> None:
    """Simulated bars in freqtrade's form."""
    found = simulate(SyntheticConfig(bars=bars, bar_seconds=60 * minutes, seed=seed)).bars
    opened = pd.date_range(start, periods=bars, freq=f"{minutes}min", tz="UTC")
    names = ("open", "high", "low", "close", "volume")
    columns = {name: np.asarray(getattr(found, name)) for name in names}
    pd.DataFrame({"date": opened} | columns).to_feather(path)


def put_klines(archive: LoopbackArchive, size: str, minutes: int, first: str, last: str) -> None:
    """Simulated bars of BTCUSDT by the month."""
    month = pd.date_range(first, last, freq="MS")
    stamps = pd.date_range(first, month[-1] + pd.offsets.MonthBegin(), freq=f"{minutes}min", inclusive="left")
    found = simulate(SyntheticConfig(bars=len(stamps), bar_seconds=60 * minutes)).bars
    opened = stamps.to_numpy().astype("datetime64[ms]").astype(np.int64)
    values = zip(opened, *found.columns()[1:], strict=True)
    lines = [
        f"{time},{o:.2f},{h:.2f},{low:.2f},{c:.2f},{v:.5f},{time + 60_000 * minutes - 1},1.0,5,0.5,0.5,0"
        for time, o, h, low, c, v in values
    ]
    for begin in month:
        rows = lines[slice(*np.searchsorted(stamps, [begin, begin + pd.offsets.MonthBegin()]))]
        archive.put(f"data/spot/monthly/klines/BTCUSDT/{size}/BTCUSDT-{size}-{begin:%Y-%m}.zip", rows)


@dataclasses.dataclass(frozen=True)
class Reader:
    """One who tries every command in one folder, with what the pages take for granted in it."""

    folder: Path
    environment: dict[str, str]
    words: dict[str, str]

    def run(self, text: str, interrupt_s: float | None = None) -> subprocess.CompletedProcess[str]:
        """Call the console script; with ``interrupt_s`` press Ctrl-C so many seconds later."""
        arguments = [str(SCRIPT), *text.format(**self.words).split()[1:]]
        process = subprocess.Popen(
            arguments, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if interrupt_s is not None:
            time.sleep(interrupt_s)
            process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, said)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Bars to ingest, runs of the names that the pages have, an archive, a hub and a receiver of alerts."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "short.toml").write_text("[data.synthetic]\nbars = 700\n")
    (folder / "sweep.toml").write_text('[set]\n"sizing.target_volatility" = [0.1, 0.2]\n')
    shutil.copytree(ROOT / "examples", folder / "examples")
    simulated_feather(folder / "BTC_USDT-30m.feather", "2020-12-01", 4_500, 30, 1)
    with LoopbackArchive() as archive, LoopbackHub() as hub, receiver("200") as alerts, socket.socket() as free:
        put_klines(archive, "1m", 1, "2024-01", "2024-06")
        put_klines(archive, "1h", 60, "2023-01", "2024-06")
        hub.files[(REPO, REVISION, FILE)] = published()
        free.bind(("127.0.0.1", 0))
        homes = {f"SAGE_{each}": str(folder / each.lower()) for each in ("STORE", "MODELS", "DOWNLOADS")}
        environment = clean_environment() | homes | hub.environment() | {
            "SAGE_TRIALS": str(folder / "trials.jsonl"), "HF_HOME": str(folder / "hub"), "HOOK": alerts.url,
        }  # fmt: skip
        for name in ("HTTP_PROXY", "http_proxy", "PYTHONUNBUFFERED"):
            environment.pop(name, None)
        someone = Reader(folder, environment, {"archive": archive.address, "port": str(free.getsockname()[1])})
        free.close()
        prepare(someone)
        yield someone


def prepare(someone: Reader) -> None:
    """Catalogs for what would take long on the README's own, and the runs that the pages name."""
    for place, symbols, start, bars, minutes in (
        ("hours", ("BTCUSDT", "ETHUSDT"), "2022-10-01", 3_600, 60),
        ("minutes", ("BTCUSDT",), "2024-01-01", 3_000, 1),
    ):
        for seed, symbol in enumerate(symbols):
            simulated_feather(someone.folder / "bars.feather", start, bars, minutes, seed)
            size = "1h" if minutes == 60 else "1m"
            text = f"sage ingest bars.feather --catalog {place} --instrument {symbol}.BINANCE --bar {size}"
            assert someone.run(text).returncode == ExitCode.OK
    runs = "runs/20240131-120000"
    for text, ends in (
        (f"sage backtest {SHORT} --out {runs}-synthetic", ExitCode.OK),
        (f"sage backtest {SHORT} --out runs/A", ExitCode.OK),
        (f"sage backtest {SHORT} --seed 2 --out runs/B", ExitCode.OK),
        (f"sage sweep {SHORT} --set sizing.conviction_gain=1,2 --out {runs}-sweep", ExitCode.OK),
    ):
        done = someone.run(text)
        assert done.returncode == ends, done.stderr
    stopped = someone.run(f"sage stress --hours 8 --segment-bars 500 --out {runs}-stress", interrupt_s=40.0)
    assert stopped.returncode == ExitCode.INTERRUPTED, stopped.stderr


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.parametrize("command", [each for each in commands() if runs_here(each)], ids=name_of)
def test_every_command_runs(command: Command, reader: Reader) -> None:
    less, text = less_of(command), command.text
    for word, other in less.instead:
        assert word in text, f"{text!r} has no {word!r}"
        text = text.replace(word, other)
    if "--catalog catalog" in text and text.startswith("sage stress"):
        text = text.replace("--catalog catalog", "--catalog minutes")
    done = reader.run(f"{text} {less.add}", less.interrupt_s)
    ends = less.ends if less.interrupt_s is None else (ExitCode.INTERRUPTED,)
    assert done.returncode in ends, f"{done.args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout or less.interrupt_s is not None or "train" in text, "no result on stdout"
    for page in re.findall(r"--html (\S+)", text):
        assert (reader.folder / page).stat().st_size > 1_000
