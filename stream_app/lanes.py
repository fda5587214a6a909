"""Chunks that wait: in order within a partition of a topic, side by side between partitions.

While one partition waits for the broker or the store, another computes. What arrives for a partition
whose chunk is under way becomes one chunk with what already waits there: the busier the worker, the
larger its chunks.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import replace

from stream_app.transport import Chunk

_Key = tuple[str, int]
_CLOSE_S = 1.0


class Lanes:
    """Hands chunks to a handler, one at a time for each partition of a topic.

    Args:
        handle: Runs one chunk to its end; never raises.
        chunk_records: Most records that waiting chunks become one with, and that may wait.
    """

    def __init__(self, handle: Callable[[Chunk], Awaitable[None]], chunk_records: int) -> None:
        self._handle = handle
        self._chunk_records = chunk_records
        self._waiting: dict[_Key, deque[Chunk]] = {}
        self._running: dict[_Key, asyncio.Task[None]] = {}
        self._under_way: dict[_Key, Chunk] = {}

    def submit(self, chunk: Chunk) -> None:
        """Put a chunk behind those of its partition."""
        key = (chunk.topic, chunk.partition)
        waiting = self._waiting.setdefault(key, deque())
        if waiting and self._joins(waiting[-1], chunk):
            waiting[-1] = replace(waiting[-1], records=[*waiting[-1].records, *chunk.records])
        else:
            waiting.append(chunk)
        if key not in self._running:
            self._running[key] = asyncio.create_task(self._run(key))

    def has_room(self, topic: str, partition: int) -> bool:
        """Whether fewer records wait than a chunk may have."""
        waiting = self._waiting.get((topic, partition), ())
        return sum(len(chunk.records) for chunk in waiting) < self._chunk_records

    def is_idle(self, topic: str, partition: int) -> bool:
        """Whether nothing waits and nothing is under way."""
        return (topic, partition) not in self._running

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
        running = list(self._running.values())
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

    async def _run(self, key: _Key) -> None:
        try:
            while waiting := self._waiting.get(key):
                self._under_way[key] = waiting.popleft()
                await self._handle(self._under_way[key])
        finally:
            self._under_way.pop(key, None)
            del self._running[key]
