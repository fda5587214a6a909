"""Chunks that wait: in order within a partition of a topic, side by side between partitions.

What arrives for a partition whose chunk is under way becomes one chunk with what already waits there: the
busier the worker, the larger its chunks. Small chunks of several partitions are handled in one pass, whose
cost hardly grows with them; chunks large enough for a pass of their own run side by side, so that while one
waits for the broker or the store, another computes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Container, Sequence
from dataclasses import replace
from functools import partial

from features.entities import SLACK_TILES
from stream_app.transport import Chunk

_Key = tuple[str, int]
Hours = tuple[float, float]
_CLOSE_S = 1.0
# Of a chunk's most records: so many begin a pass although another is under way.
_OWN_PASS = 8


class Lanes:
    """Hands chunks to a handler, one at a time for each partition of a topic.

    Args:
        handle: Runs chunks of a topic to their end; never raises.
        chunk_records: Most records that waiting chunks become one with, and that may wait.
        together: Topics of which a pass may hold chunks of several partitions.
        hours: First and last hour of event time in a chunk that is the next of its partition. Where one
            partition may have to wait for another, only such that are close together are handled in one pass.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Chunk]], Awaitable[None]],
        chunk_records: int,
        together: Collection[str] = (),
        hours: Callable[[Chunk], Hours] = lambda chunk: (0, 0),
    ) -> None:
        self._handle = handle
        self._chunk_records = chunk_records
        self._together = together
        self._hours = hours
        self._waiting: dict[_Key, deque[Chunk]] = {}
        self._under_way: dict[_Key, Chunk] = {}
        self._passes: dict[asyncio.Future[None], str] = {}
        self._beginning: set[str] = set()

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

    def has_room(self, topic: str, partition: int) -> bool:
        """Whether fewer records wait than a chunk may have."""
        waiting = self._waiting.get((topic, partition), ())
        return sum(len(chunk.records) for chunk in waiting) < self._chunk_records

    def is_idle(self, topic: str, partition: int) -> bool:
        """Whether nothing waits and nothing is under way."""
        key = (topic, partition)
        return key not in self._under_way and not self._waiting.get(key)

    def oldest(self, topic: str, partition: int) -> Chunk | None:
        """The chunk under way, or the first that waits."""
        key = (topic, partition)
        return self._under_way.get(key) or next(iter(self._waiting.get(key, ())), None)

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
        while chunks := self._next(topic):
            for chunk in chunks:
                self._under_way[topic, chunk.partition] = self._waiting[topic, chunk.partition].popleft()
            task = asyncio.ensure_future(self._handle(chunks))
            self._passes[task] = topic
            # Of the task: one that is cancelled before it begins has no end of its own.
            task.add_done_callback(partial(self._ended, topic, chunks))

    def _next(self, topic: str) -> list[Chunk]:
        """The chunks of the next pass; none where they had better wait for more."""
        first = [
            waiting[0]
            for key, waiting in self._waiting.items()
            if waiting and key[0] == topic and key not in self._under_way
        ]
        if topic not in self._together or not first:
            return first[:1]
        now, begin = [self._hours(chunk) for chunk in first], 0
        under_way = [chunk for key, chunk in self._under_way.items() if key[0] == topic]
        if under_way and sum(len(chunk.records) for chunk in first) < self._chunk_records // _OWN_PASS:
            before = [self._hours(chunk) for chunk in under_way]
            # None of a pass under way may have to wait for what waits for the end of that pass.
            urgent = [n for n, hours in enumerate(now) if not all(_fit(hours, other) for other in before)]
            if not urgent:
                return []
            begin = urgent[0]
        chunks, hours = [first[begin]], now[begin]
        for chunk, other in zip(first, now, strict=True):
            records = sum(len(c.records) for c in (*chunks, chunk))
            if chunk is not chunks[0] and records <= self._chunk_records and _fit(hours, other):
                chunks.append(chunk)
                hours = min(hours[0], other[0]), max(hours[1], other[1])
        return chunks

    def _ended(self, topic: str, chunks: Sequence[Chunk], task: asyncio.Future[None]) -> None:
        for chunk in chunks:
            del self._under_way[topic, chunk.partition]
        del self._passes[task]
        self._begin(topic)


def _fit(hours: Hours, other: Hours) -> bool:
    """Whether neither has to wait for the other."""
    return max(hours[1], other[1]) - min(hours[0], other[0]) <= SLACK_TILES
