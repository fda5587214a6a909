"""What the sink reads: its topics from where the event log ends, without a consumer group."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from infra.consumers import connected
from infra.log_tail import LogTail
from infra.sink_commit import record_name
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError, HistoryError
from schemas.topics import CHURN_SCORES, CUSTOMERS, ERASURES, FRAUD_SCORES, TRANSACTIONS

_TOPICS = (TRANSACTIONS.name, FRAUD_SCORES.name, CHURN_SCORES.name, CUSTOMERS.name, ERASURES.name)
# Profiles are compacted. Transactions without a score are not stored, so that the log may be cut behind those
# that are: one with a score that is missing is noticed when its score is read.
_MAY_BE_CUT = (CUSTOMERS.name, TRANSACTIONS.name)
# A log that is ahead of the other waits: what is read and not joined is in memory.
_AHEAD = 20_000
_CONNECT_S = 30.0
# The client says nothing of a broker that is away: whoever hears nothing asks. Who answers after a silence
# may be somebody else, so that what comes first is not taken before that is known.
_ASK_EVERY_S, _ASK_SILENT_S, _ASK_AFTER_S = 30.0, 5.0, 1.0


class SinkFeed:
    """Reads the sink's topics. Erasures that the log holds at the start come before everything else.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        records: As many at a time at most.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(self, bootstrap: str, records: int, *, options: Mapping[str, Any] | None = None) -> None:
        self._bootstrap, self._records, self._options = bootstrap, records, options
        self._admin = TopicsAdmin(bootstrap, options=options)
        self._consumer: Any = None
        self._paused: set[TopicPartition] = set()
        # Erasures that the log held at the start, and up to where: nothing else is taken before them.
        self._first: dict[TopicPartition, int] = {}
        self._claimed: tuple[int, str] | None = None
        self._heard_s = self._asked_s = 0.0

    async def claim(self) -> tuple[int, str]:
        """Number of partitions, and the cluster's id.

        Raises:
            DependencyError: The broker does not answer.
        """
        self._claimed = claimed = await self._ask()
        return claimed

    async def _ask(self) -> tuple[int, str]:
        answer = await self._admin.source_partitions(), await self._admin.cluster_id()
        self._heard_s = self._asked_s = time.monotonic()
        return answer

    async def open(
        self, partitions: int, stored: Mapping[tuple[str, int], int]
    ) -> dict[tuple[str, int], int]:
        """Connect and go to where the event log ends; returns where each partition begins.

        Raises:
            DependencyError: The broker does not answer.
            HistoryError: The log does not go back that far.
        """
        await self.close()
        self._paused, self._first = set(), {}
        self._consumer = consumer = await connected(
            self._bootstrap,
            timeout_s=_CONNECT_S,
            options=self._options,
            # Never silently elsewhere than where the event log ends.
            auto_offset_reset="none",
            fetch_max_wait_ms=100,
        )
        tps = [TopicPartition(topic, p) for topic in _TOPICS for p in range(partitions)]
        consumer.assign(tps)
        starts = await self._starts(consumer, tps)
        for tp in tps:
            start, known = starts[tp], stored.get(tp)
            if known is not None and known < start and tp.topic not in _MAY_BE_CUT:
                raise HistoryError(
                    f"{tp.topic} {tp.partition} starts at offset {start}, the event log goes to "
                    f"{known}: what lies between was deleted by the broker; start again with an empty event "
                    "log and database, and give the topic a longer retention"
                )
            consumer.seek(tp, max(start, known or 0))
        await self._erasures_first(consumer, partitions)
        return {(tp.topic, tp.partition): start for tp, start in starts.items()}

    async def _starts(
        self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                found: dict[TopicPartition, int] = await consumer.beginning_offsets(tps)
                return found
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._away(error) from error

    async def _erasures_first(self, consumer: AIOKafkaConsumer, partitions: int) -> None:
        """Let everything else wait for the erasures that the log holds now."""
        bounds = await self.bounds((ERASURES.name, p) for p in range(partitions))
        ends = {TopicPartition(*tp): end for tp, (_, end) in bounds.items()}
        self._first = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
        if self._first:
            self._paused = {tp for tp in consumer.assignment() if tp.topic != ERASURES.name}
            consumer.pause(*self._paused)

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            # With a broker away, the client's own tasks cancel whoever stops it, connections still open.
            await asyncio.gather(consumer.stop(), return_exceptions=True)
            await asyncio.gather(consumer._client.close(), return_exceptions=True)

    async def bounds(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """First and next offset of partitions.

        Raises:
            DependencyError: The broker does not answer.
        """
        tail = LogTail(self._bootstrap, options=self._options)
        try:
            return await tail.bounds(partitions)
        finally:
            await tail.stop()

    async def check(self, newest: Mapping[tuple[str, int], tuple[int, str]]) -> None:
        """See that the log has what the event log was written from.

        Args:
            newest: By partition, offset and `record_name` of a record that was stored.

        Raises:
            HistoryError: It is another log.
            DependencyError: The broker does not answer.
        """
        tail = LogTail(self._bootstrap, options=self._options)
        try:
            for (topic, partition), (offset, name) in newest.items():
                if not await tail.holds(topic, partition, offset, partial(_is_named, name)):
                    raise HistoryError(
                        f"{topic} {partition} is another log than the event log was written from: at offset "
                        f"{offset} it does not have the record that was stored; if the topic was made again, "
                        "put event log and database aside and start with empty ones (TIDEGATE_EVENTS and "
                        "TIDEGATE_DATABASE_URL), else connect to the log that they are of"
                    )
        finally:
            await tail.stop()

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read a partition from another offset on."""
        self._consumer.seek(TopicPartition(topic, partition), offset)

    async def progress(self, topic: str, partition: int) -> tuple[int, bool]:
        """How far a partition was read, behind markers of transactions too, and whether that was all."""
        tp = TopicPartition(topic, partition)
        read_upto, end = int(await self._consumer.position(tp)), self._consumer.highwater(tp)
        return read_upto, end is not None and read_upto >= end

    async def unread(self) -> dict[tuple[str, int], int | None]:
        """By partition, records that were not read yet; `None` before the first answer of the broker.

        Where all that is left are markers of transactions, these are none.
        """
        found: dict[tuple[str, int], int | None] = {}
        for key, position in (await self.positions()).items():
            end = self._consumer.highwater(TopicPartition(*key))
            found[key] = None if end is None else max(0, end - position)
        return found

    async def positions(self) -> dict[tuple[str, int], int]:
        """How far each partition was given out, behind records that are not shown too.

        A marker of a transaction goes with the records before it: who stored these has lost nothing where the
        log begins behind it.
        """
        tps = self._consumer.assignment()
        return {(tp.topic, tp.partition): int(await self._consumer.position(tp)) for tp in tps}

    async def fetch(self) -> dict[tuple[str, int], list[Any]]:
        """What came of each partition; nothing after a while without anything.

        Raises:
            HistoryError: The log is not there where it is to be read.
            DependencyError: The broker does not answer, or is not what it was: claim and open again.
        """
        try:
            if (task := self._consumer._fetcher.error_future).done():
                # It fetches nothing any more, and does not say so.
                raise KafkaError(repr(task.exception()))
            found: dict[tuple[str, int], list[Any]] = await self._consumer.getmany(
                timeout_ms=200, max_records=self._records
            )
        except OffsetOutOfRangeError as lost:
            raise HistoryError(
                f"the log does not hold the offsets that the event log needs next ({lost}): it was replaced "
                "or cut; connect to the other one, or start again with an empty event log and database"
            ) from lost
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        silent_s = time.monotonic() - self._heard_s
        if (
            silent_s > (_ASK_AFTER_S if found else _ASK_SILENT_S)
            or time.monotonic() - self._asked_s > _ASK_EVERY_S
        ) and await self._ask() != self._claimed:
            raise DependencyError(f"Kafka at {self._bootstrap} has other partitions, or is another cluster")
        if found:
            self._heard_s = time.monotonic()
        return found

    async def regulate(self, waiting: Mapping[tuple[str, int], int]) -> None:
        """Pause the log that is too far ahead of the other, and read on where it no longer is.

        Args:
            waiting: By partition, how many records were read and are not joined.
        """
        if self._first:
            position = self._consumer.position
            self._first = {tp: end for tp, end in self._first.items() if await position(tp) < end}
            if not self._first:
                self._consumer.resume(*self._paused)
                self._paused.clear()
            return
        for key, count in waiting.items():
            tp = TopicPartition(*key)
            if count > _AHEAD and tp not in self._paused:
                self._consumer.pause(tp)
                self._paused.add(tp)
            elif count <= _AHEAD // 2 and tp in self._paused:
                self._consumer.resume(tp)
                self._paused.discard(tp)

    def _away(self, error: Exception) -> DependencyError:
        return DependencyError(f"Kafka at {self._bootstrap} does not answer: {error!r}")


def _is_named(name: str, transaction_id: str) -> bool:
    return record_name(transaction_id) == name
