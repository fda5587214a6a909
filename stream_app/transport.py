"""Chunked delivery for Faust: one message per fetched batch of a partition.

Stock Faust wraps every record in a message, an event and two acknowledgements, which costs more than
scoring it. Here the consumer hands what one fetch returned for a partition to the agent as one
message whose value is a `Chunk`. Rebalancing, heartbeats, subscriptions and the commit loop stay
Faust's own.

Two more things differ from the stock driver, both because the store and not Kafka says where to go on:

* `seek_to_committed` asks a `Positions` port. Both of Faust's internal seeks go through this method;
  a seek in the assigned-signal is overridden later by one of them.
* Partition numbers are assigned together over all topics, so that one worker owns a customer's
  transactions, labels and profile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import faust
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

SCHEME = "tidegate"


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


class Positions(Protocol):
    """Says where partitions go on."""

    async def positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Next offset of each partition; those it leaves out are not consumed."""
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


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts; Faust has no settings for them and its 1500 ms would be
        # the latency on a broker that answers a fetch late.
        consumer._partition_assignment_strategy = (CopartitionAssignor,)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms
        return consumer


class ChunkConsumer(driver.Consumer):  # type: ignore[misc]
    """Consumer that delivers chunks and seeks where the store says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next: dict[TP, int] = {}
        self._seeks: dict[TP, int] = {}

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Chunk]]:
        fetched = await super()._getmany(active_partitions, timeout)
        chunks = {}
        for key, records in (fetched or {}).items():
            # Nothing was sought for this partition yet: what came is from a place nobody chose.
            if not records or (tp := TP(key.topic, key.partition)) not in self._next:
                continue
            chunk = Chunk(tp.topic, tp.partition, list(records), self._next[tp], self._seeks[tp])
            self._next[tp] = chunk.next_offset
            chunks[key] = [chunk]
        return chunks

    def _to_message(self, tp: TP, record: Chunk) -> ConsumerMessage:
        last = record.records[-1]
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

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to where the store says."""
        return await self.seek_to_stored({TP(tp.topic, tp.partition) for tp in self.assignment()})

    async def seek_to_stored(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Seek these partitions to where the store says."""
        positions: Positions = self.app.positions
        wanted = {TP(*key): offset for key, offset in (await positions.positions(partitions)).items()}
        for tp in partitions:
            self._next.pop(tp, None)
        await self._thread.seek_wait(wanted)
        for tp, offset in wanted.items():
            self._read_offset[tp] = offset
            self._next[tp] = offset
            self._seeks[tp] = self._seeks.get(tp, 0) + 1
        return wanted

    def seeks(self, topic: str, partition: int) -> int:
        """How often a partition was sought."""
        return self._seeks.get(TP(topic, partition), 0)

    async def committed(self, tp: TP) -> int | None:
        """The group's committed offset of a partition."""
        consumer = self._thread._ensure_consumer()
        offset: int | None = await self._thread.call_thread(consumer.committed, tp)
        return offset

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: offsets between two chunks are records of the second one, not gaps."""

    def _new_offset(self, tp: TP) -> int | None:
        # Chunks of a partition are finished in their order, so the largest finished one is the
        # place; Kafka's committed offset only shows the lag and never decides where to go on.
        acked = self._acked[tp]
        if not acked:
            return None
        newest: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return newest + 1

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's own check counts offsets as messages; the worker has a check of its own."""


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka driver with the consumer above."""

    Consumer = ChunkConsumer
    driver_version = f"chunked aiokafka, faust {faust.__version__}"


TRANSPORTS.aliases[SCHEME] = "stream_app.transport:Transport"
