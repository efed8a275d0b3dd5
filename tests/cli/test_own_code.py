"""Classes of the user's own on the command line, and the examples as a reader would run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode
from tests.cli.test_app import sage

ROOT = Path(__file__).parent.parent.parent

RAISING = """
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.trading.strategy import Strategy

class RaisesConfig(StrategyConfig, frozen=True):
    bar_type: BarType

class Raises(Strategy):
    def __init__(self, config: RaisesConfig) -> None:
        super().__init__(config)

    def on_start(self) -> None:
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar) -> None:
        if self.cache.bar_count(self.config.bar_type) == 50:
            self.no_such_attribute
"""


@pytest.fixture
def short(tmp_path: Path) -> list[str]:
    """Options of a short run."""
    (tmp_path / "run.toml").write_text("[data.synthetic]\nbars = 700\n")
    return ["backtest", "--config", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"), "--json"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_the_example_strategy_trades_and_its_parameters_matter(
    short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = invoke(*short, "--strategy", "examples.own_strategy:CalmCross")
    assert done.exit_code == ExitCode.OK, done.stderr
    first = json.loads(done.stdout)
    assert first["fills"] > 2
    short[short.index("--out") + 1] = str(tmp_path / "other")
    done = invoke(*short, "--strategy", "examples.own_strategy:CalmCross", "--param", "slow_bars=96")
    assert json.loads(done.stdout)["determinism_hash"] != first["determinism_hash"]


def test_a_module_in_the_current_directory_is_found_and_what_it_raises_ends_with_6_and_a_partial_run(
    short: list[str], tmp_path: Path
) -> None:
    (tmp_path / "my_raising_strategy.py").write_text(RAISING)
    done = sage(*short, "--level", "5", "--strategy", "my_raising_strategy:Raises", cwd=tmp_path)
    assert done.returncode == ExitCode.INTERNAL
    assert done.stderr.count("Traceback") == 1 and "self.no_such_attribute" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sage: --strategy my_raising_strategy:Raises raised AttributeError")
    assert json.loads(done.stdout)["partial"]["bars_seen"] == 50
    assert (tmp_path / "run" / "report.html").is_file()


LEAVING = RAISING.replace("            self.no_such_attribute", "            print('hello'); raise SystemExit(0)")


def test_a_strategy_that_calls_sys_exit_has_raised_and_what_it_prints_is_no_result(
    short: list[str], tmp_path: Path
) -> None:
    (tmp_path / "my_leaving_strategy.py").write_text(LEAVING)
    done = sage(*short, "--level", "5", "--strategy", "my_leaving_strategy:Raises", cwd=tmp_path)
    assert done.returncode == ExitCode.INTERNAL
    assert "raised SystemExit at bar 50" in done.stderr.splitlines()[-1]
    assert json.loads(done.stdout)["partial"]["bars_seen"] == 50 and "hello" in done.stderr


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "class Mine:\n    def __init__(self): raise SystemExit(0)"])
def test_a_module_that_calls_sys_exit_is_told_with_its_traceback(short: list[str], tmp_path: Path, code: str) -> None:
    (tmp_path / "my_leaving_alpha.py").write_text(code + "\n")
    done = sage(*short, "--level", "5", "--alpha", "my_leaving_alpha:Mine", cwd=tmp_path)
    assert done.returncode == ExitCode.INTERNAL and "SystemExit" in done.stderr and not done.stdout
    assert done.stderr.splitlines()[-1].startswith("sage: ") and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--forecaster", "tests.sage.own_forecasters:Any", "--model", "embedded"], "exclude each other"),
        (["--level", "3", "--forecaster", "tests.sage.own_forecasters:Any"], "no model is asked"),
        (["--level", "2", "--model", "nowhere"], "no model is asked"),
        (["--walk-forward", "--folds", "3", "--fold-bars", "100"], "--folds and --fold-bars exclude each other"),
        (["--strategy", "nowhere_at_all:Mine"], "no module nowhere_at_all"),
        (["--strategy", "tests.sage.own:Flips", "--param", "every_bars"], "write NAME=VALUE"),
        (["--param", "every_bars=3"], "--strategy"),
    ],
)
def test_what_cannot_be_used_ends_with_2(short: list[str], arguments: list[str], message: str) -> None:
    done = invoke(*short, *arguments)
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("Handed", ExitCode.OK, "no look-ahead found"),
        ("PeeksOneBar", ExitCode.CHECK_FAILED, "LOOK-AHEAD at bar"),
        ("WithoutConfig", ExitCode.UNDECIDED, "undecided: the strategy sent no order"),
    ],
)
def test_the_check_for_look_ahead_ends_with_what_it_found(
    short: list[str], tmp_path: Path, name: str, code: ExitCode, said: str
) -> None:
    (tmp_path / "run.toml").write_text("[data.synthetic]\nbars = 300\n")
    options = ["--level", "3", "--strategy", f"tests.sage.own:{name}", "--check-lookahead", "--lookahead-cuts", "2"]
    done = invoke(*[option for option in short if option != "--json"], *options)
    assert done.exit_code == code, done.stderr
    assert said in done.stdout
    kept = json.loads((tmp_path / "run" / "lookahead.json").read_text())
    assert (kept["verdict"] == "clean") == (code == ExitCode.OK)


@pytest.mark.parametrize(
    "options",
    [["--check-lookahead", "--deadline-ms", "50"], ["--check-lookahead", "--walk-forward"], ["--lookahead-cuts", "3"]],
)
def test_a_check_that_makes_no_sense_is_refused(short: list[str], tmp_path: Path, options: list[str]) -> None:
    done = invoke(*short, *options)
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")
    assert not (tmp_path / "run").exists()


def test_the_example_forecaster_takes_the_models_place(short: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = invoke(*short, "--forecaster", "examples.own_forecaster:RecentVolatility")
    assert done.exit_code == ExitCode.OK, done.stderr
    figures = json.loads(done.stdout)
    assert figures["levels"]["FULL"] > 400 and figures["engine"] == "own"
    assert 0.8 < figures["coverage"]["realised"] < 1.0


def test_the_example_alpha_gets_a_vote(short: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = invoke(*short, "--level", "2", "--alpha", "examples.own_alpha:ThinMove")
    assert done.exit_code == ExitCode.OK, done.stderr
    vote = json.loads(done.stdout)["ensemble"]["alphas"]["thin move"]
    assert vote["votes"] > 500 and vote["mean_weight"] > 0.0 and not vote["dropped"]
