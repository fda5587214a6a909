"""Lookups that come at the same time, made with one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


class Gathered(Generic[Key, Found]):
    """Asks for many keys at once. Alone, a key is asked for without waiting.

    A call to Redis costs its client far more than one more key in it: under load, what comes while calls are
    under way goes with the next.

    Args:
        ask: Finds what belongs to keys, in their order; an error in the place of what cannot be said of one.
        most: Keys of one call.
        calls: At a time.
    """

    def __init__(
        self,
        ask: Callable[[list[Key]], Awaitable[Sequence[Found | Exception]]],
        *,
        most: int = 64,
        calls: int = 2,
    ) -> None:
        self._ask, self._most, self._calls = ask, most, calls
        self._waiting: list[tuple[Key, asyncio.Future[Found]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._starts = False

    async def get(self, key: Key) -> Found:
        """What belongs to a key.

        Raises:
            Exception: Its own, or that of the call it was in or waited for: who waits behind a server that
                does not answer would otherwise wait once for each call before it.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Found] = loop.create_future()
        self._waiting.append((key, found))
        if not self._starts and len(self._under_way) < self._calls:
            # Behind what else runs now: others may come with the same turn of the loop.
            self._starts = True
            loop.call_soon(self._start)
        return await found

    def _start(self) -> None:
        self._starts = False
        while self._waiting and len(self._under_way) < self._calls:
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            task = asyncio.ensure_future(self._answer(some))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _answer(self, asked: list[tuple[Key, asyncio.Future[Found]]]) -> None:
        try:
            answers = await self._ask([key for key, _ in asked])
        except Exception as error:
            behind, self._waiting = self._waiting, []
            for _, found in (*asked, *behind):
                if not found.done():
                    found.set_exception(error)
            return
        for (_, found), answer in zip(asked, answers, strict=True):
            # Who asked may have gone meanwhile.
            if found.done():
                continue
            if isinstance(answer, Exception):
                found.set_exception(answer)
            else:
                found.set_result(answer)
