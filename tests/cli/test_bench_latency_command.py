"""``sage bench-latency`` as it is called: one verdict, one exit code, results on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.exits import ExitCode


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench-latency", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_a_short_run_is_undecided_and_its_json_says_what_was_measured(tmp_path: Path) -> None:
    picture = tmp_path / "latency.html"
    code, out, err = run("--seconds", "0.5", "--rate", "40", "--json", "--html", str(picture))
    assert code == ExitCode.UNDECIDED, err
    document = json.loads(out)
    assert document["verdict"] == "undecided"
    assert document["source"] == "model"
    assert document["engines"][0]["answers"] == 20
    assert picture.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("slo_ms", "code"), [("0.001", ExitCode.CHECK_FAILED), ("100000", ExitCode.OK)])
def test_the_exit_code_is_the_verdict(slo_ms: str, code: ExitCode) -> None:
    found, out, err = run("--seconds", "1.1", "--rate", "1000", "--slo-ms", slo_ms)
    assert found == code, err
    assert "SAGE latency" in out
    assert ("MISSES" in out) == (code == ExitCode.CHECK_FAILED)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--engine", "warp"],
        ["--device", "tpu"],
        ["--dtype", "int8"],
        ["--rate", "0"],
        ["--rate", "fast"],
        ["--architecture", "gpt"],
        ["--html", "no-such-directory/x.html"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_end_with_2(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == ExitCode.USAGE
    assert out == ""
    assert arguments[0] in err


def test_a_missing_model_ends_with_4_and_no_advice_that_does_not_help() -> None:
    code, _, err = run("--model", "nowhere")
    assert code == ExitCode.MODEL_UNAVAILABLE
    assert "nowhere" in err
    assert "--allow-degraded" not in err
