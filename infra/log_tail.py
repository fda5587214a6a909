"""The end of an output partition: what was published before a crash is not published again."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

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
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self, bootstrap: str, *, timeout_s: float = 30.0, options: Mapping[str, Any] | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = dict(options or {})
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Connect.

        Raises:
            DependencyError: No broker answers.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
            **self._options,
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

    async def bounds(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """First and next offset of partitions.

        The next offset is the one that comes with fetched records: the embedded broker's answer to
        `end_offsets` is short of its last batch.

        Raises:
            DependencyError: The broker does not answer.
        """
        consumer = self._started()
        tps = [TopicPartition(*tp) for tp in partitions]
        try:
            async with self._lock, asyncio.timeout(self._timeout_s):
                starts = await consumer.beginning_offsets(tps)
                ends = await consumer.end_offsets(tps)
                for tp in tps:
                    if ends[tp] > starts[tp]:
                        ends[tp] = max(ends[tp], await self._highwater(consumer, tp, ends[tp] - 1))
                return {(tp.topic, tp.partition): (int(starts[tp]), int(ends[tp])) for tp in tps}
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not say how far its logs go: {error!r}"
            ) from error

    @staticmethod
    async def _highwater(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> int:
        consumer.assign([tp])
        consumer.seek(tp, offset)
        # A compacted log may have nothing at this offset: one look, not until something comes.
        await consumer.getmany(tp, timeout_ms=500, max_records=1)
        highwater = consumer.highwater(tp)
        consumer.unsubscribe()
        return int(highwater or 0)

    @staticmethod
    async def _newest(
        consumer: AIOKafkaConsumer, tp: TopicPartition, start: int, end: int, source_topic: str
    ) -> int:
        consumer.seek(tp, start)
        newest = 0
        # The last batch may be behind what `end_offsets` says: fetches know where it ends.
        while await consumer.position(tp) < max(end, consumer.highwater(tp) or 0):
            for record in (await consumer.getmany(tp, timeout_ms=1000)).get(tp, ()):
                newest = max(newest, _scored_offset(record.value, source_topic) + 1)
        return newest

    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise DependencyError("the tail reader is not started")
        return self._consumer

    async def scored_upto(self, topic: str, partition: int, source_topic: str) -> int:
        """Offset behind the newest source record that has a score in this partition; 0 for none.

        Scores are published in the order of their sources, so everything before it is there too.

        Raises:
            DependencyError: The broker does not answer.
        """
        consumer = self._started()
        tp = TopicPartition(topic, partition)
        try:
            async with self._lock, asyncio.timeout(self._timeout_s):
                end = (await consumer.end_offsets([tp]))[tp]
                start = (await consumer.beginning_offsets([tp]))[tp]
                if end <= start:
                    return 0
                consumer.assign([tp])
                newest, back = 0, _LOOK_BACK
                # Markers of transactions, and what was aborted, are offsets without a record.
                while not newest and back // 8 < end - start:
                    newest = await self._newest(consumer, tp, max(start, end - back), end, source_topic)
                    back *= 8
                consumer.unsubscribe()
                return newest
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not show the end of {topic}: {error!r}"
            ) from error


def _scored_offset(score: bytes | None, source_topic: str) -> int:
    """Offset of what a message is the score of; -1 where it is no such score, whoever wrote it."""
    try:
        source = orjson.loads(score or b"")["source"]
        return int(source["offset"]) if source["topic"] == source_topic else -1
    except (ValueError, TypeError, KeyError):
        return -1
