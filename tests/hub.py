"""A model hub on the loopback interface: what the hub's client needs of one, and misbehaving on request.

Files are served as the real hub serves large ones: the hub itself answers with their tag, size and commit, and sends
whoever wants the bytes to another origin, the store.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import pytest

from regime.model.checkpoint import WEIGHTS_FILE, sha256_of
from regime.model.random_weights import random_weights, write_random_checkpoint
from regime.model.registry import PROVENANCE_FILE, Provenance, directory_of
from regime.model.weights import ARCHITECTURES, Architecture

WAIT_S = 60
"""Longest wait for another process; a test that gets there has failed."""

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Request:
    """One request as it came; ``place`` is ``hub`` or ``store``."""

    place: str
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class LoopbackHub:
    """Serves ``files``, by repository, revision and file name. The other fields are its faults.

    ``statuses`` holds what the next requests to the hub are answered with instead, ``store_statuses`` the same for the
    store. ``cuts`` holds, for each of the next answers of the store, how many bytes come before the connection ends,
    with a reset if ``abrupt``; ``stalls`` how many come before it waits for ``released``. ``truth`` replaces what the
    store sends, the announcement stays; ``announced_size`` replaces the announced size.
    """

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    tagged: bool = True
    tag: str = ""
    statuses: deque[int] = field(default_factory=deque)
    store_statuses: deque[int] = field(default_factory=deque)
    cuts: deque[int] = field(default_factory=deque)
    stalls: deque[int] = field(default_factory=deque)
    abrupt: bool = False
    truth: bytes | None = None
    announced_size: int | None = None
    requests: list[Request] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> LoopbackHub:
        self._servers = [_server(self, "hub"), _server(self, "store")]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def store(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    @property
    def downloads(self) -> list[Request]:
        """Requests for bytes."""
        return [each for each in self.requests if each.place == "store" and each.method == "GET"]

    def environment(self) -> dict[str, str]:
        """What points a client here, past any proxy."""
        return {"HF_ENDPOINT": self.endpoint, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _server(hub: LoopbackHub, place: str) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "place": place})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    place: str
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        # A client that takes this for its proxy sends whole addresses.
        path = re.sub(r"^http://[^/]+", "", self.path)
        request = Request(self.place, self.command, path, self.headers["Range"], self.headers["Authorization"])
        self.hub.requests.append(request)
        if self.place == "store":
            self._send_bytes(request)
        else:
            self._resolve(request)

    def _resolve(self, request: Request) -> None:
        hub, found = self.hub, _RESOLVE.fullmatch(request.path)
        if hub.statuses:
            return self._refuse(hub.statuses.popleft())
        if found is None or found[1] not in {repo for repo, _, _ in hub.files}:
            return self._refuse(404, "RepoNotFound")
        if hub.token is not None and request.authorization != f"Bearer {hub.token}":
            return self._refuse(401, "GatedRepo" if hub.gated else "RepoNotFound")
        if found[2] not in {revision for repo, revision, _ in hub.files if repo == found[1]}:
            return self._refuse(404, "RevisionNotFound")
        content = hub.files.get((found[1], found[2], found[3]))
        if content is None:
            return self._refuse(404, "EntryNotFound")
        sha256 = hashlib.sha256(content).hexdigest()
        tag = hub.tag or (sha256 if hub.tagged else hashlib.sha1(content).hexdigest())
        return self._headers(
            302,
            {
                "X-Repo-Commit": found[2],
                "ETag": f'"{tag}"',
                "X-Linked-Etag": f'"{tag}"',
                "X-Linked-Size": str(hub.announced_size or len(content)),
                "Location": f"{hub.store}/{sha256}",
            },
        )

    def _send_bytes(self, request: Request) -> None:
        hub = self.hub
        if hub.store_statuses:
            self._refuse(hub.store_statuses.popleft())
            return
        by_sha256 = {hashlib.sha256(content).hexdigest(): content for content in hub.files.values()}
        content = by_sha256[request.path[1:]] if hub.truth is None else hub.truth
        begin = int(request.range.removeprefix("bytes=").rstrip("-")) if request.range else 0
        body = content[begin:]
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if request.range else {}
        self._headers(206 if request.range else 200, headers | {"Content-Length": str(len(body))})
        cut = hub.cuts.popleft() if hub.cuts else None
        if hub.stalls:
            stall = hub.stalls.popleft()
            self.wfile.write(body[:stall])
            self.wfile.flush()
            hub.stalled.set()
            hub.released.wait(WAIT_S)
            body = body[stall:]
        try:
            self.wfile.write(body if cut is None else body[:cut])
        except OSError:  # the client has gone
            cut = 0
        if cut is not None:
            if hub.abrupt:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            self.close_connection = True

    def _refuse(self, status: int, code: str | None = None) -> None:
        self._headers(status, {"X-Error-Code": code} if code else {})

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


REPO, REVISION = "somebody/tiny-tirex", "0123456789abcdef0123456789abcdef01234567"
FILE = "model.ckpt"

CHUNK_BYTES = 10 * 1024 * 1024
"""What the client writes at once, and so the grain in which it can go on after a cut."""


def point_client_at(hub: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the hub's client in this process another hub and an empty cache; returns the cache.

    It has read its environment when it was imported, so its constants are set. It waits for nothing.
    """
    import huggingface_hub
    from huggingface_hub import constants

    cache = home / "hub"
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in hub.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    huggingface_hub.close_session()
    return cache


def published(blocks: int = 2) -> bytes:
    """A checkpoint as NX-AI publishes them, of a small network with random weights; some 24 MB. Needs torch."""
    import torch

    architecture = Architecture(
        width=512, heads=4, blocks=blocks, patch_bars=16, hidden=64, up=1408, context_bars=256
    )  # fmt: skip
    state = {
        name.replace("blocks.", "block_stack.blocks.", 1): torch.from_numpy(tensor)
        for name, tensor in random_weights(architecture, seed=3).items()
    }
    stream = io.BytesIO()
    torch.save({"hyper_parameters": architecture.hyper_parameters(), "state_dict": state}, stream)
    return stream.getvalue()


def write_pulled(root: Path, repo: str = REPO, revision: str = REVISION, seed: int = 1) -> Path:
    """What a pull of random weights would have left."""
    directory = write_random_checkpoint(ARCHITECTURES["compact"], seed, directory_of(repo, revision, root))
    provenance = Provenance(
        repo=repo,
        revision=revision,
        file=FILE,
        size_bytes=1,
        sha256="0" * 64,
        sha256_from="hub",
        weights_sha256=sha256_of(directory / WEIGHTS_FILE),
        endpoint="http://hub.invalid",
        pulled_at="2026-01-01T00:00:00+00:00",
        licence=None,
        licence_accepted_at=None,
        torch="2.13.0",
    )
    (directory / PROVENANCE_FILE).write_text(provenance.to_json())
    return directory
