"""``sage model evaluate`` as it is called: tables on stdout, no exit code of its own unless asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.exits import ExitCode
from cli.model_evaluate import evaluate
from data.bars import BarSize
from data.catalog import BarCatalog
from data.instruments import Kind, Precision, make_instrument, parse_instrument_id
from sage.evaluation import results, study
from tests.sage.evaluation.simulated import bars_of, gjr_returns

SMALL = ["--forecasts", "700", "--context", "128", "--horizon", "4", "--warm-up", "600", "--window", "800"]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("command") / "catalog"
    instrument = make_instrument(parse_instrument_id("BTCUSDT.SIM"), Kind.CRYPTO, Precision(6, 0))
    BarCatalog(root, create=True).write(bars_of(gjr_returns(1_400, seed=31)), instrument, BarSize(3600))
    return str(root)


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(evaluate)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def test_tables_verdict_files_and_json(catalog: str, tmp_path: Path) -> None:
    html, out = tmp_path / "evaluation.html", tmp_path / "out"
    arguments = ["--catalog", catalog, *SMALL, "--out", str(out)]
    code, told, err = run(*arguments, "--html", str(html))
    assert code == ExitCode.OK, err
    for text in ("BTCUSDT.SIM 1h", "GJR-GARCH-t", "EWMA 0.94", "historical", "whole horizon", "DM p", "verdict"):
        assert text in told
    assert "BTCUSDT.SIM 1h ..." in err
    assert html.read_text().startswith("<!doctype html>")
    code, printed, err = run(*arguments, "--json")
    assert code == ExitCode.OK, err
    document = json.loads(printed)
    assert document["reused"] == 1
    assert document["results"][0]["forecasts"] == 700
    assert json.loads((out / "evaluation.json").read_text()) == document
    assert {path.name for path in out.iterdir()} == {"BTCUSDT.SIM-1h.json", "evaluation.json"}


@pytest.mark.parametrize(("demanded", "code"), [((0.0, 1.0), ExitCode.OK), ((0.99, 1.0), ExitCode.CHECK_FAILED)])
def test_only_a_check_fails_where_a_target_is_missed(
    catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demanded: tuple[float, float], code: ExitCode
) -> None:
    monkeypatch.setattr(results, "COVERAGE_RANGE", demanded)
    monkeypatch.setattr(results, "MEAN_DIFFERENCE_MAX", 1.0)
    monkeypatch.setattr(results, "EXCESS_MAX", 1.0)
    arguments = ["--catalog", catalog, *SMALL, "--out", str(tmp_path)]
    assert run(*arguments)[0] == ExitCode.OK
    found, told, err = run(*arguments, "--check")
    assert found == code, err
    assert ("MISSED" in told) == (code == ExitCode.CHECK_FAILED)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--engine", "warp"],
        ["--data", "moon"],
        ["--horizon", "0"],
        ["--forecasts", "3"],
        ["--bar", "1h"],
        ["--html", "no-such-directory/x.html"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_end_with_2(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE
    assert out == ""
    assert arguments[0] in err


def test_a_catalog_and_other_data_exclude_each_other(catalog: str) -> None:
    assert run("--catalog", catalog, "--data", "sp500")[0] == ExitCode.USAGE


def test_too_few_bars_end_with_3_and_a_missing_model_with_4(catalog: str) -> None:
    code, _, err = run("--catalog", catalog)
    assert code == ExitCode.BAD_DATA
    assert "2,176 bars" in err
    assert run("--model", "nowhere")[0] == ExitCode.MODEL_UNAVAILABLE


def test_an_interruption_says_where_finished_instruments_are(
    catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "evaluate", interrupted)
    code, _, err = run("--catalog", catalog, "--out", str(tmp_path))
    assert code == ExitCode.INTERRUPTED
    assert err == (
        f"sage: interrupted; finished instruments are kept in {tmp_path}: the same command goes on from there\n"
    )
    code, _, err = run("--catalog", catalog)
    assert code == ExitCode.INTERRUPTED
    assert err == "sage: interrupted; no result was written; with --out DIR finished instruments are kept\n"


def test_an_out_directory_belongs_to_its_settings(catalog: str, tmp_path: Path) -> None:
    arguments = ["--catalog", catalog, *SMALL, "--out", str(tmp_path)]
    assert run(*arguments)[0] == ExitCode.OK
    code, out, err = run(*arguments, "--refit", "900")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "was made with --refit 1500 (now 900); go on with the same settings, or give another --out" in err


def test_the_command_loads_neither_numpy_nor_torch_before_it_runs() -> None:
    import subprocess
    import sys

    heavy = "{'numpy', 'arch', 'pandas', 'nautilus_trader', 'torch', 'jinja2'}"
    code = f"import sys, cli.model_evaluate; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, sage.evaluation.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
