"""Receivers of HTTP POST that are slow, fail, hang up, lead elsewhere, drip, or never answer."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Receiver(ThreadingHTTPServer):
    """Does what its script says, one word for each request, and the last one for all further ones."""

    daemon_threads = True

    def __init__(self, script: list[str], certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.script = script
        self.bodies: list[dict[str, object]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()
        self.asked = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/hook"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        receiver = self.server
        word = receiver.script.pop(0) if len(receiver.script) > 1 else receiver.script[0]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        receiver.bodies.append(body)
        receiver.heads.append((self.path, dict(self.headers)))
        receiver.asked.release()
        if word == "silent":
            receiver.over.wait(20)
        elif word == "drip":
            with contextlib.suppress(OSError):
                while not receiver.over.wait(0.05):
                    self.wfile.write(b"H")
        elif word == "drip-headers":
            self.send_response_only(200)
            self.flush_headers()
            with contextlib.suppress(OSError):
                while not receiver.over.wait(0.05):
                    self.wfile.write(b"X")
        elif word == "nonsense":
            self.wfile.write(b"what?\r\n\r\n")
        elif word == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not receiver.over.is_set():
                    self.wfile.write(b"x" * 65_536)
        elif word.isdigit():
            self.send_response(int(word))
            if word.startswith("3"):
                self.send_header("Location", f"http://127.0.0.1:{receiver.server_address[1]}/elsewhere")
            self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def receiver(*script: str, certificate: Path | None = None) -> Iterator[Receiver]:
    server = Receiver(list(script), certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
