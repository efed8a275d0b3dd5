"""Alerts as JSON by HTTP POST, from a thread of its own: a slow, failing or silent receiver never holds up a bar.

Address and token are secrets, as many services carry the right to post in the address. They come from the environment
or a file, and neither messages nor reprs show more than scheme, host and port.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from data.errors import OptionError
from regime.alerts import Alert
from sage.sinks import LOGGER, Delivery, WallClock, record_of

FAILURES = LOGGER.getChild("webhook")
"""Hears of each alert that was not delivered, when that is given up; a logger apart from that of the alerts."""

_OPTION = "--webhook-url-env"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VISIBLE = re.compile(r"[!-~]+")
_SECRET_BYTES_MAX = 1 << 16
_WORTH_ANOTHER_TRY = {408, 425, 429}


@dataclass(frozen=True)
class Address:
    """Where to post. What may be secret stays out of the repr; ``str`` is fit to be shown."""

    secure: bool
    host: str
    port: int | None
    target: str = field(repr=False)
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"http{'s' if self.secure else ''}://{host}{port}/…"

    @property
    def port_or_default(self) -> int:
        """To which port to connect: that of the scheme where none is given."""
        return self.port or (443 if self.secure else 80)

    @classmethod
    def from_environment(cls, name: str, environ: Mapping[str, str] = os.environ) -> Address:
        """The address in variable ``name`` or in the file that ``name_FILE`` names; a bearer token in ``name_TOKEN``.

        The token may lie in a file too, named by ``name_TOKEN_FILE``.

        Raises
        ------
        OptionError
            If there is none, or it is no http or https address. The message never shows what was found.
        """
        if not _NAME.fullmatch(name):
            raise OptionError(f"{_OPTION} takes the name of an environment variable that holds the address, not more")
        url = _secret(name, environ)
        if url is None:
            raise OptionError(f"{_OPTION} {name}: neither {name} nor {name}_FILE is set")
        return cls._of(name, url, _secret(f"{name}_TOKEN", environ))

    @classmethod
    def _of(cls, name: str, url: str, token: str | None) -> Address:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message would show the address
            parts, host, port = SplitResult("", "", "", "", ""), None, None
        if parts.scheme not in {"http", "https"} or not host:
            raise OptionError(f"{_OPTION} {name}: does not hold an address such as https://host/path")
        authorization = f"Bearer {token}" if token else ""
        if parts.username is not None:
            if token:
                raise OptionError(f"{_OPTION} {name}: user and password in the address or {name}_TOKEN, not both")
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme == "https", host, port, target, authorization)


def _secret(name: str, environ: Mapping[str, str]) -> str | None:
    """A variable's value, or that of the file that its twin names; None where there is neither."""
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if not value and path:
        try:
            with Path(path).open("rb") as file:
                value = file.read(_SECRET_BYTES_MAX).decode(errors="replace")
        except OSError as error:
            raise OptionError(f"{name}_FILE: {path}: {error.strerror}") from error
    value = value.strip() if value else None
    if value and not _VISIBLE.fullmatch(value):
        raise OptionError(f"{name}: holds blanks, line breaks or other characters that no address or token has")
    return value or None


@dataclass(frozen=True)
class Patience:
    """How long, and how often, something is tried.

    An attempt takes at most ``timeout_s`` once connected, and as much for each address of the name before; there are
    ``attempts`` of them with pauses of ``pause_s``, twice that, and so on up to ``pause_max_s``. ``room`` alerts may
    wait; of more the oldest go. ``leave_s`` is for those that are left at the end.
    """

    timeout_s: float = 10.0
    attempts: int = 5
    pause_s: float = 1.0
    pause_max_s: float = 30.0
    room: int = 100
    leave_s: float = 5.0


