"""Records of one partition from the start of the log to an offset, in order."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import DependencyError

_RECORDS = 2000


class LogReader:
    """One consumer without a group, for one partition. An async context manager.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of connecting, and of waiting for the next record.
    """

    def __init__(self, bootstrap: str, topic: str, partition: int, *, timeout_s: float = 30.0) -> None:
        self._bootstrap = bootstrap
        self._tp = TopicPartition(topic, partition)
        self._timeout_s = timeout_s
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._consumer.stop()
            raise DependencyError(f"Kafka at {self._bootstrap} does not answer: {error}") from error
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
