"""Chunks that wait: in order within a partition of a topic, side by side between partitions.

What arrives for a partition whose chunk is under way becomes one chunk with what already waits there: the
busier the worker, the larger its chunks. Small chunks of several partitions are handled in one pass, whose
cost hardly grows with them; chunks large enough for a pass of their own run side by side, so that while one
waits for the broker or the store, another computes.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from features.entities import SLACK_TILES
from stream_app.transport import Chunk

_Key = tuple[str, int]
_CLOSE_S = 1.0
# Of a chunk's most records: so many begin a pass although another is under way.
_OWN_PASS = 8
# A pass that takes longer waits for something, and what is small waits for its end no more.
_HOLD_S = 0.05


class Together(NamedTuple):
    """What decides whether a chunk may share a pass.

    Attributes:
        alone: It may not.
        reached: Hour up to which its partition has counted; in a pass nobody waits for another member.
        last: Last hour of event time in it.
    """

    alone: bool = False
    reached: float = 0
    last: float = 0


ALONE = Together(True, -math.inf, math.inf)


@dataclass(slots=True)
class _Pass:
    topic: str
    began_s: float
    last: float


class Lanes:
    """Hands chunks to a handler, one at a time for each partition of a topic.

    Args:
        handle: Runs chunks of a topic to their end; never raises.
        chunk_records: Most records that waiting chunks become one with, and that may wait.
        together: Topics of which a pass may hold chunks of several partitions.
        look: Looks at a chunk that is the next of its partition.
        hold_s: So long a pass holds back what is small.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Chunk]], Awaitable[None]],
        chunk_records: int,
        together: Collection[str] = (),
        look: Callable[[Chunk], Together] = lambda chunk: Together(),
        *,
        hold_s: float = _HOLD_S,
    ) -> None:
        self._handle = handle
        self._chunk_records = chunk_records
        self._together = together
        self._look = look
        self._hold_s = hold_s
        self._waiting: dict[_Key, deque[Chunk]] = {}
        self._under_way: dict[_Key, Chunk] = {}
        self._passes: dict[asyncio.Future[None], _Pass] = {}
        self._beginning: set[str] = set()
        self._looking_again: set[str] = set()

    def submit(self, chunk: Chunk) -> None:
        """Put a chunk behind those of its partition."""
        waiting = self._waiting.setdefault((chunk.topic, chunk.partition), deque())
        if waiting and self._joins(waiting[-1], chunk):
            waiting[-1] = replace(waiting[-1], records=[*waiting[-1].records, *chunk.records])
        else:
            waiting.append(chunk)
        if chunk.topic not in self._beginning:
            # Not at once: what is submitted next may go with it.
            self._beginning.add(chunk.topic)
            asyncio.get_running_loop().call_soon(self._begin, chunk.topic)

    def has_room(self, topic: str, partition: int, most: int | None = None) -> bool:
        """Whether fewer records wait than a chunk may have, or than a number where there is one."""
        waiting = self._waiting.get((topic, partition), ())
        return sum(len(chunk.records) for chunk in waiting) < (most or self._chunk_records)

    def is_small(self, chunk: Chunk) -> bool:
        """Whether a chunk is too small for a pass of its own beside another."""
        return self._is_small(len(chunk.records))

    def _is_small(self, records: int) -> bool:
        return records < self._chunk_records // _OWN_PASS

    def is_idle(self, topic: str, partition: int) -> bool:
        """Whether nothing waits and nothing is under way."""
        key = (topic, partition)
        return key not in self._under_way and not self._waiting.get(key)

    def oldest(self, topic: str, partition: int) -> Chunk | None:
        """The chunk under way, or the first that waits."""
        key = (topic, partition)
        return self._under_way.get(key) or next(iter(self._waiting.get(key, ())), None)

    def held(self, topic: str, partition: int) -> list[Chunk]:
        """The chunk under way and those that wait, in order."""
        key = (topic, partition)
        under_way = [self._under_way[key]] if key in self._under_way else []
        return [*under_way, *self._waiting.get(key, ())]

    def discard(self, topic: str, partition: int, upto: int, seek: int) -> None:
        """Drop what waits of a partition and is done, all before an offset, or older than a seek."""
        waiting = self._waiting.get((topic, partition), deque())
        while waiting and (waiting[0].next_offset <= upto or waiting[0].seek < seek):
            waiting.popleft()

    def drop(self, partitions: Container[int]) -> None:
        """Drop what waits of partitions; what is under way goes on."""
        for (_, partition), waiting in self._waiting.items():
            if partition in partitions:
                waiting.clear()

    async def close(self) -> None:
        """Drop what waits and cancel what is under way."""
        self._waiting.clear()
        running = list(self._passes)
        for task in running:
            task.cancel()
        if running:
            # Not for ever: what a library does with a cancellation is its own affair, and nothing that
            # is cut off here was made part of the state.
            await asyncio.wait(running, timeout=_CLOSE_S)

    def _joins(self, last: Chunk, chunk: Chunk) -> bool:
        return (
            last.seek == chunk.seek
            and last.next_offset == chunk.after
            and len(last.records) + len(chunk.records) <= self._chunk_records
        )

    def _begin(self, topic: str) -> None:
        """Begin what may begin of a topic."""
        self._beginning.discard(topic)
        now_s = asyncio.get_running_loop().time()
        while chosen := self._next(topic, now_s):
            chunks, last = chosen
            for chunk in chunks:
                key = topic, chunk.partition
                # To the end of the row: who did not fit this time is first the next time.
                waiting = self._waiting[key] = self._waiting.pop(key)
                self._under_way[key] = waiting.popleft()
            task = asyncio.ensure_future(self._handle(chunks))
            self._passes[task] = _Pass(topic, now_s, last)
            # Of the task: one that is cancelled before it begins has no end of its own.
            task.add_done_callback(partial(self._ended, topic, chunks))

    def _next(self, topic: str, now_s: float) -> tuple[list[Chunk], float] | None:
        """The chunks of the next pass and the last hour in it; `None` where they had better wait for more."""
        first = [
            waiting[0]
            for key, waiting in self._waiting.items()
            if waiting and key[0] == topic and key not in self._under_way
        ]
        if not first:
            return None
        if topic not in self._together:
            return first[:1], 0
        looks, begin = [self._look(chunk) for chunk in first], 0
        passes = [each for each in self._passes.values() if each.topic == topic]
        small = self._is_small(sum(len(chunk.records) for chunk in first))
        if small and any(now_s - each.began_s < self._hold_s for each in passes):
            # None of a pass under way may have to wait for what waits for the end of that pass.
            last = max(each.last for each in passes)
            urgent = [n for n, look in enumerate(looks) if last > look.reached + SLACK_TILES]
            if not urgent:
                self._look_again(topic)
                return None
            begin = urgent[0]
        chunks, reached, last = [first[begin]], looks[begin].reached, looks[begin].last
        records = len(first[begin].records)
        for chunk, look in zip(first, looks, strict=True):
            both = min(reached, look.reached), max(last, look.last)
            fits = records + len(chunk.records) <= self._chunk_records and both[1] <= both[0] + SLACK_TILES
            if fits and chunk is not chunks[0] and not (look.alone or looks[begin].alone):
                chunks.append(chunk)
                records += len(chunk.records)
                reached, last = both
        return chunks, last

    def _look_again(self, topic: str) -> None:
        if topic not in self._looking_again:
            self._looking_again.add(topic)

            def look() -> None:
                self._looking_again.discard(topic)
                self._begin(topic)

            asyncio.get_running_loop().call_later(self._hold_s, look)

    def _ended(self, topic: str, chunks: Sequence[Chunk], task: asyncio.Future[None]) -> None:
        for chunk in chunks:
            del self._under_way[topic, chunk.partition]
        del self._passes[task]
        self._begin(topic)
