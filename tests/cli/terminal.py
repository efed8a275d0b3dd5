"""A command on a pseudo-terminal, and what it leaves on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyte

_BEYOND = 100
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Left:
    """What a command left: exit code, the screen's lines, whether a cursor is to be seen, and all that it wrote."""

    code: int
    lines: list[str]
    cursor_hidden: bool
    written: str


def on_terminal(
    arguments: Sequence[str],
    columns: int = 80,
    rows: int = 24,
    interrupt_when: Callable[[str], bool] = lambda screen: False,
) -> Left:
    """Run the command line; Ctrl-C is typed once when the screen's text is such.

    The screen is wider than the command is told, so that a line which is too long shows its end there.
    """
    pid, descriptor = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        told = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        program = [sys.executable, "-c", "from cli.app import app; app()", *arguments]
        os.execve(sys.executable, program, told | {"TERM": "xterm-256color", "PYTHONUTF8": "1"})
    screen = pyte.Screen(columns + _BEYOND, rows)
    stream = pyte.ByteStream(screen)
    written, interrupted, until = b"", False, time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                told_bytes = os.read(descriptor, 1 << 16)
            except OSError:  # the other end is gone
                break
            if not told_bytes:
                break
            written += told_bytes
            stream.feed(told_bytes)
        if not interrupted and interrupt_when("\n".join(screen.display)):
            interrupted = True
            os.write(descriptor, b"\x03")
    os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = [line.rstrip() for line in screen.display]
    return Left(code, lines, screen.cursor.hidden, written.decode())
