"""Answers that are asked for again: kept for a while, and made once at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    """An answer, or one under way; `size` is 0 until it is known."""

    version: Hashable
    asked_at: float
    answer: asyncio.Future[T]
    size: int = 0


class Answers(Generic[T]):
    """Answers by question.

    Args:
        most: Answers kept.
        kept_s: For how long; `None`: as long as there is room, for questions whose answer never changes.
        size: Of an answer; the sum of those kept is at most `most_size`.
    """

    def __init__(
        self,
        most: int,
        kept_s: float | None = None,
        *,
        size: Callable[[T], int] = lambda answer: 0,
        most_size: int = 0,
    ) -> None:
        self._most, self._kept_s = most, kept_s
        self._size, self._most_size = size, most_size
        self._found: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._held = 0

    async def get(self, question: Hashable, make: Callable[[], Awaitable[T]], version: Hashable = None) -> T:
        """The answer: one that is kept, or under way, or made now. One that failed is made again.

        Args:
            question: What is asked.
            make: Makes the answer.
            version: Of what it is made from; the answer of another one is let go.
        """
        now = time.monotonic()
        known = self._found.get(question)
        if known is None or known.version != version or self._is_old(known, now):
            # A task of its own: it goes on when who asked first has gone.
            known = _Kept(version, now, asyncio.ensure_future(make()))
            self._forget(question)
            self._found[question] = known
            known.answer.add_done_callback(lambda _: self._made(question, known))
            while len(self._found) > self._most:
                self._forget(next(iter(self._found)))
        return await asyncio.shield(known.answer)

    def _is_old(self, known: _Kept[T], now: float) -> bool:
        return known.answer.done() and self._kept_s is not None and now - known.asked_at > self._kept_s

    def _made(self, question: Hashable, made: _Kept[T]) -> None:
        failed = made.answer.cancelled() or made.answer.exception() is not None
        if self._found.get(question) is not made:
            # Another version has taken its place meanwhile.
            return
        if failed:
            self._forget(question)
            return
        made.size = self._size(made.answer.result())
        self._held += made.size
        while self._held > self._most_size:
            self._forget(next(iter(self._found)))

    def _forget(self, question: Hashable) -> None:
        if (known := self._found.pop(question, None)) is not None:
            self._held -= known.size
