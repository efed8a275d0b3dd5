"""A pickle with code in it."""

from __future__ import annotations

from pathlib import Path


class Bomb:
    """A pickle that would write a file when loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.target, "boom")
