"""Requests to erase a customer, published for the one writer of the customer's partition."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.batch_producer import BatchProducer
from infra.history_store import RedisHistoryStore
from infra.partitioning import partition_for
from schemas.erasure import Erasure
from schemas.topics import ERASURES


@dataclass(frozen=True, slots=True)
class _Request:
    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None


class ErasureRequests:
    """Publishes requests; connects with the first.

    Args:
        bootstrap: Kafka brokers of the tenant.
        store: Knows how many partitions there are.
        timeout_s: Limit of one request.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        store: RedisHistoryStore,
        *,
        timeout_s: float = 10.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._producer = BatchProducer(bootstrap, timeout_s=timeout_s, options=options)
        self._store = store
        self._starting = asyncio.Lock()
        self._started = False

    async def send(self, erasure: Erasure) -> None:
        """Publish a request; returns when the broker has it.

        Raises:
            DependencyError: Kafka or Redis does not answer.
        """
        partition = partition_for(erasure.customer_id, await self._store.partitions())
        async with self._starting:
            if not self._started:
                await self._producer.start()
                self._started = True
        value = erasure.model_dump_json(exclude_none=True).encode()
        await self._producer.publish(
            [_Request(ERASURES.name, partition, erasure.customer_id.encode(), value)], partition
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()
