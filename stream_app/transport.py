"""Chunked delivery for Faust: one message for what one fetch returned of a topic.

Stock Faust wraps every record in a message, an event and two acknowledgements, which costs more than
scoring it. Here the consumer hands what one fetch returned of a topic to the agent as one
message whose value is a list of `Chunk`s, one for each partition. Rebalancing, heartbeats, subscriptions and
the commit loop stay Faust's own.

What differs from the stock driver, because the store and not Kafka says where to go on:

* Seeks ask a `Positions` port and run beside Faust: it gives a seek a time limit and, once that has
  passed, handles no rebalance any more. A partition is fetched from when its own seek is done.
* What is committed is what the store has, not what was acknowledged. A commit that fails ends nothing.
* `Positions` says which partitions have room for more; Faust's count of messages takes a chunk of one
  record for one of two thousand.
* Partition numbers are assigned together over all topics, so that one worker owns a customer's
  transactions, labels and profile.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import faust
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import WorkerThread

SCHEME = "tidegate"
_LOOK_AGAIN_S = 0.01
_THREAD_END_S = 2.0
_BUSY_FETCH_WAIT_MS = 5
_LOOK_AT_POSITIONS_S = 0.25


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition.

    Attributes:
        records: `ConsumerRecord`s of aiokafka, in order of their offsets.
        after: Next offset before this chunk: where the last one ended, or where the consumer sought.
        seek: How many seeks the partition had seen when this was fetched: older chunks are stale.
    """

    topic: str
    partition: int
    records: list[Any]
    after: int
    seek: int

    @property
    def next_offset(self) -> int:
        """Offset behind the last record."""
        return int(self.records[-1].offset) + 1

    @property
    def missing(self) -> int | None:
        """First offset from `after` on that has no record here before the last one; `None` where all have.

        Not at its start alone: chunks that waited became one.
        """
        if self.next_offset - self.after == len(self.records):
            return None
        pairs = enumerate(self.records, self.after)
        return next((offset for offset, record in pairs if record.offset != offset), None)


class Positions(Protocol):
    """Says where partitions go on, how far they are, and which can take more."""

    async def positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Next offset of each partition; those it leaves out are not consumed."""
        ...

    def processed(self, topic: str, partition: int) -> int | None:
        """Next offset of what the store has; `None` where it has nothing or is not ours to say."""
        ...

    def has_room(self, topic: str, partition: int) -> bool:
        """Whether more of a partition may be fetched."""
        ...

    async def release(self, partitions: Iterable[tuple[str, int]]) -> None:
        """End what was begun of partitions that are about to be somebody else's; not for long."""
        ...


class CopartitionAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives partition `p` of every topic to the same member."""

    name = "tidegate-copartition"
    version = 0

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Deal partition numbers to members in turn."""
        order = sorted(members)
        given: dict[str, dict[str, list[int]]] = {member: {} for member in order}
        for topic in sorted({t for metadata in members.values() for t in metadata.subscription}):
            for partition in sorted(cluster.partitions_for_topic(topic) or ()):
                given[order[partition % len(order)]].setdefault(topic, []).append(partition)
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, sorted(topics.items()), b"")
            for member, topics in given.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What a member tells the others."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: Any) -> None:
        """Nothing to remember between rebalances."""


