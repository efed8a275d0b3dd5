"""Pulling: consent, conversion, provenance, and nothing half done whatever happens on the way."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from regime.errors import ModelUnavailable
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, find_checkpoint, sha256_of
from regime.model.pull import ACCEPTED_FILE, LicenceNotAccepted, PullRefused, pull
from regime.model.random_weights import random_weights
from regime.model.registry import HUB_MODELS, NXAI_COMMUNITY, HubModel, HubName, Pin, read_provenance
from regime.model.verify import verify
from regime.model.weights import load_weights
from tests.conftest import clean_environment
from tests.hub import (
    CHUNK_BYTES,
    FILE,
    REPO,
    REVISION,
    WAIT_S,
    LoopbackHub,
    point_client_at,
    published,
    write_pulled,
)
from tests.regime.model.bomb import Bomb

NAME = HubName(REPO, REVISION)
NO_PICKLE = b"these are no weights" * 100


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({(REPO, REVISION, FILE): NO_PICKLE}) as hub:
        yield hub


@pytest.fixture
def root(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are pulled to; the client of this process is pointed at the hub."""
    point_client_at(hub, tmp_path / "home", monkeypatch)
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="session")
def checkpoint() -> bytes:
    return published()


def left(root: Path) -> list[str]:
    """What lies among the models, but for locks, which hold nothing."""
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


