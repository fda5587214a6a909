"""Answers that are asked for again: kept for a while, and made once at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Answers(Generic[T]):
    """Answers by question.

    Args:
        most: Answers kept.
        kept_s: For how long; `None`: as long as there is room, for questions whose answer never changes.
    """

    def __init__(self, most: int, kept_s: float | None = None) -> None:
        self._most, self._kept_s = most, kept_s
        self._found: OrderedDict[Hashable, tuple[float, asyncio.Future[T]]] = OrderedDict()

    async def get(self, question: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The answer: one that is kept, or under way, or made now. One that failed is made again."""
        now = time.monotonic()
        known = self._found.get(question)
        if known is not None and known[1].done():
            failed = known[1].cancelled() or known[1].exception() is not None
            if failed or (self._kept_s is not None and now - known[0] > self._kept_s):
                known = None
        if known is None:
            # A task of its own: it goes on when who asked first has gone.
            known = self._found[question] = (now, asyncio.ensure_future(make()))
            self._found.move_to_end(question)
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return await asyncio.shield(known[1])