class Webhook:
    """Posts alerts to an address, in their order.

    An answer of 2xx is a delivery. Failed connections, time-outs, 408, 425, 429 and 5xx are tried again; redirects are
    not followed, since they would carry the secret elsewhere. A receiver may get an alert twice, with the same ``id``.

    Parameters
    ----------
    address
        Where to.
    patience
        Time-outs, attempts, and how much may wait.
    clock
        The time of day, in seconds since the epoch.
    """

    def __init__(self, address: Address, patience: Patience | None = None, clock: WallClock = time.time) -> None:
        self._address = address
        self._patience = patience or Patience()
        self._clock = clock
        self._run = secrets.token_hex(8)
        self._waiting: deque[bytes] = deque()
        self._asked = self._sent = self._failed = 0
        self._error = ""
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sage-webhook", daemon=True)
        self._thread.start()

    def tell(self, alert: Alert) -> None:
        """Leave it to the thread."""
        with self._changed:
            self._asked += 1
            record = record_of(alert, self._clock()) | {"id": f"{self._run}-{self._asked}"}
            record["text"] = f"SAGE: {alert.severity} {alert.name} {record['state']}: {alert.detail}"
            if len(self._waiting) >= self._patience.room:
                self._waiting.popleft()
            self._waiting.append(json.dumps(record).encode())
            self._changed.notify()

    def close(self) -> Delivery:
        """Give what is left a last chance of ``leave_s``; whatever has not arrived by then is dropped."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(self._patience.leave_s)
        with self._changed:
            self._waiting.clear()
            dropped = self._asked - self._sent - self._failed
            return Delivery(f"webhook {self._address}", self._sent, self._failed, dropped, self._error)

    def _work(self) -> None:
        while (body := self._next()) is not None:
            error = self._deliver(body)
            with self._changed:
                self._sent += not error
                self._failed += bool(error)
                self._error = error or self._error
            if error:
                FAILURES.warning("webhook %s: an alert was not delivered: %s", self._address, error)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            return self._waiting.popleft() if self._waiting else None

    def _deliver(self, body: bytes) -> str:
        """What went wrong for good, or nothing."""
        error = ""
        for attempt in range(self._patience.attempts):
            error, again = self._post(body)
            if not (error and again) or self._closing.is_set():
                break
            if attempt + 1 < self._patience.attempts:
                self._closing.wait(min(self._patience.pause_s * 2.0**attempt, self._patience.pause_max_s))
        return error

    def _post(self, body: bytes) -> tuple[str, bool]:
        """One attempt: what went wrong, and whether another one may help."""
        headers = {"Content-Type": "application/json", "User-Agent": "sage", "Connection": "close"}
        if self._address.authorization:
            headers["Authorization"] = self._address.authorization
        cut = threading.Event()
        try:
            status = self._status(body, headers, cut)
        except TimeoutError:
            cut.set()
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Not its message: some of them show the address, or a header.
            why = getattr(error, "strerror", None)
            if not cut.is_set():
                return type(error).__name__ + (f": {why}" if why else ""), True
        if cut.is_set():
            return "no answer in time", True
        if 200 <= status < 300:
            return "", False
        if 300 <= status < 400:
            return f"HTTP {status}: redirects are not followed; give the address to which it leads", False
        return f"HTTP {status}", status >= 500 or status in _WORTH_ANOTHER_TRY

    def _status(self, body: bytes, headers: dict[str, str], cut: threading.Event) -> int:
        """Post on a connection of its own, which is ended in time, and ``cut`` set."""
        host, port, timeout_s = self._address.host, self._address.port_or_default, self._patience.timeout_s
        tls = ssl.create_default_context() if self._address.secure else None
        # Never without a port: it would be looked for in the host, behind the last colon of an IPv6 address.
        connection = (
            http.client.HTTPConnection(host, port, timeout=timeout_s)
            if tls is None
            else http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
        )
        with contextlib.closing(connection):
            connection.sock = socket.create_connection((host, port), timeout_s)
            with _cut_off_after(timeout_s, connection.sock, cut):
                if tls is not None:
                    # Only now: a hand-shake may drip, too.
                    connection.sock = tls.wrap_socket(connection.sock, server_hostname=host)
                connection.request("POST", self._address.target, body, headers)
                return connection.getresponse().status


@contextlib.contextmanager
def _cut_off_after(seconds: float, sock: socket.socket, cut: threading.Event) -> Iterator[None]:
    """End a connection after so long: a socket's own time-out begins anew with every byte that drips in."""
    # The same connection by another name: TLS takes the first one over, and is not for a second thread.
    other = sock.dup()

    def cut_off() -> None:
        cut.set()
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        other.close()
