"""The end of an output partition: what was published before a crash is not published again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic_core import from_json

from infra.consumers import connected
from schemas.errors import DependencyError

_LOOK_BACK = 20


class _Source(NamedTuple):
    """The transaction that a score is of."""

    offset: int
    transaction_id: str


class LogTail:
    """Reads the newest records of a partition.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of one look.
        committed_only: Pass over what was published in a transaction that was not committed.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        timeout_s: float = 30.0,
        committed_only: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._committed_only = committed_only
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = dict(options or {})
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._closing: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            DependencyError: No broker answers.
        """
        self._consumer = await self._connect()

    async def _connect(self) -> AIOKafkaConsumer:
        return await connected(
            self._bootstrap,
            timeout_s=self._timeout_s,
            options=self._options,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
            isolation_level="read_committed" if self._committed_only else "read_uncommitted",
        )

    @asynccontextmanager
    async def _look(self, what: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer for one look; one that failed is not used again.

        The client's own tasks can end without a word, and then it fetches nothing any more.
        """
        try:
            async with self._lock, asyncio.timeout(self._timeout_s):
                consumer, self._consumer = self._consumer or await self._connect(), None
                try:
                    yield consumer
                except BaseException:
                    self._closing = asyncio.ensure_future(_close(consumer))
                    raise
                # Not unsubscribed: aiokafka's fetcher ends where it finds no subscription.
                consumer.pause(*consumer.assignment())
                self._consumer = consumer
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(f"Kafka at {self._bootstrap} {what}: {error!r}") from error

    async def stop(self) -> None:
        """Disconnect."""
        if self._closing is not None:
            await self._closing
        if self._consumer is not None:
            await self._consumer.stop()

    async def bounds(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """First and next offset of partitions.

        The next offset is the one that comes with fetched records: the embedded broker's answer to
        `end_offsets` is short of its last batch.

        Raises:
            DependencyError: The broker does not answer.
        """
        tps = [TopicPartition(*tp) for tp in partitions]
        async with self._look("does not say how far its logs go") as consumer:
            starts = await consumer.beginning_offsets(tps)
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                if ends[tp] > starts[tp]:
                    ends[tp] = max(ends[tp], await self._highwater(consumer, tp, ends[tp] - 1))
            return {(tp.topic, tp.partition): (int(starts[tp]), int(ends[tp])) for tp in tps}

    @staticmethod
    async def _highwater(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> int:
        consumer.assign([tp])
        consumer.seek(tp, offset)
        # A compacted log may have nothing at this offset: one look, not until something comes.
        await consumer.getmany(tp, timeout_ms=500, max_records=1)
        return int(consumer.highwater(tp) or 0)

    async def _scores(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, offsets: tuple[int, int], source_topic: str
    ) -> list[_Source]:
        """What the scores of a range are of, in the order they were published in."""
        start, end = offsets
        consumer.assign([tp])
        consumer.seek(tp, start)
        found: list[_Source] = []
        # The last batch may be behind what `end_offsets` says: fetches know where it ends.
        known = consumer.last_stable_offset if self._committed_only else consumer.highwater
        while await consumer.position(tp) < max(end, known(tp) or 0):
            for record in (await consumer.getmany(tp, timeout_ms=1000)).get(tp, ()):
                if (source := _source(record.value, source_topic)) is not None:
                    found.append(source)
        return found

    @staticmethod
    async def _range(consumer: AIOKafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
        """First and next offset, as the broker is asked for them."""
        end = (await consumer.end_offsets([tp]))[tp]
        return (await consumer.beginning_offsets([tp]))[tp], end

    @staticmethod
    async def _is_of_other_log(consumer: AIOKafkaConsumer, tp: TopicPartition, source: _Source) -> bool:
        """Whether another record stands at a source's offset; nothing there says nothing."""
        start, end = await LogTail._range(consumer, tp)
        if not start <= source.offset < end:
            return False
        consumer.assign([tp])
        consumer.seek(tp, source.offset)
        records = (await consumer.getmany(tp, timeout_ms=1000, max_records=1)).get(tp, ())
        return any(
            record.offset == source.offset and _transaction_id(record.value) != source.transaction_id
            for record in records
        )

    async def holds(self, topic: str, partition: int, offset: int, is_it: Callable[[str], bool]) -> bool:
        """Whether a record is still where it was: a topic that was made again has another one, or none.

        Args:
            topic: Of transactions, or of scores.
            partition: Of the topic.
            offset: Where the record was; true where the log begins behind it.
            is_it: Knows the record by its transaction's id.

        Raises:
            DependencyError: The broker does not answer.
        """
        tp = TopicPartition(topic, partition)
        async with self._look(f"does not show what {topic} has") as consumer:
            start, end = await self._range(consumer, tp)
            if offset < start:
                return True
            if offset >= end and (end == start or offset >= await self._highwater(consumer, tp, end - 1)):
                return False
            consumer.assign([tp])
            consumer.seek(tp, offset)
            while await consumer.position(tp) == offset:
                for record in (await consumer.getmany(tp, timeout_ms=1000, max_records=1)).get(tp, ()):
                    found = _transaction_id(record.value)
                    return record.offset == offset and found is not None and is_it(found)
            # Markers of transactions, and what was aborted, are offsets without a record.
            return False

    async def scored_upto(
        self, topic: str, partition: int, source_topic: str, stored: int = 0
    ) -> tuple[int, bool]:
        """Offset behind the newest source record that has a score in this partition; 0 for none.

        Scores are published in the order of their sources, so everything before it is there too. Those of
        another log, whose topic was made again, do not count.

        Args:
            topic: Has the scores.
            partition: Of both topics.
            source_topic: What they are of.
            stored: Offset up to which the state has the source.

        Returns:
            The offset, and whether the state is of another log: what was scored of it before `stored` is not
            what the log has there.

        Raises:
            DependencyError: The broker does not answer.
        """
        tp, source = TopicPartition(topic, partition), TopicPartition(source_topic, partition)
        async with self._look(f"does not show the end of {topic}") as consumer:
            start, end = await self._range(consumer, tp)
            scores: list[_Source] = []
            first, back = end, _LOOK_BACK
            # Markers of transactions, and what was aborted, are offsets without a record.
            while not scores and first > start:
                first = max(start, end - back)
                scores = await self._scores(consumer, tp, (first, end), source_topic)
                back *= 8
            before = [score for score in scores if score.offset < stored]
            replaced = bool(before) and await self._is_of_other_log(consumer, source, before[-1])
            while scores:
                newest = max(range(len(scores)), key=lambda number: scores[number].offset)
                # Mostly all that was scored is stored, and that was looked at.
                known = bool(before) and scores[newest] == before[-1]
                other = replaced if known else await self._is_of_other_log(consumer, source, scores[newest])
                if not other:
                    return scores[newest].offset + 1, replaced
                scores = scores[newest + 1 :]
            return 0, replaced


async def _close(consumer: AIOKafkaConsumer) -> None:
    with contextlib.suppress(Exception):
        await consumer.stop()


def _source(score: bytes | None, source_topic: str) -> _Source | None:
    """What a message is the score of; `None` where it is no such score, whoever wrote it."""
    try:
        said = orjson.loads(score or b"")
        source = said["source"]
        if source["topic"] != source_topic:
            return None
        return _Source(int(source["offset"]), str(said.get("transaction_id", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _transaction_id(event: bytes | None) -> str | None:
    try:
        # By the parser that accepted it: orjson refuses NaN and 1e400, which fields nobody reads may hold.
        return str(from_json(event or b"")["transaction_id"])
    except (ValueError, TypeError, KeyError):
        return None
