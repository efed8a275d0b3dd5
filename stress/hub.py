"""A model hub on the loopback interface that lies, and one that is not there."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

REPO, REVISION = "somebody/tiny-tirex", "0123456789abcdef0123456789abcdef01234567"

_FILE_BYTES = 200_000


@contextmanager
def absent_hub() -> Iterator[str]:
    """The address of a hub that refuses every connection. Raises OSError where there is no loopback."""
    with socket.socket() as taken:
        # Bound and never listened on: nobody else gets the port, and whoever knocks is refused.
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def lying_hub(seed: int) -> Iterator[str]:
    """The address of a hub that announces one file and sends another of the same size. Raises OSError like the other.

    Parameters
    ----------
    seed
        Of both files.
    """
    rng = np.random.default_rng(seed)
    announced, sent = rng.bytes(_FILE_BYTES), rng.bytes(_FILE_BYTES)
    handler = type("Handler", (_Lying,), {"tag": hashlib.sha256(announced).hexdigest(), "content": sent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Lying(BaseHTTPRequestHandler):
    tag: str
    content: bytes
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """What the hub says of its file."""
        self._head()

    def do_GET(self) -> None:
        """What it sends."""
        self._head()
        with contextlib.suppress(OSError):
            self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _head(self) -> None:
        self.send_response(200)
        for name, value in {
            "X-Repo-Commit": REVISION,
            "ETag": f'"{self.tag}"',
            "Content-Length": str(len(self.content)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