class _Thread(WorkerThread):  # type: ignore[misc]
    """Faust's thread, which a broker that does not answer must not keep alive after the end."""

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        """Wait for its end, but not for ever: this blocks the event loop."""
        self.is_stopped.wait(_THREAD_END_S)


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    Worker = _Thread

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts; Faust has no settings for them and its 1500 ms would be
        # the latency on a broker that answers a fetch late.
        consumer._partition_assignment_strategy = (CopartitionAssignor,)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms
        # Whoever aborts a transaction has said nothing.
        consumer._isolation_level = "read_committed"
        return consumer

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """What is there, and how long the broker may wait with the next: less while records come.

        A broker that looks again only after a while would be what a slow stream waits for.
        """
        records = await super().getmany(active_partitions, timeout)
        most = self.app.fetch_wait_ms
        self._ensure_consumer()._fetcher._fetch_max_wait_ms = (
            min(most, _BUSY_FETCH_WAIT_MS) if records else most
        )
        return records

    def read_upto(self, partitions: set[TP]) -> dict[TP, int]:
        """How far the client is, behind markers too, of those of these partitions that are assigned."""
        subscription = self._ensure_consumer()._subscription.subscription
        if subscription is None or (assignment := subscription.assignment) is None:
            return {}
        keys = {tp: TopicPartition(*tp) for tp in partitions}
        states = {tp: assignment.state_value(key) for tp, key in keys.items() if key in assignment.tps}
        return {tp: int(state.position) for tp, state in states.items() if state.has_valid_position}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust ends the program where a commit fails. It only shows the lag.
        mine = self.assignment()
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in mine
        }
        try:
            await self._ensure_consumer().commit(wanted)
        except (KafkaError, OSError, ValueError) as error:
            self.log.info("Not committed: %r", error)
            return False
        return True


