"""What only shows when it is looked for: how far behind partitions are, and how Redis is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from schemas.errors import DependencyError
from stream_app.ports import TopicPartition

_EVERY_S = 1.0
_REDIS_EVERY_S = 15.0


class Signs(Protocol):
    """Shows what was found."""

    def backlog(self, behind: Mapping[TopicPartition, tuple[int, float]]) -> None:
        """Records not processed and the age of the oldest in seconds, by partition."""
        ...

    def owned(self, watermarks_ms: Mapping[int, int]) -> None:
        """Partitions that this worker has, with the newest event time of each."""
        ...

    def loop_delay(self, seconds: float) -> None:
        """The event loop was late."""
        ...


class Partitions(Protocol):
    """What is known of partitions; none of it blocks."""

    def assigned(self) -> set[TopicPartition]:
        """What the group gave to this worker; empty during a rebalance."""
        ...

    def reached(self, topic: str, partition: int) -> int | None:
        """Next offset to process; `None` where the partition is not ours."""
        ...

    def log_end(self, topic: str, partition: int) -> int | None:
        """Next offset of the log as the last fetch knew it; `None` before the first."""
        ...

    def oldest_ms(self, topic: str, partition: int) -> int | None:
        """The broker's timestamp of the oldest record that is held here unprocessed."""
        ...

    def watermarks_ms(self) -> Mapping[int, int]:
        """Newest event time of each partition that is ours."""
        ...


class Vitals:
    """Looks once a second.

    Args:
        partitions: What it looks at.
        signs: Where it is shown.
        ask_redis: Asks Redis how it is and shows it; raises `DependencyError` where it does not answer.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        partitions: Partitions,
        signs: Signs,
        ask_redis: Callable[[], Awaitable[Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._partitions = partitions
        self._signs = signs
        self._ask_redis = ask_redis
        self._clock = clock
        self._behind_since: dict[TopicPartition, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        await asyncio.gather(self._look_at_partitions(), self._look_at_redis())

    async def _look_at_partitions(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self._signs.loop_delay(max(0.0, loop.time() - due))
            self.look()

    async def _look_at_redis(self) -> None:
        while True:
            try:
                await self._ask_redis()
            except DependencyError:
                # Whoever needs it waits for it and says so.
                await asyncio.sleep(_EVERY_S)
            else:
                await asyncio.sleep(_REDIS_EVERY_S)

    def look(self) -> None:
        """Look once."""
        now = self._clock()
        behind: dict[TopicPartition, tuple[int, float]] = {}
        for tp in self._partitions.assigned():
            reached, end = self._partitions.reached(*tp), self._partitions.log_end(*tp)
            if reached is None:
                continue
            oldest = self._partitions.oldest_ms(*tp)
            records = max(0, (end or 0) - reached, oldest is not None)
            if not records:
                self._behind_since.pop(tp, None)
                behind[tp] = (0, 0.0)
                continue
            # Records that are in the log but not here yet have no timestamp that is known.
            since = self._behind_since.setdefault(tp, now)
            behind[tp] = (records, max(0.0, now - (since if oldest is None else oldest / 1000)))
        self._signs.backlog(behind)
        self._signs.owned(self._partitions.watermarks_ms())