def pin(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loopback hub's file a pinned model under NXAI's licence."""
    pinned = Pin(REVISION, len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr("regime.model.registry.HUB_MODELS", (HubModel(REPO, "tiny", NXAI_COMMUNITY, pinned),))


@pytest.mark.torch
def test_a_published_pickle_becomes_a_checkpoint_of_the_same_weights(
    hub: LoopbackHub, root: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[(REPO, REVISION, FILE)] = checkpoint
    pin(checkpoint, monkeypatch)
    pulled = pull(HubName(REPO), accept_licence=True)
    assert pulled.directory == root / f"somebody--tiny-tirex@{REVISION}"
    assert left(root) == [ACCEPTED_FILE, pulled.directory.name]
    for name in (REPO, f"{REPO}@{REVISION}", str(pulled.directory)):
        read = load_weights(find_checkpoint(name))
    expected = random_weights(read.architecture, seed=3)
    assert sorted(read.tensors) == sorted(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
    assert [check.passed for check in verify(REPO)] == [True, True, True]

    told = read_provenance(pulled.directory)
    assert told == pulled.provenance
    assert (told.repo, told.revision, told.file, told.endpoint) == (REPO, REVISION, FILE, hub.endpoint)
    assert (told.size_bytes, told.sha256, told.sha256_from) == (
        len(checkpoint),
        hashlib.sha256(checkpoint).hexdigest(),
        "pin",
    )
    assert told.weights_sha256 == sha256_of(pulled.directory / WEIGHTS_FILE)
    assert told.licence == NXAI_COMMUNITY.name
    assert told.licence_accepted_at is not None

    hub.requests.clear()
    again = pull(HubName(REPO))
    assert (again.already, again.provenance) == (True, told)
    (pulled.directory / WEIGHTS_FILE).write_bytes(b"damaged")
    mended = pull(HubName(REPO))
    assert (mended.already, mended.provenance.weights_sha256) == (False, told.weights_sha256)
    assert hub.requests == []


def test_without_a_pin_a_revision_must_be_named(root: Path) -> None:
    with pytest.raises(PullRefused, match=r"no pinned revision.*--revision <40 hex digits>"):
        pull(HubName(REPO))
    assert not root.exists()


@pytest.mark.parametrize("sha256", ["a" * 63, "g" * 64, "latest"])
def test_a_sha256_that_is_none_is_refused(root: Path, sha256: str) -> None:
    with pytest.raises(PullRefused, match="64 hex digits"):
        pull(NAME, sha256=sha256)


def test_a_sha256_that_contradicts_the_pin_is_refused(root: Path) -> None:
    with pytest.raises(PullRefused, match="is pinned to"):
        pull(HubName(HUB_MODELS[0].repo), sha256="a" * 64)


@pytest.mark.torch
def test_a_licence_is_accepted_once_and_before_anything_is_downloaded(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(NO_PICKLE, monkeypatch)
    with pytest.raises(LicenceNotAccepted, match=r"Read .*NXAI-COMMUNITY\.txt; if you agree.*--accept-license"):
        pull(NAME)
    assert hub.requests == []
    for accepted in (True, False):
        with pytest.raises(ModelUnavailable, match=r"no plain checkpoint|damaged"):
            pull(NAME, accept_licence=accepted)
    assert list(json.loads((root / ACCEPTED_FILE).read_text())) == ["NXAI Community License"]


def test_a_model_whose_licence_is_unknown_is_pulled_with_a_word_about_it(root: Path) -> None:
    notes: list[str] = []
    with pytest.raises(ModelUnavailable):
        pull(NAME, on_note=notes.append)
    assert notes == [f"SAGE knows no licence of {REPO}; its page on the hub says what you may do with it"]


def test_a_torch_that_reads_pickles_unsafely_is_refused_before_the_download(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regime.model.pull.version", lambda _package: "2.5.1+cpu")
    with pytest.raises(ModelUnavailable, match=r"torch 2\.5\.1\+cpu cannot read pickles safely.*torch 2\.6 or newer"):
        pull(NAME)
    assert hub.requests == []


@pytest.mark.torch
def test_code_in_a_pickle_does_not_run_and_leaves_no_model(hub: LoopbackHub, root: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps({"state_dict": Bomb(tmp_path / "ran"), "hyper_parameters": {}}, protocol=2)
    pickle.loads(bomb)
    assert (tmp_path / "ran").exists(), "the bomb is no bomb"
    (tmp_path / "ran").unlink()
    hub.files[(REPO, REVISION, FILE)] = bomb
    with pytest.raises(ModelUnavailable, match="might run code, and is not loaded"):
        pull(NAME)
    assert not (tmp_path / "ran").exists()
    assert left(root) == []


@pytest.mark.torch
def test_hyper_parameters_that_a_configuration_cannot_hold_are_refused(hub: LoopbackHub, root: Path) -> None:
    import torch

    document = torch.load(io.BytesIO(published(blocks=1)), weights_only=True)
    document["hyper_parameters"]["model_config"]["extra"] = torch.zeros(2)
    stream = io.BytesIO()
    torch.save(document, stream)
    hub.files[(REPO, REVISION, FILE)] = stream.getvalue()
    with pytest.raises(ModelUnavailable, match=r"hyper-parameters do not fit into config\.json"):
        pull(NAME)
    assert left(root) == []


def test_a_pull_that_fails_leaves_the_damaged_model_that_it_was_to_replace(root: Path, hub: LoopbackHub) -> None:
    directory = write_pulled(root)
    (directory / CONFIG_FILE).write_text("{}")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(ModelUnavailable):
        pull(NAME)
    assert left(root) == [directory.name]
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(root: Path, hub: LoopbackHub) -> None:
    root.write_text("a file")
    with pytest.raises(OSError) as raised:
        pull(NAME)
    assert raised.value.filename == str(root)
    assert hub.requests == []


def environment(hub: LoopbackHub, tmp_path: Path, **more: str) -> dict[str, str]:
    """What a user would set for a hub, a cache and a place for models of their own."""
    places = {"HF_HOME": str(tmp_path / "hf"), "SAGE_MODELS": str(tmp_path / "models")}
    return clean_environment() | hub.environment() | places | more


def sage_pull(environment: dict[str, str], before: str = "") -> subprocess.Popen[str]:
    """``sage model pull`` in a process of its own, which first runs the code given."""
    code = f"{before}\nimport sys\nfrom cli.app import app\nsys.argv[0] = 'sage'\napp()\n"
    arguments = ["model", "pull", REPO, "--revision", REVISION, "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def partial_bytes(tmp_path: Path) -> int:
    """How much of a download lies on disk."""
    return sum(path.stat().st_size for path in (tmp_path / "hf").rglob("*.incomplete"))


@pytest.mark.torch
def test_a_pull_that_was_killed_is_continued_by_the_next_one(
    hub: LoopbackHub, tmp_path: Path, checkpoint: bytes
) -> None:
    hub.files[(REPO, REVISION, FILE)] = checkpoint
    hub.stalls.append(CHUNK_BYTES + 70_000)
    killed = sage_pull(environment(hub, tmp_path))
    assert hub.stalled.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while partial_bytes(tmp_path) < CHUNK_BYTES and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=WAIT_S)
    assert left(tmp_path / "models") == []
    hub.released.set()

    out, err = (again := sage_pull(environment(hub, tmp_path))).communicate(timeout=WAIT_S)
    assert again.returncode == 0, err
    assert [each.range for each in hub.downloads] == [None, f"bytes={CHUNK_BYTES}-"]
    told = json.loads(out)
    assert told["provenance"]["sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert left(tmp_path / "models") == [f"somebody--tiny-tirex@{REVISION}"]
    assert partial_bytes(tmp_path) == 0


@pytest.mark.torch
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_pull_that_was_interrupted_says_what_is_kept_and_goes_on_from_there(
    hub: LoopbackHub, tmp_path: Path, checkpoint: bytes, sent: signal.Signals
) -> None:
    hub.files[(REPO, REVISION, FILE)] = checkpoint
    hub.stalls.append(CHUNK_BYTES + 70_000)
    interrupted = sage_pull(environment(hub, tmp_path))
    assert hub.stalled.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while partial_bytes(tmp_path) < CHUNK_BYTES and time.monotonic() < deadline:
        time.sleep(0.02)
    interrupted.send_signal(sent)
    out, err = interrupted.communicate(timeout=WAIT_S)
    assert (interrupted.returncode, out) == (130, "")
    assert err.splitlines()[-1] == (
        "sage: interrupted; no model was written. What came of its file is kept: the same command goes on from there"
    )
    assert "Traceback" not in err
    assert left(tmp_path / "models") == []
    hub.released.set()

    hub.statuses.extend([503, 503])
    _, err = (again := sage_pull(environment(hub, tmp_path))).communicate(timeout=WAIT_S)
    assert again.returncode == 0, err
    assert [each.range for each in hub.downloads] == [None, f"bytes={CHUNK_BYTES}-"]
    assert f"sage: {hub.endpoint} does not answer as it should; trying again for a while" in err.splitlines()
    assert "Retry" not in err and "503" not in err


@pytest.mark.torch
def test_of_two_pulls_at_once_one_downloads_and_the_other_waits(
    hub: LoopbackHub, tmp_path: Path, checkpoint: bytes
) -> None:
    hub.files[(REPO, REVISION, FILE)] = checkpoint
    hub.stalls.append(70_000)
    first = sage_pull(environment(hub, tmp_path))
    assert hub.stalled.wait(WAIT_S)
    second = sage_pull(environment(hub, tmp_path))
    assert second.stderr is not None
    assert any("another process is pulling" in line for line in second.stderr)
    hub.released.set()
    told = []
    for each in (first, second):
        out, err = each.communicate(timeout=WAIT_S)
        assert each.returncode == 0, err
        told.append(json.loads(out))
    assert [each["already_there"] for each in told] == [False, True]
    assert told[0]["provenance"] == told[1]["provenance"]
    assert len(hub.downloads) == 1


@pytest.mark.torch
def test_a_disk_that_is_full_ends_with_4_and_leaves_no_model(hub: LoopbackHub, tmp_path: Path) -> None:
    limit_bytes = 1 << 20
    hub.files[(REPO, REVISION, FILE)] = os.urandom(4 * limit_bytes)
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))"
    running = sage_pull(environment(hub, tmp_path), before=limit)
    out, err = running.communicate(timeout=WAIT_S)
    assert (running.returncode, out) == (4, ""), err
    assert str(tmp_path / "hf") in err
    assert "make room" in err and "no model was written" in err
    assert "Traceback" not in err
    assert left(tmp_path / "models") == []


@pytest.mark.torch
def test_a_disk_that_fills_during_conversion_leaves_no_model(
    hub: LoopbackHub, root: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == WEIGHTS_FILE:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    hub.files[(REPO, REVISION, FILE)] = checkpoint
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        pull(NAME)
    assert str(root) in raised.value.filename
    assert left(root) == []
    monkeypatch.setattr("os.fsync", real)
    pull(NAME)
    assert len(hub.downloads) == 1


@pytest.mark.torch
def test_the_environment_of_the_hubs_users_is_respected(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.token = "secret"
    running = sage_pull(environment(hub, tmp_path, HF_HUB_OFFLINE="1"))
    _, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 4, err
    assert f"{tmp_path / 'hf'}" in err
    assert "HF_HUB_OFFLINE" in err
    assert hub.requests == []
    running = sage_pull(environment(hub, tmp_path, HF_TOKEN="secret"))
    _, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 4, err
    assert "Traceback" not in err
    (kept,) = (tmp_path / "hf").rglob("blobs/*")
    assert kept.read_bytes() == NO_PICKLE