class ChunkConsumer(driver.Consumer):  # type: ignore[misc]
    """Consumer that delivers chunks and seeks where the store says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Where the next chunk starts, of partitions that were sought since they were assigned.
        self._next: dict[TP, int] = {}
        self._seeks: dict[TP, int] = {}
        self._seeking: asyncio.Future[None] | None = None
        # Behind markers and what was aborted: where the client was when all that it had was in chunks.
        self._read: dict[TP, int] = {}
        self._look_at_s = 0.0

    @property
    def _positions(self) -> Positions:
        positions: Positions = self.app.positions
        return positions

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Chunks of one fetch, those of a topic together.

        Stock Faust seeks here when a rebalance has begun meanwhile, which would take the leases of
        partitions that are about to be somebody else's. The rebalance itself ends with a seek.
        """
        records, _ = await self._wait_next_records(timeout)
        by_topic: dict[str, list[Chunk]] = {}
        for tp, chunks in (records or {}).items():
            by_topic.setdefault(tp.topic, []).extend(chunks)
            # Faust commits of partitions whose messages were acknowledged; here one stands for several.
            self._acked[tp]
        for topic, chunks in by_topic.items():
            if self.should_stop or not self.flow_active:
                return
            tp = TP(topic, chunks[-1].partition)
            # Faust drops what is behind the newest message it delivered: after a seek back, all.
            self._read_offset.pop(tp, None)
            yield tp, self._to_message(tp, chunks)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Chunk]]:
        active = active_partitions or set()
        wanted = {tp for tp in active if tp in self._next and self._positions.has_room(*tp)}
        if not wanted:
            await asyncio.sleep(_LOOK_AGAIN_S)
            return {}
        if len(wanted) < len(active):
            # Those that are left out now may be wanted again soon.
            timeout = _LOOK_AGAIN_S
        fetched = await super()._getmany(active_partitions=wanted, timeout=timeout)
        chunks = {}
        for key, records in (fetched or {}).items():
            # Sought again meanwhile, so what came is from a place nobody chose.
            if not records or (tp := TP(key.topic, key.partition)) not in self._next:
                continue
            chunk = Chunk(tp.topic, tp.partition, list(records), self._next[tp], self._seeks[tp])
            self._next[tp] = chunk.next_offset
            chunks[tp] = [chunk]
        if (now := self.loop.time()) >= self._look_at_s:
            self._look_at_s = now + _LOOK_AT_POSITIONS_S
            # Only between two fetches does that fit what was delivered.
            self._read |= self._thread.read_upto(set(self._next))
        return chunks

    def _to_message(self, tp: TP, record: list[Chunk]) -> ConsumerMessage:
        last = record[-1].records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            last.headers,
            None,
            record,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop seeking: a lease taken from now on would be taken from its new owner.

        The group goes on without this worker only when this returns, so that what was begun ends before
        somebody else goes on behind it.
        """
        self._stop_seeking()
        for tp in revoked:
            self._next.pop(tp, None)
            self._read.pop(tp, None)
        await super().on_partitions_revoked(revoked)
        await self._positions.release(revoked)

    async def perform_seek(self) -> None:
        """Begin to seek every assigned partition."""
        self._stop_seeking()
        self._seeking = self.add_future(self.seek_to_committed())

    def _stop_seeking(self) -> None:
        if self._seeking is not None:
            self._seeking.cancel()
            self._seeking = None

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to where the store says."""
        return await self.seek_to_stored({TP(tp.topic, tp.partition) for tp in self.assignment()})

    async def seek_to_stored(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Seek these partitions to where the store says; those no longer assigned are left out."""
        for tp in partitions:
            self._next.pop(tp, None)
            self._read.pop(tp, None)
        found = await self._positions.positions(partitions)
        mine = self.assignment()
        wanted = {TP(*key): offset for key, offset in found.items() if TP(*key) in mine}
        try:
            await self._thread.seek_wait(wanted)
        except IllegalStateError:
            # Taken away this moment; what is still ours is sought when the rebalance ends.
            return {}
        for tp, offset in wanted.items():
            self._next[tp] = offset
            self._seeks[tp] = self._seeks.get(tp, 0) + 1
        return wanted

    def assignment(self) -> set[TP]:
        """What the group gave to this worker; nothing before the client has started."""
        try:
            given: set[TP] = super().assignment()
        except ConsumerNotStarted:
            return set()
        return given

    def seeks(self, topic: str, partition: int) -> int:
        """How often a partition was sought."""
        return self._seeks.get(TP(topic, partition), 0)

    def delivered(self, topic: str, partition: int) -> int | None:
        """Next offset behind what was delivered of a partition; `None` while it is not sought."""
        return self._next.get(TP(topic, partition))

    def end(self, topic: str, partition: int) -> int | None:
        """Behind the last record of a partition's log, as the last fetch knew it; `None` before the first.

        What stands behind that record (markers of transactions, what was aborted) is nothing to wait for.
        """
        tp = TP(topic, partition)
        try:
            offset: int | None = self.highwater(tp)
        except (AssertionError, IllegalStateError):
            # Taken away this moment.
            return None
        if offset is not None and self._read.get(tp, -1) >= offset:
            return self._next.get(tp, offset)
        return offset

    def check(self) -> None:
        """Raise what ended the client's own tasks: Faust goes past the method that would.

        Raises:
            KafkaError: It fetches nothing more, or is in no group any more.
        """
        try:
            consumer = self._thread._ensure_consumer()
        except ConsumerNotStarted:
            return
        coordinator = consumer._coordinator
        if coordinator is None:
            # On busy cores the client is still starting when liveness looks first.
            return
        for task in (coordinator._coordination_task, consumer._fetcher.error_future):
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()
        if coordinator._pending_exception is not None:
            raise coordinator._pending_exception

    async def committed(self, tp: TP) -> int | None:
        """The group's committed offset of a partition."""
        consumer = self._thread._ensure_consumer()
        offset: int | None = await self._thread.call_thread(consumer.committed, tp)
        return offset

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: `Positions.has_room` decides what is fetched."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: offsets between two chunks are records of the second one, not gaps."""

    def _new_offset(self, tp: TP) -> int | None:
        # Not what was acknowledged: a chunk that was dropped is acknowledged too, and a commit without
        # anything in the store would look like lost state at the next start.
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self._positions.processed(tp.topic, tp.partition)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's own check counts offsets as messages; `stream_app.liveness` looks instead."""


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka driver with the consumer above."""

    Consumer = ChunkConsumer
    driver_version = f"chunked aiokafka, faust {faust.__version__}"


TRANSPORTS.aliases[SCHEME] = "stream_app.transport:Transport"
