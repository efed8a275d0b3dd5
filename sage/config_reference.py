"""The configuration as a page for people, made from its classes: ``python -m sage.config_reference``."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

from sage.config import BacktestConfig

_TITLE = """# Configuration

Every key of a `--config FILE.toml`, with its type and default. What a file leaves out keeps its default; a key that is
unknown is refused, with the nearest known ones. `sage sweep --set KEY=...` takes nearly all of them, with dots.

This page is made from the classes: `make docs`.
"""


_NOT_SET = {"data.synthetic.seed"}
"""Keys that a file may not set: the top level's ``seed`` is this one."""


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join([_TITLE, *_sections(BacktestConfig(), ""), ""])


def _sections(config: Any, prefix: str) -> Iterator[str]:
    """A section for each table, those inside of it behind it."""
    kinds = typing.get_type_hints(type(config))
    yield f"## {f'`[{prefix}]`' if prefix else 'Top level'}\n"
    yield _prose(type(config)) + "\n"
    fields = dataclasses.fields(config)
    named = {item.name: f"{prefix}.{item.name}" for item in fields}
    plain = [
        item
        for item in fields
        if not dataclasses.is_dataclass(getattr(config, item.name)) and named[item.name] not in _NOT_SET
    ]
    if plain:
        yield "| key | type | default |\n|---|---|---|"
        for item in plain:
            yield f"| `{item.name}` | {_told(kinds[item.name])} | {_default(getattr(config, item.name))} |"
        yield ""
    for item in fields:
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f"{prefix}.{item.name}" if prefix else item.name)


def _prose(kind: type) -> str:
    """The class's docstring, in Markdown."""
    text = inspect.getdoc(kind) or ""
    return re.sub(r":(?:class|func|meth|data|mod):`~?([\w.]+)`", lambda match: f"`{match[1].rpartition('.')[2]}`",
                  text.replace("``", "`"))  # fmt: skip


def _told(kind: Any) -> str:
    """A type as a TOML file has it."""
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f"`{choice!r}`".replace("'", '"') for choice in typing.get_args(kind))
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) in {tuple, list, dict}:
        inside = [part for part in parts if part is not Ellipsis]
        return "table" if typing.get_origin(kind) is dict else f"list of {_told(inside[0])}"
    if parts and type(None) in typing.get_args(kind):
        return f"{' or '.join(map(_told, parts))}, or left out"
    names = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list)):
        return f"`[{', '.join(repr(part) for part in value)}]`".replace("'", '"')
    return f"`{value!r}`".replace("'", '"')


if __name__ == "__main__":
    sys.stdout.write(reference())
