"""The end of an output partition: what was published before a crash is not published again."""

import asyncio

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import DependencyError

_LOOK_BACK = 20


class LogTail:
    """Reads the newest records of a partition.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of one look.
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 30.0) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Connect.

        Raises:
            DependencyError: No broker answers.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await consumer.stop()
            raise DependencyError(f"Kafka at {self._bootstrap} does not answer: {error}") from error
        self._consumer = consumer

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def scored_upto(self, topic: str, partition: int, source_topic: str) -> int:
        """Offset behind the newest source record that has a score in this partition; 0 for none.

        Scores are published in the order of their sources, so everything before it is there too.

        Raises:
            DependencyError: The broker does not answer.
        """
        consumer = self._consumer
        if consumer is None:
            raise DependencyError("the tail reader is not started")
        tp = TopicPartition(topic, partition)
        try:
            async with self._lock, asyncio.timeout(self._timeout_s):
                end = (await consumer.end_offsets([tp]))[tp]
                start = (await consumer.beginning_offsets([tp]))[tp]
                if end <= start:
                    return 0
                consumer.assign([tp])
                consumer.seek(tp, max(start, end - _LOOK_BACK))
                newest = 0
                while await consumer.position(tp) < end:
                    for record in (await consumer.getmany(tp, timeout_ms=1000)).get(tp, ()):
                        source = orjson.loads(record.value).get("source") or {}
                        if source.get("topic") == source_topic:
                            newest = max(newest, int(source["offset"]) + 1)
                consumer.unsubscribe()
                return newest
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not show the end of {topic}: {error!r}"
            ) from error
