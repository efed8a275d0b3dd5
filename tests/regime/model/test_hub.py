"""Fetching from a hub: the real client against a hub on the loopback interface, which is slow, wrong or gone."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from regime.errors import ModelUnavailable
from regime.model.hub import Fetched, Source, fetch
from tests.hub import CHUNK_BYTES, FILE, REPO, REVISION, LoopbackHub, point_client_at

BIG = random.Random(5).randbytes(2 * CHUNK_BYTES + 1_000_000)
"""Large enough to be cut off with something on disk."""
CONTENT = BIG[:300_000]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BIG_SHA256 = hashlib.sha256(BIG).hexdigest()
SOURCE = Source(REPO, REVISION, FILE)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({(REPO, REVISION, FILE): CONTENT}) as hub:
        yield hub


@pytest.fixture
def big_hub(hub: LoopbackHub) -> LoopbackHub:
    hub.files[(REPO, REVISION, FILE)] = BIG
    return hub


@pytest.fixture
def cache(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return point_client_at(hub, tmp_path / "home", monkeypatch)


def fetched(source: Source = SOURCE) -> Fetched:
    return fetch(source, lambda _name, _done, _total: None)


def kept(cache: Path) -> list[Path]:
    """Files of models in the cache, whole or partial."""
    return [path for path in cache.rglob("blobs/*") if path.is_file()]


def ranges(hub: LoopbackHub) -> list[str | None]:
    return [each.range for each in hub.downloads]


def test_a_file_is_fetched_into_the_clients_cache_and_found_there(hub: LoopbackHub, cache: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    first = fetch(SOURCE, lambda *stage: stages.append(stage))
    assert first.path.read_bytes() == CONTENT
    assert first.path == cache / "models--somebody--tiny-tirex" / "snapshots" / REVISION / FILE
    assert (first.size_bytes, first.sha256, first.sha256_from) == (len(CONTENT), SHA256, "hub")
    before = len(hub.requests)
    assert fetched() == first
    assert len(hub.requests) == before


def test_what_another_program_left_in_the_cache_is_used(hub: LoopbackHub, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(REPO, FILE, revision=REVISION)
    assert str(fetched().path) == path
    assert len(hub.downloads) == 1


@pytest.mark.parametrize(
    ("fault", "source", "said"),
    [
        ({}, Source("somebody/else", REVISION, FILE), "has no such model, or it is private"),
        ({"token": "secret"}, SOURCE, "has no such model, or it is private.*HF_TOKEN"),
        ({"token": "secret", "gated": True}, SOURCE, "access is gated; accept its terms on http://.*HF_TOKEN"),
        ({}, Source(REPO, "f" * 40, FILE), "has no such revision.*/commits/main"),
        ({}, Source(REPO, REVISION, "other.ckpt"), "there is no other.ckpt in it"),
        ({}, Source(REPO, REVISION, FILE, None, "a" * 64, "option"), "another model.ckpt.*the option says aaa"),
        ({}, Source(REPO, REVISION, FILE, 17, SHA256, "pin"), "another model.ckpt.*the pin says 17"),
        ({"tagged": False}, SOURCE, "gives no sha256 for model.ckpt; give the right one with --sha256"),
    ],
    ids=["no repo", "private", "gated", "no revision", "no file", "other sha256", "other size", "no sha256"],
)
def test_what_the_hub_does_not_have_is_not_downloaded(
    hub: LoopbackHub, cache: Path, fault: dict[str, object], source: Source, said: str
) -> None:
    for name, value in fault.items():
        setattr(hub, name, value)
    with pytest.raises(ModelUnavailable, match=said) as raised:
        fetched(source)
    assert str(source) in str(raised.value)
    assert hub.downloads == []
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("truth", "begins"),
    [
        (CONTENT[:-1] + b"!", f"{len(CONTENT)} bytes"),
        (CONTENT[:5000], "5000 bytes"),
        (CONTENT + b"more", "300004 bytes"),
    ],
    ids=["wrong bytes of the right length", "too short", "too long"],
)
def test_what_is_not_the_file_that_was_announced_is_refused_and_not_kept(
    hub: LoopbackHub, cache: Path, truth: bytes, begins: str
) -> None:
    hub.truth = truth
    with pytest.raises(ModelUnavailable, match=rf"is not what was asked for: {begins}.*nothing of it was kept"):
        fetched()
    assert kept(cache) == []


def test_a_file_that_the_hub_does_not_tag_is_checked_against_the_sha256_given(hub: LoopbackHub, cache: Path) -> None:
    hub.tagged = False
    given = Source(REPO, REVISION, FILE, None, SHA256, "option")
    assert fetched(given).sha256_from == "option"
    assert fetched(given).path.read_bytes() == CONTENT


def test_a_tag_that_would_lead_out_of_the_cache_is_refused(hub: LoopbackHub, cache: Path) -> None:
    hub.tag = "../../../victim"
    with pytest.raises(ModelUnavailable, match=r"the tag '\.\./\.\./\.\./victim'; is it a model hub"):
        fetched(Source(REPO, REVISION, FILE, None, SHA256, "option"))
    assert not list(cache.parent.rglob("victim*"))


def test_an_answer_that_is_no_hubs_is_told(hub: LoopbackHub, cache: Path) -> None:
    hub.statuses.extend([200] * 20)
    with pytest.raises(ModelUnavailable, match="is HF_ENDPOINT a model hub"):
        fetched()


def test_a_hub_that_is_overloaded_for_a_while_is_asked_again_and_that_is_said_once(
    hub: LoopbackHub, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.statuses.extend([503, 502])
    hub.store_statuses.extend([503])
    notes: list[str] = []
    assert fetch(SOURCE, lambda _name, _done, _total: None, notes.append).sha256 == SHA256
    assert notes == [f"{hub.endpoint} does not answer as it should; trying again for a while"]
    assert capfd.readouterr() == ("", "")


def test_what_the_client_warns_of_besides_is_passed_on(hub: LoopbackHub, cache: Path) -> None:
    notes: list[str] = []

    def warn(_name: str, _done: int, _total: int) -> None:
        logging.getLogger("huggingface_hub.file_download").warning("The hub moves on Sunday.\nHave a nice day.")

    fetch(SOURCE, warn, notes.append)
    assert set(notes) == {f"{hub.endpoint}: The hub moves on Sunday."}


def test_the_clients_own_words_are_left_to_who_asks_for_them(
    hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_VERBOSITY", "warning")
    hub.statuses.extend([503])
    notes: list[str] = []
    fetch(SOURCE, lambda _name, _done, _total: None, notes.append)
    assert notes == []
    assert "503" in caplog.text


@pytest.mark.parametrize("place", ["statuses", "store_statuses"])
def test_a_hub_that_stays_overloaded_is_named(hub: LoopbackHub, cache: Path, place: str) -> None:
    getattr(hub, place).extend([503] * 50)
    with pytest.raises(ModelUnavailable, match="answered with HTTP status 503; try again later"):
        fetched()


def test_a_hub_that_is_not_there_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackHub() as gone:
        point_client_at(gone, cache.parent, monkeypatch)
    with pytest.raises(ModelUnavailable, match=f"{gone.endpoint} could not be reached.*check the network, HF_ENDPOINT"):
        fetched()


@pytest.mark.parametrize("abrupt", [False, True], ids=["closed", "reset"])
def test_a_download_that_is_cut_off_goes_on_where_it_was(big_hub: LoopbackHub, cache: Path, abrupt: bool) -> None:
    big_hub.abrupt = abrupt
    big_hub.cuts.extend([CHUNK_BYTES + 3000])
    assert fetched().path.read_bytes() == BIG
    first, second = ranges(big_hub)
    # A reset takes what the kernel still held with it.
    assert (first, second) == (None, f"bytes={CHUNK_BYTES}-") or (abrupt and (first, second) == (None, None))


def test_progress_counts_what_is_on_disk(big_hub: LoopbackHub, cache: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    fetch(SOURCE, lambda *stage: stages.append(stage))
    assert [stage for stage in stages if stage[0] == "downloading (MB)"] == [
        ("downloading (MB)", 10, 21),
        ("downloading (MB)", 20, 21),
        ("downloading (MB)", 21, 21),
    ]


def test_a_store_that_goes_silent_is_asked_again_for_the_rest(
    big_hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    big_hub.stalls.append(CHUNK_BYTES + 3000)
    assert fetched().path.read_bytes() == BIG
    assert ranges(big_hub)[-1] == f"bytes={CHUNK_BYTES}-"


def test_a_download_that_was_given_up_is_continued_by_the_next_one(big_hub: LoopbackHub, cache: Path) -> None:
    big_hub.cuts.extend([CHUNK_BYTES, *[0] * 50])
    with pytest.raises(ModelUnavailable, match=r"broke off.*the next pull goes on from what came"):
        fetched()
    (partial,) = kept(cache)
    assert partial.read_bytes() == BIG[:CHUNK_BYTES]
    big_hub.cuts.clear()
    big_hub.requests.clear()
    assert fetched().path.read_bytes() == BIG
    assert ranges(big_hub) == [f"bytes={CHUNK_BYTES}-"]
    assert [path.name for path in kept(cache)] == [BIG_SHA256]


@pytest.mark.parametrize("size_bytes", [1000, len(CONTENT), len(CONTENT) + 9], ids=["part", "whole", "more"])
def test_a_damaged_partial_file_costs_a_download_and_no_more(hub: LoopbackHub, cache: Path, size_bytes: int) -> None:
    blobs = cache / "models--somebody--tiny-tirex" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{SHA256}.sage.incomplete").write_bytes(b"\0" * size_bytes)
    assert fetched().path.read_bytes() == CONTENT
    assert ranges(hub)[-1] is None


def test_a_damaged_file_in_the_cache_is_fetched_again(hub: LoopbackHub, cache: Path) -> None:
    path = fetched().path
    path.resolve().write_bytes(b"damaged")
    assert fetched().path.read_bytes() == CONTENT
    assert len(hub.downloads) == 2


def test_offline_the_cache_is_all_there_is(hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match=f"not in the hub's cache {cache}, and HF_HUB_OFFLINE forbids"):
        fetched()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    path = fetched().path
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetched().path == path
    assert hub.requests == []
    path.resolve().write_bytes(b"damaged")
    with pytest.raises(ModelUnavailable, match=f"{path} in the hub's cache is damaged"):
        fetched()


def test_the_token_goes_to_the_hub_and_not_to_the_store(
    hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    fetched()
    sent = {place: {each.authorization for each in hub.requests if each.place == place} for place in ("hub", "store")}
    assert sent == {"hub": {"Bearer secret"}, "store": {None}}


def test_a_proxy_is_used(hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.endpoint, "http://hub.invalid")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    assert fetched().endpoint == "http://hub.invalid"


def test_a_cache_that_cannot_be_written_is_named(
    hub: LoopbackHub, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(NotADirectoryError) as raised:
        fetched()
    assert str(tmp_path / "file") in str(raised.value.filename)
    assert hub.downloads == []
