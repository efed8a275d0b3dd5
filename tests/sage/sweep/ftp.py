"""A place that several machines could share: an FTP server on loopback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve a directory; gives the address."""
    root.mkdir(parents=True, exist_ok=True)
    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
    authorizer = DummyAuthorizer()
    authorizer.add_user("quant", "secret", str(root), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = ThreadedFTPServer(("127.0.0.1", 0), handler)
    over = threading.Event()

    def serve() -> None:
        # Closed by the thread that waits on its sockets: whoever else closes them does so under its feet.
        while not over.is_set():
            server.serve_forever(timeout=0.1, blocking=False, handle_exit=False)
        server.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ftp://quant:secret@127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        over.set()
        thread.join(timeout=5.0)
