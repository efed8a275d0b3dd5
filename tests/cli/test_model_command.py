"""``sage model`` as people call it: what it says, and how it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from cli.app import app
from cli.exits import ExitCode
from regime.errors import ModelUnavailable
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, find_checkpoint
from regime.model.registry import ATTRIBUTION, HUB_MODELS, NXAI_COMMUNITY, PROVENANCE_FILE, HubModel
from tests.hub import FILE, REPO, REVISION, LoopbackHub, point_client_at, published, write_pulled

NAME = f"{REPO}@{REVISION}"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


@pytest.fixture
def hub(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub, tmp_path / "home", monkeypatch)
        yield hub


def model(*arguments: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    return runner.invoke(app, ["model", *map(str, arguments)])


def test_list_names_what_is_here_and_what_can_be_pulled(root: Path) -> None:
    result = model("list")
    assert result.exit_code == ExitCode.OK, result.output
    for said in ("embedded", find_checkpoint("embedded").id, str(root), "sage model pull NX-AI/TiRex"):
        assert said in result.stdout
    directory = write_pulled(root)
    told = json.loads(model("list", "--json").stdout)
    assert told["directory"] == str(root)
    assert [each["name"] for each in told["models"]] == ["embedded", NAME]
    assert told["models"][1]["checkpoint_id"] == find_checkpoint(NAME).id
    assert {each["name"]: each["pulled"] for each in told["can_be_pulled"]} == {"NX-AI/TiRex": False}
    (directory / PROVENANCE_FILE).write_text("{")
    assert f"{PROVENANCE_FILE} is damaged" in model("list").stdout


def test_list_says_when_a_pinned_model_was_pulled(root: Path) -> None:
    known = HUB_MODELS[0]
    assert known.pin is not None
    write_pulled(root, repo=known.repo, revision=known.pin.revision)
    (told,) = json.loads(model("list", "--json").stdout)["can_be_pulled"]
    assert (told["pulled"], told["revision"], told["licence"]) == (True, known.pin.revision, "NXAI Community License")


def test_info_tells_sizes_and_training_of_the_shipped_model(root: Path) -> None:
    told = json.loads(model("info", "embedded", "--json").stdout)
    assert (told["parameters"], told["context_bars"], told["architecture"]["blocks"]) == (858_784, 512, 4)
    assert told["quantiles"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert told["checkpoint_id"] == find_checkpoint("embedded").id
    assert told["provenance"] is None
    assert told["training"]["steps"] > 0
    shown = model("info").stdout
    for said in ("858,784", "512 bars", "none recorded", "seed 20260101"):
        assert said in shown


def test_info_tells_where_a_pulled_model_came_from(root: Path) -> None:
    write_pulled(root)
    shown = model("info", REPO).stdout
    for said in (REVISION, "http://hub.invalid", "0" * 64, "on the hub's word", "2026-01-01 00:00:00 UTC"):
        assert said in shown
    assert json.loads(model("info", NAME, "--json").stdout)["provenance"]["revision"] == REVISION


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_model_that_is_not_here_ends_with_4_and_says_how_to_pull_it(root: Path, command: str) -> None:
    result = model(command, "NX-AI/TiRex", "--json")
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    if command == "verify":
        assert json.loads(result.stdout)["sound"] is False
    else:
        assert result.stdout == ""
    assert "to pull it: sage model pull NX-AI/TiRex" in result.stderr


def test_a_pulled_model_whose_bytes_changed_is_loaded_by_no_command(root: Path) -> None:
    weights = write_pulled(root) / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelUnavailable, match="pull it again"):
        find_checkpoint(REPO)
    (listed,) = [each for each in json.loads(model("list", "--json").stdout)["models"] if each["name"] == NAME]
    assert "pull it again" in listed["problem"]


def test_verify_finds_the_shipped_and_a_pulled_model_sound(root: Path) -> None:
    write_pulled(root)
    for name in ("embedded", REPO):
        result = model("verify", name, "--json")
        assert result.exit_code == ExitCode.OK, result.stderr
        told = json.loads(result.stdout)
        assert told["sound"] is True
        assert [each["name"] for each in told["checks"]] == ["hash", "tensors", "forecast"]
        assert all(each["passed"] is True for each in told["checks"])


def test_verify_notices_bytes_that_are_not_those_recorded(root: Path) -> None:
    directory = write_pulled(root)
    tensors = load_file(directory / WEIGHTS_FILE)
    tensors["out_norm.weight"][0] += 1e-3
    save_file(tensors, directory / WEIGHTS_FILE)
    result = model("verify", REPO)
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert "WRONG" in result.stdout
    assert f"recorded was {json.loads((directory / PROVENANCE_FILE).read_text())['weights_sha256']}" in result.stderr
    assert f"pull it again: sage model pull {REPO} --revision {REVISION}" in result.stderr


def test_verify_notices_tensors_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    directory = write_pulled(root)
    text = (directory / CONFIG_FILE).read_text()
    assert '"num_blocks": 4' in text
    (directory / CONFIG_FILE).write_text(text.replace('"num_blocks": 4', '"num_blocks": 5'))
    result = model("verify", REPO, "--json")
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert [each["passed"] for each in json.loads(result.stdout)["checks"]] == [True, False, None]
    assert result.stderr.startswith(f"sage: model {REPO!r} is not sound: {directory / WEIGHTS_FILE} does not fit ")
    assert "blocks.4.norm_slstm.weight is missing" in result.stderr


def test_verify_notices_forecasts_that_are_not_in_order(root: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(find_checkpoint("embedded").weights.parent, directory)
    tensors = load_file(directory / WEIGHTS_FILE)
    for name in ("output_layer.bias", "residual_layer.bias", "output_layer.weight", "residual_layer.weight"):
        found = tensors[f"output_patch_embedding.{name}"]
        tensors[f"output_patch_embedding.{name}"] = np.ascontiguousarray(-found)
    save_file(tensors, directory / WEIGHTS_FILE)
    result = model("verify", directory, "--json")
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert [each["passed"] for each in json.loads(result.stdout)["checks"]] == [None, True, False]
    assert "CROSSED_QUANTILES" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([REPO], "--revision <40 hex digits>"),
        ([REPO, "--revision", "main"], "--revision main: a revision is the 40 lower-case hex digits of a commit"),
        ([REPO, "--revision", REVISION[:7].upper()], "40 lower-case hex digits of a commit, here are 7"),
        ([f"{REPO}@main"], "40 lower-case hex digits"),
        ([NAME, "--revision", "f" * 40], "give one of them"),
        ([NAME, "--sha256", "0"], "64 hex digits"),
        (["embedded"], "OWNER/NAME"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_end_with_2(hub: LoopbackHub, root: Path, arguments: list[str], said: str) -> None:
    result = model("pull", *arguments)
    assert result.exit_code == ExitCode.USAGE, result.stderr
    assert said in result.stderr
    assert result.stdout == ""
    assert hub.requests == []


def test_a_licence_that_was_not_accepted_is_shown_and_ends_with_2(hub: LoopbackHub, root: Path) -> None:
    result = model("pull", "NX-AI/TiRex")
    assert result.exit_code == ExitCode.USAGE
    assert NXAI_COMMUNITY.path.read_text() in result.stderr
    assert result.stderr.splitlines()[-1].startswith("sage: the NXAI Community License must be accepted")
    assert str(NXAI_COMMUNITY.path) in result.stderr.splitlines()[-1]
    assert "--accept-license" in result.stderr.splitlines()[-1]
    assert hub.requests == []


@pytest.mark.torch
def test_pull_says_what_came_from_where_and_whose_it_is(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[(REPO, REVISION, FILE)] = published(blocks=1)
    monkeypatch.setattr("regime.model.registry.HUB_MODELS", (HubModel(REPO, "tiny", NXAI_COMMUNITY, None),))
    result = model("pull", NAME, "--accept-license")
    assert result.exit_code == ExitCode.OK, result.stderr
    for said in (str(root), REVISION, "on the hub's word, not pinned", f"--model {NAME}", ATTRIBUTION):
        assert said in result.stdout
    assert "downloading" in result.stderr
    told = json.loads(model("pull", NAME, "--json").stdout)
    assert (told["already_there"], told["attribution"]) == (True, ATTRIBUTION)
    assert told["provenance"]["licence_accepted_at"] is not None
    assert ATTRIBUTION in model("info", REPO).stdout
    assert model("verify", REPO).exit_code == ExitCode.OK


@pytest.mark.torch
def test_a_hub_without_the_model_ends_with_4(hub: LoopbackHub, root: Path) -> None:
    result = model("pull", NAME, "--json")
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert result.stdout == ""
    assert f"{NAME}: {hub.endpoint} has no such model" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written_ends_with_4(hub: LoopbackHub, root: Path) -> None:
    root.write_text("a file")
    result = model("pull", NAME)
    assert result.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert f"{NAME}: {root}: " in result.stderr
    assert "no model was written (SAGE_MODELS and HF_HOME say where to write)" in result.stderr
    assert "Traceback" not in result.stderr
    assert root.read_text() == "a file"
