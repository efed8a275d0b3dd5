"""Which files a user's code opens by itself: a check that alters the bars of a run cannot alter those."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

_CODE = (".py", ".pyc", ".pyd", ".so")

_watching: list[tuple[frozenset[str], set[str]]] = []
"""Files of code that are watched, and what they have opened. Python's audit hooks cannot be taken off again."""

_hooked = False


@contextmanager
def files_opened_by(sources: Collection[str]) -> Iterator[set[str]]:
    """Collect the paths that code in these files opens, itself or through libraries, but for code.

    What libraries open without Python, as some readers of Parquet do, is not seen.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    found: set[str] = set()
    watched = (frozenset(sources), found)
    _watching.append(watched)
    try:
        yield found
    finally:
        _watching.remove(watched)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watching:
        return
    path = arguments[0]
    text = path.decode(errors="replace") if isinstance(path, bytes) else path
    if not isinstance(text, str) or text.endswith(_CODE):
        return
    frame = sys._getframe(1)
    files = set()
    while frame is not None:
        files.add(frame.f_code.co_filename)
        frame = frame.f_back  # type: ignore[assignment]
    for sources, found in _watching:
        if sources & files:
            found.add(text)
