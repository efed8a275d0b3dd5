"""What comes next is made while what is there is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in another thread while the one before it is worked on.

    It pays where both sides spend their time in Arrow and numpy, which let go of the interpreter meanwhile. What the
    items' making raises is raised here, in their place; nothing is made any more once nobody asks.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sage-ahead") as maker:
        coming = maker.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = maker.submit(next, items, _END)
            yield item  # type: ignore[misc]
