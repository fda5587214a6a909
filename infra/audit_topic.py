"""Records of the audit trail on a topic, for those who watch it elsewhere.

The trail is the proof and comes first; the topic is a copy. So nothing waits for Kafka here: what does not
fit into a bounded queue while Kafka is away is left out and counted.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from infra.publisher import Publisher
from schemas.errors import ConfigError, DependencyError
from schemas.topics import AUDIT

_log = structlog.get_logger()
_WAITING: Final = 10_000
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_AT_ONCE: Final = 500


class AuditTopic:
    """Publishes records; connects by itself, and again after a failure.

    Args:
        bootstrap: Kafka brokers.
        note: Told how many records were `published` or are `unpublished`.
        waiting: Most records that wait.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        note: Callable[[str, int], None],
        *,
        waiting: int = _WAITING,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._bootstrap, self._note, self._waiting = bootstrap, note, waiting
        self._options = dict(options or {})
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._news = asyncio.Event()

    def offer(self, actor: str, record: bytes) -> None:
        """Have a record published soon; the oldest that waits makes room where there is none."""
        if len(self._queue) >= self._waiting:
            self._queue.popleft()
            self._note("unpublished", 1)
        # As the trail has it, with what every message has.
        self._queue.append((actor.encode(), b'{"schema_version":1,' + record.lstrip(b"{").rstrip(b"\n")))
        self._news.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._news.wait()
            try:
                async with self._publisher() as publisher:
                    pause_s = _FIRST_PAUSE_S
                    while True:
                        await self._news.wait()
                        self._news.clear()
                        await self._publish(publisher)
            except (DependencyError, ConfigError) as away:
                _log.warning("audit records are not published", error=str(away), again_in_s=pause_s)
                self._news.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def drain(self, seconds: float) -> None:
        """Publish what waits, for a time; what is left then is counted as unpublished."""
        with suppress(DependencyError, ConfigError, TimeoutError):
            if self._queue:
                async with asyncio.timeout(seconds), self._publisher() as publisher:
                    await self._publish(publisher)
        if self._queue:
            self._note("unpublished", len(self._queue))
            self._queue.clear()

    def _publisher(self) -> Publisher:
        return Publisher(
            self._bootstrap,
            topics=[AUDIT.name],
            connect_timeout_s=5.0,
            delivery_timeout_s=10.0,
            connection=self._options,
        )

    async def _publish(self, publisher: Publisher) -> None:
        while self._queue:
            some = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
            try:
                for actor, record in some:
                    await publisher.publish(AUDIT.name, actor, record)
                await publisher.flush()
            except BaseException:
                # Some may be there already: twice is better than not at all, and a number tells them apart.
                self._queue.extendleft(reversed(some))
                raise
            self._note("published", len(some))
