"""Names of models: what can be one, and which of those that were pulled is meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regime.errors import ModelUnavailable
from regime.model.checkpoint import find_checkpoint
from regime.model.registry import (
    HUB_MODELS,
    NXAI_COMMUNITY,
    PROVENANCE_FILE,
    HubModel,
    HubName,
    Pin,
    models_root,
    parse_revision,
    pulled_models,
    read_provenance,
)
from tests.hub import REPO, REVISION, write_pulled

OTHER_REVISION = "f" * 40


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


@pytest.mark.parametrize("text", ["embedded", "a/b/c", "./a", "/a/b", "../b", "a--b/c", "a/b.ckpt", "~/a", "", "a/b c"])
def test_what_is_a_path_is_no_hub_name(text: str) -> None:
    assert HubName.parse(text) is None


def test_a_hub_name_is_spelled_as_the_hub_spells_it() -> None:
    assert HubName.parse("nx-ai/tirex") == HubName("NX-AI/TiRex")
    assert HubName.parse(f"{REPO}@{REVISION}") == HubName(REPO, REVISION)
    assert str(HubName(REPO, REVISION)) == f"{REPO}@{REVISION}"


@pytest.mark.parametrize(
    ("revision", "found"),
    [
        ("main", "'m' is none"),
        ("v1", "'v' is none"),
        ("0123456", "here are 7"),
        (REVISION[:-1], "here are 39"),
        (REVISION + "0", "here are 41"),
        ("", "here are 0"),
    ],
)
def test_a_revision_that_may_change_is_refused(revision: str, found: str, root: Path) -> None:
    said = f"'{REPO}@{revision}': a revision is the 40 lower-case hex digits of a commit, {found}"
    with pytest.raises(ValueError, match=said):
        HubName.parse(f"{REPO}@{revision}")
    with pytest.raises(ModelUnavailable, match=said):
        find_checkpoint(f"{REPO}@{revision}")


def test_a_revision_in_capitals_is_the_same_commit(root: Path) -> None:
    assert HubName.parse(f"{REPO}@{REVISION.upper()}") == HubName(REPO, REVISION)
    directory = write_pulled(root)
    assert find_checkpoint(f"{REPO}@{REVISION.upper()}").weights.parent == directory


def test_every_pin_is_whole() -> None:
    for model in HUB_MODELS:
        assert HubName.parse(model.repo) == HubName(model.repo)
        assert model.licence.path.is_file()
        if model.pin:
            assert parse_revision(model.pin.revision) == model.pin.revision
            assert len(bytes.fromhex(model.pin.sha256)) == 32
            # float32 parameters, and what the pickle needs beside them
            assert 0 < model.pin.size_bytes - 4 * 35_291_200 < 1_000_000


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (HubName(REPO), f"sage model pull {REPO} --revision <40 hex digits>"),
        (HubName(REPO, REVISION), f"sage model pull {REPO} --revision {REVISION}"),
        (HubName("NX-AI/TiRex"), "sage model pull NX-AI/TiRex"),
        (HubName("NX-AI/TiRex", REVISION), f"sage model pull NX-AI/TiRex --revision {REVISION}"),
    ],
    ids=str,
)
def test_a_model_that_was_not_pulled_is_told_with_the_command_that_pulls_it(
    root: Path, name: HubName, command: str
) -> None:
    with pytest.raises(ModelUnavailable) as raised:
        find_checkpoint(str(name))
    assert str(raised.value).endswith(f"to pull it: {command}")
    assert str(root) in str(raised.value)


def test_without_a_revision_the_only_one_is_meant_and_of_several_the_pinned_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_pulled(root)
    write_pulled(root, repo="another/model")
    assert find_checkpoint(REPO).weights.parent == first
    second = write_pulled(root, revision=OTHER_REVISION, seed=2)
    with pytest.raises(ModelUnavailable, match=f"several revisions.*{REPO}@{REVISION}, {REPO}@{OTHER_REVISION}"):
        find_checkpoint(REPO)
    assert find_checkpoint(f"{REPO}@{OTHER_REVISION}").weights.parent == second
    pinned = HubModel(REPO, "tiny", NXAI_COMMUNITY, Pin(OTHER_REVISION, 1, "0" * 64))
    monkeypatch.setattr("regime.model.registry.HUB_MODELS", (pinned,))
    assert find_checkpoint(REPO).weights.parent == second
    assert list(pulled_models(root)) == [
        HubName("another/model", REVISION),
        HubName(REPO, REVISION),
        HubName(REPO, OTHER_REVISION),
    ]


def test_a_path_that_is_there_comes_before_a_hub_name(root: Path, tmp_path: Path) -> None:
    write_pulled(root)
    directory = write_pulled(tmp_path / "elsewhere", seed=2)
    (tmp_path / REPO).parent.mkdir()
    directory.rename(tmp_path / REPO)
    assert find_checkpoint(REPO).weights.parent == tmp_path / REPO


@pytest.mark.parametrize("found", ['"hub"', '"2026-01-01T00:00:00+00:00"', '"torch": ', "{"])
def test_damaged_provenance_is_told_and_a_missing_one_is_none(root: Path, found: str) -> None:
    directory = write_pulled(root)
    whole = (directory / PROVENANCE_FILE).read_text()
    assert found in whole
    (directory / PROVENANCE_FILE).write_text(whole.replace(found, "7", 1))
    with pytest.raises(ModelUnavailable, match=f"{PROVENANCE_FILE} is damaged.*pull the model again"):
        read_provenance(directory)
    (directory / PROVENANCE_FILE).unlink()
    assert read_provenance(directory) is None


def test_models_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_MODELS", "/chosen")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert models_root() == Path("/chosen")
    monkeypatch.delenv("SAGE_MODELS")
    assert models_root() == Path("/data/sage/models")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert models_root() == Path("/home/me/.local/share/sage/models")


def test_a_pulled_model_is_found_without_torch_and_without_the_hubs_client(root: Path) -> None:
    write_pulled(root)
    code = (
        "import sys\n"
        "from regime.model.checkpoint import find_checkpoint\n"
        f"find_checkpoint('{REPO}')\n"
        "sys.exit(bool({'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
