"""Publishing in bulk: one record batch per partition instead of one call per message."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.errors import DependencyError

BATCH_BYTES = 900_000


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
    @property
    def timestamp_ms(self) -> int | None: ...  # noqa: D102


class BatchProducer:
    """Publishes with acks from all in-sync replicas, in order within each partition.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of one `publish`.
        last_topic: Messages for it are published when all others of a call are.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        timeout_s: float = 30.0,
        last_topic: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._last_topic = last_topic
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
            max_batch_size=BATCH_BYTES,
            max_request_size=4 * BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 1000),
            **self._options,
        )
        try:
            await producer.start()
        except BaseException as error:
            await producer.stop()
            if not isinstance(error, KafkaError | OSError):
                raise
            raise DependencyError(f"Kafka at {self._bootstrap} does not answer: {error}") from error
        self._producer = producer

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def take(self, partition: int) -> None:
        """Become the producer of a source partition: nothing to do without transactions."""

    async def publish(self, messages: Sequence[Message], source: int) -> Counter[str]:
        """Publish; returns how many of each topic when the broker has acknowledged all.

        Args:
            messages: In order within each partition.
            source: Partition that they come from.

        Raises:
            DependencyError: It did not in time.
        """
        if self._producer is None:
            raise DependencyError("the producer is not started")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await send_all(self._producer, messages, self._last_topic)
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not take messages: {error or type(error).__name__}"
            ) from error


async def send_all(producer: AIOKafkaProducer, messages: Sequence[Message], last_topic: str) -> Counter[str]:
    """Send messages in batches, those for `last_topic` when all others are acknowledged.

    Returns:
        How many of each topic.
    """
    by_partition: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in messages:
        by_partition[message.topic, message.partition].append(message)
    for last in (False, True):
        mine = {tp: those for tp, those in by_partition.items() if (tp[0] == last_topic) is last}
        sending = (_send_partition(producer, *tp, those) for tp, those in mine.items())
        # To the end of each: what goes on behind an error would come in between what is done about it.
        for result in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
    counts = Counter[str]()
    for (topic, _), those in by_partition.items():
        counts[topic] += len(those)
    return counts


async def _send_partition(
    producer: AIOKafkaProducer, topic: str, partition: int, messages: list[Message]
) -> None:
    # One batch after the other: two in flight could change places after a retry.
    batch = producer.create_batch()
    for message in messages:
        if _append(batch, message) is None:
            await _send(producer, batch, topic, partition)
            batch = producer.create_batch()
            if _append(batch, message) is None:
                raise ValueError(f"a message of {len(message.value)} bytes for {topic} is too large")
    await _send(producer, batch, topic, partition)


async def _send(producer: AIOKafkaProducer, batch: object, topic: str, partition: int) -> None:
    if batch.record_count():  # type: ignore[attr-defined]
        batch.close()  # type: ignore[attr-defined]
        await (await producer.send_batch(batch, topic, partition=partition))


def _append(batch: Any, message: Message) -> Any:
    """Append a message; `None` where it does not fit."""
    return batch.append(
        key=message.key,
        value=message.value,
        timestamp=message.timestamp_ms,
        headers=list(message.headers),
    )
