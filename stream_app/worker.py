"""A worker: which partitions it has, where they go on, and what becomes of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import structlog

from features.arena import HistoryArena
from features.definitions import DAY_MS
from features.entities import TILE_MS, EntityFeature
from features.ports import LeaseLost
from schemas.errors import TidegateError
from schemas.topics import LABELS, TRANSACTIONS
from schemas.wire import read_transaction
from stream_app.alignment import Alignment
from stream_app.backlog import MOST_HELD, DueLabels
from stream_app.completion import Completion
from stream_app.delivery import Delivery
from stream_app.entity_stage import EntityStage
from stream_app.erasures import ErasureProcessor
from stream_app.labels import LabelProcessor
from stream_app.labels_ahead import LabelsAhead
from stream_app.lanes import ALONE, Lanes, Together
from stream_app.model_watch import PartitionModels, Sets
from stream_app.order import Order
from stream_app.partition import Partition
from stream_app.passes import Passes, Steps
from stream_app.ports import Log, TopicPartition
from stream_app.processor import TransactionProcessor
from stream_app.profiles import ProfileProcessor, Seal
from stream_app.resumption import made_again, next_offset, under_way_until
from stream_app.retry import Interrupted
from stream_app.sweep import Sweep
from stream_app.transport import Chunk

_log = structlog.get_logger()
T = TypeVar("T")
# The group stands still meanwhile. Whoever is not done by then is fenced off, and may have published what is
# published again.
_RELEASE_S = 3.0


class Worker:
    """Owns partitions and runs their chunks. Implements `transport.Positions` and `liveness.Progress`."""

    def __init__(
        self,
        delivery: Delivery,
        log: Log,
        models: Sets,
        *,
        topics: Iterable[str],
        cached_records: int,
        silent_days: int,
        forget_days: int,
        score_features: bool,
        check_log: Callable[[], Awaitable[None]],
        published_upto: Callable[[int, int], Awaitable[tuple[int, bool]]],
        chunk_records: int = 2000,
        entities: Sequence[EntityFeature] = (),
        seal: Seal | None = None,
        label_patience_s: float = 10.0,
        labels_held: int = MOST_HELD,
    ) -> None:
        self._delivery = delivery
        self._log = log
        self._topics = tuple(topics)
        self._cached_records = cached_records
        self._check_log = check_log
        self._published_upto = published_upto
        self._partitions: dict[int, Partition] = {}
        self._taking: set[int] = set()
        # Histories of all partitions in one memory: small chunks of several are scored in one pass.
        self._memory = HistoryArena()
        self.lanes = Lanes(self.handle, chunk_records, (TRANSACTIONS.name,), self._look)
        self._entities = self._entity_stage(entities) if entities else None
        taken = PartitionModels(models, delivery)
        order = Order(delivery, self._log_end, self._passed)
        labels = LabelProcessor(delivery, order, lambda: models.current, self._entities)
        self._completion = Completion(delivery, order, self.fail)
        self.steps = Steps(
            TransactionProcessor(
                delivery, taken.take, score_features=score_features, entities=self._entities
            ),
            labels,
            DueLabels(labels, self.lanes, log, self._log_start, label_patience_s, labels_held),
            ProfileProcessor(delivery, seal),
            ErasureProcessor(delivery, order),
            Sweep(delivery, silent_days=silent_days, forget_days=forget_days),
        )
        self._stop_event = asyncio.Event()
        self._passes = Passes(self._partition, delivery, taken, log, self.steps, self._log_start)
        self._stopping = False
        self._going_back: set[asyncio.Future[None]] = set()
        self.failed: asyncio.Future[TidegateError | Exception] = asyncio.get_running_loop().create_future()

    async def positions(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the leases of partitions and say where each of their topics goes on."""
        wanted = sorted(partitions)
        numbers = sorted({p for _, p in wanted})
        self._taking.update(numbers)
        try:
            return await self._positions(wanted, numbers)
        except Interrupted:
            return {}
        except Exception as error:
            self.fail(error)
            return {}
        finally:
            self._taking.difference_update(numbers)

    async def _positions(
        self, wanted: list[TopicPartition], numbers: list[int]
    ) -> Mapping[TopicPartition, int]:
        # Another log under the same offsets would be skipped as already applied.
        await self._wait("kafka", self._check_log)
        positions: dict[TopicPartition, int] = {}
        for number in numbers:
            topics = [topic for topic, p in wanted if p == number]
            starts = await self._take(number, topics)
            positions |= {(topic, number): start for topic, start in starts.items()}
        _log.info("partitions", owned=numbers)
        return positions

    def processed(self, topic: str, partition: int) -> int | None:
        """Next offset of what the store has; `None` where it has nothing or the partition is not ours."""
        lease = self._partition(partition).lease
        return None if lease is None else lease.next_offsets.get(topic)

    def has_room(self, topic: str, partition: int) -> bool:
        """Whether more of a partition may be fetched."""
        if topic == LABELS.name:
            return self.steps.due_labels.has_room(self._partition(partition))
        return self.lanes.has_room(topic, partition)

    def submit(self, chunk: Chunk) -> None:
        """Have a chunk handled, behind those of its partition."""
        if not self._stopping:
            self.lanes.submit(chunk)

    async def handle(self, chunks: Sequence[Chunk]) -> None:
        """Run chunks of a topic, one of each partition, to their end.

        Never raises: what is wrong ends the worker or is done again.
        """
        if self._stopping:
            return
        try:
            failures = await self._passes.run(chunks)
        except Interrupted:
            return
        except Exception as error:
            self.fail(error)
            return
        for number, failure in failures.items():
            if isinstance(failure, LeaseLost):
                _log.warning("partition lost", reason=str(failure))
                continue
            _log.warning("going back to where the store is", reason=str(failure))
            going_back = asyncio.ensure_future(self._go_back(number))
            self._going_back.add(going_back)
            going_back.add_done_callback(self._going_back.discard)
            if len(chunks) == 1:
                await going_back

    async def _go_back(self, number: int) -> None:
        if self._stopping:
            return
        try:
            await self.seek(number)
        except Exception as error:
            self.fail(error)

    async def _take(self, number: int, topics: list[str]) -> Mapping[str, int]:
        partition = self._partition(number)
        # Whoever holds the lock waiting for a dependency lets go: the work will be done again.
        partition.interrupted.set()
        async with partition.lock:
            try:
                lease = await self._wait("redis", lambda: self._delivery.store.acquire(number))
                # Asked behind the lease: until then the owner before goes on, past an end seen earlier.
                ranges = await self._wait("kafka", lambda: self._log.ranges([(t, number) for t in topics]))
                starts = {t: next_offset(lease, t, number, ranges[t, number]) for t in topics}
                stored = lease.next_offsets.get(TRANSACTIONS.name, 0)
                published, replaced = await self._wait("kafka", lambda: self._published_upto(number, stored))
                if replaced:
                    raise made_again(TRANSACTIONS.name, number, stored)
            except BaseException:
                partition.forget()
                raise
            transactions = ranges.get((TRANSACTIONS.name, number))
            # Scores of offsets that the log does not have are of another log: publish.
            known = transactions is not None and published <= transactions.end
            ahead = None
            if LABELS.name in starts:
                labels = ranges[LABELS.name, number]
                ahead = LabelsAhead(labels.end, starts[LABELS.name], lease.watermark_ms // DAY_MS)
            partition.begin(
                lease,
                starts,
                {TRANSACTIONS.name: published} if known else {},
                max(published if known else 0, under_way_until(lease, transactions)),
                ahead,
            )
            if self._entities is not None:
                self._entities.begin(number, lease.watermark_ms)
            self._completion.watch(partition)
        self._delivery.observer.lease("acquired")
        return starts

    async def _wait(self, dependency: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._delivery.retry.until_done(dependency, call, self._stop_event)

    async def _log_start(self, tp: TopicPartition) -> int:
        return (await self._wait("kafka", lambda: self._log.bounds([tp])))[tp][0]

    async def _log_end(self, topic: str, number: int) -> int:
        tp = (topic, number)
        return (await self._log.bounds([tp]))[tp][1]

    async def _passed(self, topic: str, partition: int, offset: int) -> bool:
        """Whether all records before an offset are processed: it may stand behind markers and gaps."""
        processed = self._partition(partition).next_offset(topic)
        if processed is None or processed >= offset:
            return processed is not None
        read = await self._log.position(topic, partition) >= offset
        return read and processed == self._log.delivered(topic, partition)

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = Partition(
                number, self._delivery.store, self._cached_records, self._memory
            )
            if self._entities is not None:
                self._partitions[number].on_forget = self._entities.forget
        return self._partitions[number]

    def _entity_stage(self, features: Sequence[EntityFeature]) -> EntityStage:
        delivery = self._delivery
        return EntityStage(
            features,
            delivery.store,
            delivery.retry,
            delivery.observer,
            Alignment(self._is_idle),
            partitions=delivery.placement.partitions,
            mine=lambda: [p.number for p in self._partitions.values() if p.lease is not None],
        )

    def _look(self, chunk: Chunk) -> Together:
        """Whether a chunk may share a pass, and with which."""
        partition = self._partition(chunk.partition)
        alone = partition.holds_up
        # Without entities no partition waits for another, so all are as one.
        if self._entities is None:
            return Together(alone)
        lease, reached = partition.lease, self._entities.reached(chunk.partition)
        if alone or lease is None or reached is None or not self.lanes.is_small(chunk):
            return ALONE
        newest_ms = lease.watermark_ms
        for record in chunk.records:
            plain = read_transaction(record.value)
            if plain is None:
                return ALONE
            newest_ms = max(newest_ms, plain[0].event_time_ms)
        return Together(False, reached, newest_ms // TILE_MS)

    def _is_idle(self, partition: int) -> bool:
        topic = TRANSACTIONS.name
        if self._partition(partition).lease is None:
            # Between two leases it holds the others, unless it is somebody else's now.
            return (topic, partition) not in self._log.assigned()
        end, delivered = self._log.end(topic, partition), self._log.delivered(topic, partition)
        done = end is not None and delivered is not None and delivered >= end
        return done and self.lanes.is_idle(topic, partition)

    def check(self) -> None:
        """Raise what ended the Kafka client's own tasks, if anything did."""
        self._log.check()

    def assigned(self) -> set[TopicPartition]:
        """What the group gave to this worker; empty during a rebalance."""
        return self._log.assigned()

    def reached(self, topic: str, partition: int) -> int | None:
        """Next offset to process; `None` where the partition is not ours."""
        return self._partition(partition).next_offset(topic)

    def log_end(self, topic: str, partition: int) -> int | None:
        """Next offset of the log as the last fetch knew it; `None` before the first."""
        return self._log.end(topic, partition)

    def oldest_ms(self, topic: str, partition: int) -> int | None:
        """The broker's timestamp of the oldest record that is held here unprocessed."""
        chunk = self.lanes.oldest(topic, partition)
        return None if chunk is None else int(chunk.records[0].timestamp)

    def watermarks_ms(self) -> Mapping[int, int]:
        """Newest event time of each partition that is ours."""
        return {n: p.lease.watermark_ms for n, p in self._partitions.items() if p.lease is not None}

    def is_busy(self, topic: str, partition: int) -> bool:
        """Whether a lease is being taken, or a chunk is under way, if only to wait for a dependency."""
        return partition in self._taking or not self.lanes.is_idle(topic, partition)

    async def is_behind(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, bool]:
        """Whether the log holds records that were not processed."""
        bounds = await self._log.bounds(partitions)
        return {tp: not await self._passed(*tp, end) for tp, (_, end) in bounds.items()}

    async def seek(self, partition: int) -> None:
        """Take the lease of a partition again and seek its topics."""
        # Stale, and would meet the new lease before it is sought.
        self.lanes.drop({partition})
        await self._log.seek_to_stored({(topic, partition) for topic in self._topics})

    def fail(self, error: Exception) -> None:
        """End the process: going on would lose events."""
        if not self.failed.done():
            self.failed.set_result(error)

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Let the chunks under way of these finish, drop those that wait, and give the leases up."""
        numbers = {number for _, number in partitions}
        self.lanes.drop(numbers)
        held = [self._partitions[number] for number in sorted(numbers & self._partitions.keys())]
        for partition in held:
            # Who waits for a dependency does not finish: the work is done by whoever is next.
            partition.interrupted.set()
        try:
            async with asyncio.timeout(_RELEASE_S):
                for partition in held:
                    async with partition.lock:
                        partition.forget()
        except TimeoutError:
            _log.warning("partitions given up with a chunk under way", partitions=sorted(numbers))

    async def drain(self, limit_s: float) -> bool:
        """Take no new chunk and let those under way finish; false where the limit came first.

        Who waits for a dependency does not finish: the work is done again after the next start.
        """
        self._stopping = True
        self._stop_event.set()
        self._completion.stop()
        partitions = [self._partitions[number] for number in sorted(self._partitions)]
        for partition in partitions:
            partition.interrupted.set()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(limit_s):
                    for partition in partitions:
                        await held.enter_async_context(partition.lock)
            except TimeoutError:
                return False
        return True
