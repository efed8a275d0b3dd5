"""An exchange's public archive on the loopback interface: of the real one's shape, and misbehaving on request."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_FUTURES_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def kline_zip(name: str, lines: list[str], *, header: bool = False) -> bytes:
    """A zip as the archive has it: one CSV of the same name, with a header for futures alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed time, so that the same bars are the same file.
        info = zipfile.ZipInfo(name.replace(".zip", ".csv"), (2024, 1, 1, 0, 0, 0))
        archive.writestr(info, "\n".join(([_FUTURES_HEADER] if header else []) + lines) + "\n")
    return out.getvalue()


@dataclass
class LoopbackArchive:
    """Serves ``files`` by their path. The other fields are its faults, by the name of a file.

    ``lies`` are files whose checksum is another's, ``cuts`` holds how many bytes come before the connection of each of
    the next answers ends, ``errors`` the statuses of the next answers, ``unsigned`` files without a checksum,
    ``lengths`` what is said of how long they are, ``sent_on`` addresses where they are said to be. With ``held``
    nothing more than half of any file comes until ``released``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    unsigned: set[str] = field(default_factory=set)
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    lengths: dict[str, str] = field(default_factory=dict)
    sent_on: dict[str, str] = field(default_factory=dict)
    held: bool = False
    half_sent: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, path: str, lines: list[str], *, header: bool = False) -> None:
        """Lay a file of klines there."""
        self.files[path] = kline_zip(path.rpartition("/")[2], lines, header=header)

    def fetched(self) -> Counter[str]:
        """How often each zip was asked for."""
        return Counter(path.rpartition("/")[2] for path, _ in self.asked if path.endswith(".zip"))

    def __enter__(self) -> LoopbackArchive:
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                archive.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where it lies."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        """Answer one request, or misbehave."""
        path = to.path.lstrip("/")
        self.asked.append((path, to.headers.get("Range")))
        name = path.rpartition("/")[2]
        body = self.files.get(path.removesuffix(".CHECKSUM"))
        zipped = name.removesuffix(".CHECKSUM")
        if name in self.sent_on:
            to.send_response(302)
            to.send_header("Location", self.sent_on[name])
            to.send_header("Content-Length", "0")
            to.end_headers()
        elif self.errors[name]:
            self._send(to, self.errors[name].pop(0), b"")
        elif body is None:
            self._send(to, 404, b"")
        elif zipped == name:
            self._send_part(to, body, name)
        elif zipped in self.unsigned:
            self._send(to, 404, b"")
        else:
            signed = b"another" if zipped in self.lies else body
            self._send(to, 200, f"{hashlib.sha256(signed).hexdigest()}  {zipped}\n".encode())

    def _send_part(self, to: BaseHTTPRequestHandler, body: bytes, name: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", to.headers.get("Range") or "")
        begin = int(wanted[1]) if wanted else 0
        if wanted and begin >= len(body):
            self._send(to, 416, b"")
        else:
            self._send(to, 206 if wanted else 200, body[begin:], name)

    def _send(self, to: BaseHTTPRequestHandler, status: int, body: bytes, name: str = "") -> None:
        to.send_response(status)
        to.send_header("Content-Length", self.lengths.get(name, str(len(body))))
        to.end_headers()
        if self.held and name:
            to.wfile.write(body[: len(body) // 2])
            to.wfile.flush()
            self.half_sent.set()
            self.released.wait(60.0)
            to.close_connection = True
            return
        if name and self.cuts[name]:
            body = body[: self.cuts[name].pop(0)]
            to.close_connection = True
        to.wfile.write(body)
