"""Records of one partition from the start of the log to an offset, in order."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from infra.consumers import connected
from schemas.errors import DependencyError

_RECORDS = 2000


class LogReader:
    """One consumer without a group, for one partition. An async context manager.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of connecting, and of waiting for the next record.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partition: int,
        *,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._tp = TopicPartition(topic, partition)
        self._timeout_s = timeout_s
        self._options = options
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        self._consumer = await connected(
            self._bootstrap,
            timeout_s=self._timeout_s,
            options=self._options,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )
        self._consumer.assign([self._tp])
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._consumer.stop()

    def seek(self, offset: int) -> None:
        """Go to an offset."""
        self._consumer.seek(self._tp, offset)

    async def until(self, end: int) -> AsyncIterator[list[Any]]:
        """Batches of the next records before an offset.

        Raises:
            DependencyError: Nothing came in time.
        """
        try:
            while (position := await self._consumer.position(self._tp)) < end:
                async with asyncio.timeout(self._timeout_s):
                    found: list[Any] = []
                    while not found and await self._consumer.position(self._tp) == position:
                        batch = await self._consumer.getmany(
                            self._tp, timeout_ms=1000, max_records=min(_RECORDS, end - position)
                        )
                        found = batch.get(self._tp, [])
                if records := [record for record in found if record.offset < end]:
                    yield records
                if found and found[-1].offset >= end:
                    self.seek(end)
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not give {self._tp.topic}[{self._tp.partition}]: {error!r}"
            ) from error
