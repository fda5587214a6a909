"""A worker: which partitions it has, where they go on, and what happens to each chunk."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from features.ports import Lease
from models.pipeline import Models
from schemas.errors import HistoryError, TidegateError
from schemas.topics import LABELS, TRANSACTIONS
from stream_app.partition import LeaseLost, Partition, StoreRolledBack
from stream_app.processor import Delivery, TransactionProcessor
from stream_app.retry import Interrupted
from stream_app.side_inputs import LabelProcessor, ProfileProcessor
from stream_app.sweep import Sweep
from stream_app.transport import Chunk

_log = structlog.get_logger()
TopicPartition = tuple[str, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogRange:
    """What the broker knows of a partition: first offset, next offset, the group's commit."""

    start: int
    end: int
    committed: int | None


class Log(Protocol):
    """What the worker asks of the consumer."""

    async def ranges(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, LogRange]:
        """Ranges of partitions."""
        ...

    async def seek_to_stored(self, partitions: set[TopicPartition]) -> None:
        """Ask `Positions` again for these and go there."""
        ...

    def seeks(self, topic: str, partition: int) -> int:
        """How often a partition was sought."""
        ...


class Worker:
    """Owns partitions and runs their chunks. Implements `transport.Positions`."""

    def __init__(
        self,
        delivery: Delivery,
        log: Log,
        models: Callable[[], Models],
        *,
        topics: Iterable[str],
        cached_records: int,
        silent_days: int,
        forget_days: int,
        score_features: bool,
        check_log: Callable[[], Awaitable[None]],
        published_upto: Callable[[int], Awaitable[int]],
    ) -> None:
        self._delivery = delivery
        self._log = log
        self._models = models
        self._topics = tuple(topics)
        self._cached_records = cached_records
        self._check_log = check_log
        self._published_upto = published_upto
        self._partitions: dict[int, Partition] = {}
        self._transactions = TransactionProcessor(delivery, models, score_features=score_features)
        self._labels = LabelProcessor(delivery, self._transactions_end)
        self._profiles = ProfileProcessor(delivery)
        self._sweep = Sweep(delivery, silent_days=silent_days, forget_days=forget_days)
        self._stopping = False
        self._stop_event = asyncio.Event()
        self.failed: asyncio.Future[TidegateError | Exception] = asyncio.get_running_loop().create_future()

    async def positions(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the leases of partitions and say where each of their topics goes on."""
        wanted = sorted(partitions)
        positions: dict[TopicPartition, int] = {}
        try:
            # Another log under the same offsets would be skipped as already applied.
            await self._wait("kafka", self._check_log)
            ranges = await self._wait("kafka", lambda: self._log.ranges(wanted))
            for number in sorted({p for _, p in wanted}):
                transactions = ranges.get((TRANSACTIONS.name, number))
                lease = await self._take(number, transactions.end if transactions else 0)
                for topic in sorted(t for t, p in wanted if p == number):
                    positions[topic, number] = _next_offset(lease, topic, number, ranges[topic, number])
        except Interrupted:
            return {}
        except TidegateError as error:
            self.fail(error)
            return {}
        _log.info("partitions", owned=sorted({p for _, p in wanted}))
        return positions

    async def handle(self, chunk: Chunk) -> None:
        """Run one chunk to its end. Never raises: Faust would take an exception for an acknowledgement."""
        if self._stopping:
            return
        try:
            await self._handle(chunk)
        except LeaseLost as lost:
            _log.warning("partition lost", reason=str(lost))
            self._partition(chunk.partition).forget()
        except StoreRolledBack as back:
            _log.warning("store lost writes, going back", reason=str(back))
            await self._go_back(chunk.partition)
        except Interrupted:
            self._partition(chunk.partition).forget()
        except asyncio.CancelledError:
            self._partition(chunk.partition).forget()
            raise
        except Exception as error:
            self._partition(chunk.partition).forget()
            self.fail(error)

    async def _handle(self, chunk: Chunk) -> None:
        partition = self._partition(chunk.partition)
        if chunk.topic == LABELS.name and not await self._labels.ready(partition):
            return
        async with partition.lock:
            rest = await self._rest(partition, chunk)
            if rest is None:
                return
            if rest.topic == TRANSACTIONS.name:
                await self._transactions.process(partition, rest)
                day = self._sweep.due(partition)
                if day is not None:
                    await self._sweep.run(partition, day, self._models())
            elif rest.topic == LABELS.name:
                await self._labels.process(partition, rest)
            else:
                await self._profiles.process(partition, rest)
            self._delivery.observer.chunk(rest.topic, len(rest.records))
            self._delivery.observer.progress(rest.topic, partition.number, rest.next_offset)

    async def _rest(self, partition: Partition, chunk: Chunk) -> Chunk | None:
        """The part of a chunk that is next, or `None` where nothing of it is.

        Raises:
            StoreRolledBack: Records between the store and this chunk were never delivered.
            HistoryError: They are not in the log any more, or the log is another one.
        """
        lease = partition.lease
        if lease is None:
            return None
        cursor = lease.next_offsets.get(chunk.topic)
        if cursor is None or chunk.after == cursor:
            if chunk.records[0].offset < chunk.after:
                raise _recreated(chunk.topic, chunk.partition, chunk.after)
            if chunk.records[0].offset > chunk.after:
                # Compaction and transaction markers leave gaps; retention that passed us loses events.
                await self._require_in_log(chunk)
            return chunk
        stale = chunk.seek < self._log.seeks(chunk.topic, chunk.partition)
        if chunk.after > cursor:
            if stale:
                return None
            raise StoreRolledBack(f"{chunk.topic}[{chunk.partition}] jumped from {cursor} to {chunk.after}")
        rest = [record for record in chunk.records if record.offset >= cursor]
        return Chunk(chunk.topic, chunk.partition, rest, cursor, chunk.seek) if rest else None

    async def _require_in_log(self, chunk: Chunk) -> None:
        tp = (chunk.topic, chunk.partition)
        found = await self._wait("kafka", lambda: self._log.ranges([tp]))
        if found[tp].start > chunk.after:
            raise _retention_passed(chunk.topic, chunk.partition, chunk.after, found[tp].start)

    async def _go_back(self, number: int) -> None:
        self._partition(number).forget()
        try:
            await self._log.seek_to_stored({(topic, number) for topic in self._topics})
        except Exception as error:
            self.fail(error)

    async def _take(self, number: int, log_end: int) -> Lease:
        partition = self._partition(number)
        # Whoever holds the lock waiting for a dependency lets go: the work will be done again.
        partition.interrupted.set()
        async with partition.lock:
            lease = await self._wait("redis", lambda: self._delivery.store.acquire(number))
            partition.begin(lease)
            published = await self._wait("kafka", lambda: self._published_upto(number))
            # Scores of offsets that the log does not have are of another log: publish.
            if published <= log_end:
                partition.published_upto[TRANSACTIONS.name] = published
        self._delivery.observer.lease("acquired")
        return lease

    async def _wait(self, dependency: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._delivery.retry.until_done(dependency, call, self._stop_event)

    async def _transactions_end(self, number: int) -> int:
        tp = (TRANSACTIONS.name, number)
        return (await self._log.ranges([tp]))[tp].end

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = Partition(number, self._delivery.store, self._cached_records)
        return self._partitions[number]

    def fail(self, error: Exception) -> None:
        """End the process: going on would lose events."""
        if not self.failed.done():
            self.failed.set_result(error)

    async def drain(self, limit_s: float) -> bool:
        """Take no new chunk and let those under way finish; false where the limit came first."""
        self._stopping = True
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(limit_s):
                    for partition in self._partitions.values():
                        await held.enter_async_context(partition.lock)
            except TimeoutError:
                return False
            finally:
                self._stop_event.set()
                for partition in self._partitions.values():
                    partition.interrupted.set()
        return True


def _next_offset(lease: Lease, topic: str, partition: int, log: LogRange) -> int:
    """Where a topic goes on.

    Raises:
        HistoryError: State and log do not fit; nothing is consumed until a person decides.
    """
    stored = lease.next_offsets.get(topic)
    if stored is None:
        if log.committed:
            raise HistoryError(
                f"{topic}[{partition}] was processed up to {log.committed}, but the store has nothing of it: "
                "histories were lost or another namespace is set. Restore Redis, or start with a new "
                "TIDEGATE_GROUP to build the histories again from the start of the log"
            )
        return log.start
    if stored < log.start:
        raise _retention_passed(topic, partition, stored, log.start)
    if stored > log.end:
        raise _recreated(topic, partition, stored)
    return stored


def _retention_passed(topic: str, partition: int, stored: int, start: int) -> HistoryError:
    return HistoryError(
        f"{topic}[{partition}] goes on at offset {stored}, but the log starts at {start}: events were "
        "deleted before they were processed. Restore the topic, or start with a new TIDEGATE_NAMESPACE and "
        "TIDEGATE_GROUP to build the histories from what is left"
    )


def _recreated(topic: str, partition: int, stored: int) -> HistoryError:
    return HistoryError(
        f"{topic}[{partition}] was processed up to offset {stored}, but the log ends before: the topic was "
        "made again or lost its end. Restore it, or start with a new TIDEGATE_NAMESPACE and TIDEGATE_GROUP"
    )
