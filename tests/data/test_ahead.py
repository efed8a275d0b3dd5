"""What comes next is made in another thread, one item ahead and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from data.ahead import one_ahead


def test_all_items_come_in_their_order() -> None:
    assert list(one_ahead(iter(range(100)))) == list(range(100))
    assert list(one_ahead(iter(()))) == []
    assert list(one_ahead(iter([None, 0, ""]))) == [None, 0, ""]


def test_one_item_is_made_while_one_is_worked_on_and_no_more() -> None:
    made: list[int] = []
    begun = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(begun):
            made.append(number)
            event.set()
            yield number

    ahead = one_ahead(items())
    assert next(ahead) == 0
    assert begun[1].wait(10)
    # Nobody has asked for the second one yet, and so the third is not begun.
    assert made == [0, 1]
    assert next(ahead) == 1
    assert begun[2].wait(10) and made == [0, 1, 2]
    ahead.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2]


def test_an_error_comes_where_the_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_who_stops_early_leaves_no_thread() -> None:
    ahead = one_ahead(iter(range(10)))
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sage-ahead")]
