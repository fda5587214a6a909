import threading
from collections.abc import Iterator

import pytest

from infra.ahead import one_ahead


def test_items_come_in_order_and_all_of_them() -> None:
    assert list(one_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(one_ahead(iter(()))) == []


def test_the_next_item_is_made_while_the_caller_has_this_one() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    coming = one_ahead(items())
    assert next(coming) == 1
    assert made.wait(10)
    assert list(coming) == [2]


def test_what_making_an_item_raises_reaches_the_caller_behind_the_items_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    coming = one_ahead(items())
    assert next(coming) == 1
    with pytest.raises(LookupError, match="no more"):
        next(coming)
