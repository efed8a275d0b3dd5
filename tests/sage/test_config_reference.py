"""The page on the configuration tells every key, and is that of the classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sage.config import BacktestConfig
from sage.config_reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def keys(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            found += keys(value, f"{prefix}.{item.name}" if prefix else item.name)
        else:
            found.append((prefix, item.name))
    return found


def test_the_page_is_that_of_the_classes() -> None:
    assert PAGE.read_text() == reference(), "make docs"


def test_the_seed_of_a_simulated_market_is_told_where_it_is_set() -> None:
    section = reference().partition("## `[data.synthetic]`\n")[2].partition("\n## ")[0]
    assert "`bars`" in section and "`seed`" not in section


@pytest.mark.parametrize(("table", "key"), [one for one in keys(BacktestConfig()) if one != ("data.synthetic", "seed")])
def test_every_key_is_told_in_its_table(table: str, key: str) -> None:
    head = f"`[{table}]`" if table else "Top level"
    section = reference().partition(f"## {head}\n")[2].partition("\n## ")[0]
    assert f"| `{key}` |" in section
