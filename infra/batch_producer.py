"""Publishing in bulk: one record batch per partition instead of one call per message."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.errors import DependencyError

_BATCH_BYTES = 900_000


class Message(Protocol):
    """What is published."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes: ...  # noqa: D102
    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]: ...  # noqa: D102


class BatchProducer:
    """Publishes with acks from all in-sync replicas, in order within each partition.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of one `publish`.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self, bootstrap: str, *, timeout_s: float = 30.0, options: Mapping[str, Any] | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = dict(options or {})
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            DependencyError: No broker answers.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=4 * _BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 1000),
            **self._options,
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await producer.stop()
            raise DependencyError(f"Kafka at {self._bootstrap} does not answer: {error}") from error
        self._producer = producer

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish; returns when the broker has acknowledged all.

        Raises:
            DependencyError: It did not in time.
        """
        by_partition: dict[tuple[str, int], list[Message]] = defaultdict(list)
        for message in messages:
            by_partition[message.topic, message.partition].append(message)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(self._publish(*tp, mine) for tp, mine in by_partition.items()))
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not take messages: {error or type(error).__name__}"
            ) from error

    async def _publish(self, topic: str, partition: int, messages: list[Message]) -> None:
        producer = self._producer
        if producer is None:
            raise DependencyError("the producer is not started")
        # One batch after the other: two in flight could change places after a retry.
        batch = producer.create_batch()
        for message in messages:
            if _append(batch, message) is None:
                await self._send(producer, batch, topic, partition)
                batch = producer.create_batch()
                if _append(batch, message) is None:
                    raise ValueError(f"a message of {len(message.value)} bytes for {topic} is too large")
        await self._send(producer, batch, topic, partition)

    async def _send(self, producer: AIOKafkaProducer, batch: object, topic: str, partition: int) -> None:
        if batch.record_count():  # type: ignore[attr-defined]
            batch.close()  # type: ignore[attr-defined]
            await (await producer.send_batch(batch, topic, partition=partition))


def _append(batch: Any, message: Message) -> Any:
    """Append a message; `None` where it does not fit."""
    return batch.append(key=message.key, value=message.value, timestamp=None, headers=message.headers)
