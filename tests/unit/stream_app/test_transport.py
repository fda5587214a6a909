import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from stream_app.app import create_faust_app
from stream_app.settings import WorkerSettings
from stream_app.transport import Chunk, ChunkConsumer, CopartitionAssignor, _ConsumerThread
from tests.streaming import Record

A, B = TP("transactions", 0), TP("transactions", 1)


def assign(members: Mapping[str, list[str]], topics: Mapping[str, int]) -> dict[str, dict[str, list[int]]]:
    cluster = SimpleNamespace(
        partitions_for_topic=lambda topic: set(range(topics[topic])) if topic in topics else None
    )
    metadata = {m: ConsumerProtocolMemberMetadata(0, subscribed, b"") for m, subscribed in members.items()}
    return {
        member: dict(assignment.assignment)
        for member, assignment in CopartitionAssignor.assign(cluster, metadata).items()
    }


class TestAssignor:
    def test_one_member_gets_everything(self) -> None:
        assert assign({"a": ["t", "l"]}, {"t": 3, "l": 3}) == {"a": {"t": [0, 1, 2], "l": [0, 1, 2]}}

    def test_a_partition_of_all_topics_goes_to_the_same_member(self) -> None:
        given = assign({member: ["t", "l"] for member in "cab"}, {"t": 8, "l": 8})
        assert given["a"] == {"t": [0, 3, 6], "l": [0, 3, 6]}
        assert given["b"] == {"t": [1, 4, 7], "l": [1, 4, 7]}
        assert given["c"] == {"t": [2, 5], "l": [2, 5]}

    def test_members_without_a_partition_get_none(self) -> None:
        assert assign({member: ["t"] for member in "abc"}, {"t": 2}) == {
            "a": {"t": [0]},
            "b": {"t": [1]},
            "c": {},
        }

    def test_topic_that_nobody_knows_yet_is_left_out(self) -> None:
        assert assign({"a": ["t", "new"]}, {"t": 1}) == {"a": {"t": [0]}}


class Positions:
    def __init__(self) -> None:
        self.at: dict[tuple[str, int], int] = {A: 10, B: 20}
        self.done: dict[tuple[str, int], int] = {}
        self.full: set[tuple[str, int]] = set()
        self.asked = 0
        self.released: list[set[tuple[str, int]]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        self.asked += 1
        await self.go.wait()
        return {tp: self.at[tp] for tp in partitions if tp in self.at}

    def processed(self, topic: str, partition: int) -> int | None:
        return self.done.get((topic, partition))

    def has_room(self, topic: str, partition: int) -> bool:
        return (topic, partition) not in self.full

    async def release(self, partitions: Iterable[tuple[str, int]]) -> None:
        await self.go.wait()
        self.released.append(set(partitions))


class Thread:
    """Stands in for Faust's: what it fetches is given, where it was sought is kept."""

    def __init__(self) -> None:
        self.assigned = {A, B}
        self.fetched: list[dict[Any, list[Record]]] = []
        self.wanted: list[set[TP]] = []
        self.timeouts: list[float] = []
        self.sought: dict[TP, int] = {}
        self.gone = False
        self.during_fetch: Any = None
        self.read: dict[TP, int] = {}
        self.ends: dict[TP, int] = {}

    def read_upto(self, partitions: set[TP]) -> dict[TP, int]:
        return {tp: offset for tp, offset in self.read.items() if tp in partitions}

    def highwater(self, tp: TP) -> int | None:
        return self.ends.get(tp)

    def assignment(self) -> set[TP]:
        return self.assigned

    async def getmany(self, active: set[TP], timeout: float) -> dict[Any, list[Record]]:
        self.wanted.append(active)
        self.timeouts.append(timeout)
        if self.during_fetch is not None:
            await self.during_fetch()
        return self.fetched.pop(0) if self.fetched else {}

    async def seek_wait(self, wanted: Mapping[TP, int]) -> None:
        if self.gone:
            raise IllegalStateError("No current assignment for partition")
        self.sought.update(wanted)


def records(tp: TP, *offsets: int) -> dict[Any, list[Record]]:
    # The client has a class of its own for partitions.
    return {
        TopicPartition(tp.topic, tp.partition): [
            Record(tp.topic, tp.partition, o, b"", None) for o in offsets
        ]
    }


@pytest.fixture
async def consumer() -> ChunkConsumer:
    app = create_faust_app(WorkerSettings())
    app.positions, app.fetch_wait_ms = Positions(), 20
    app.consumer_generation_id = 1
    made = app.consumer
    assert isinstance(made, ChunkConsumer)
    made._thread.thread_loop.close()
    made._thread = Thread()
    made._set_active_tps({A, B})
    return made


async def chunks(consumer: ChunkConsumer) -> list[Chunk]:
    return [chunk async for _, message in consumer.getmany(1.0) for chunk in message.value]


async def test_what_stands_behind_the_last_record_and_is_none_is_not_waited_for(
    consumer: ChunkConsumer,
) -> None:
    thread = consumer._thread
    await consumer.seek_to_stored({A})
    start = thread.sought[A]
    assert consumer.end(A.topic, A.partition) is None
    thread.ends[A] = start + 3
    assert consumer.end(A.topic, A.partition) == start + 3
    thread.fetched = [records(A, start, start + 1)]
    # The marker of a transaction is the third: the client is behind it when both records came.
    thread.read[A] = start + 3
    await chunks(consumer)
    assert consumer.delivered(A.topic, A.partition) == start + 2
    assert consumer.end(A.topic, A.partition) == start + 2
    thread.ends[A] = start + 4
    assert consumer.end(A.topic, A.partition) == start + 4, "something new came"
    await consumer.seek_to_stored({A})
    thread.ends[A] = start + 3
    assert consumer.end(A.topic, A.partition) == start + 3, "all of it is to be read again"


async def test_seek_goes_where_the_store_says(consumer: ChunkConsumer) -> None:
    assert await consumer.seek_to_committed() == {A: 10, B: 20}
    assert consumer._thread.sought == {A: 10, B: 20}
    assert consumer.seeks(*A) == 1
    assert consumer.delivered(*A) == 10


async def test_chunks_know_where_they_start(consumer: ChunkConsumer) -> None:
    await consumer.seek_to_committed()
    consumer._thread.fetched = [records(A, 10, 11), records(A, 12), records(A, 15, 16) | records(B, 20)]
    (first,), (second,), (third, other) = [await chunks(consumer) for _ in range(3)]

    assert [(c.after, c.next_offset) for c in (first, second, third)] == [(10, 12), (12, 13), (13, 17)]
    assert (other.partition, other.after, other.seek) == (1, 20, 1)
    assert consumer.delivered(*A) == 17


async def test_what_one_fetch_returned_of_a_topic_is_one_message(consumer: ChunkConsumer) -> None:
    consumer._set_active_tps({A, B, TP("labels", 0)})
    consumer._thread.assigned = {A, B, TP("labels", 0)}
    consumer.app.positions.at[TP("labels", 0)] = 3
    await consumer.seek_to_committed()
    consumer._thread.fetched = [records(A, 10) | records(TP("labels", 0), 3) | records(B, 20, 21)]
    messages = [message async for _, message in consumer.getmany(1.0)]
    assert [[(c.topic, c.partition, len(c.records)) for c in m.value] for m in messages] == [
        [(A.topic, 0, 1), (B.topic, 1, 2)],
        [("labels", 0, 1)],
    ]


async def test_every_partition_of_a_message_is_one_that_faust_commits(consumer: ChunkConsumer) -> None:
    await consumer.seek_to_committed()
    consumer._thread.fetched = [records(A, 10) | records(B, 20)]
    await chunks(consumer)
    assert set(consumer._filter_tps_with_pending_acks()) == {A, B}


async def test_message_carries_the_chunk_and_its_last_offset(consumer: ChunkConsumer) -> None:
    await consumer.seek_to_committed()
    consumer._thread.fetched = [records(A, 10, 11)]
    ((tp, message),) = [found async for found in consumer.getmany(1.0)]
    assert (tp, message.offset, message.generation_id) == (A, 11, 1)
    assert [type(chunk) for chunk in message.value] == [Chunk]


async def test_what_was_not_sought_is_not_fetched(consumer: ChunkConsumer) -> None:
    consumer._thread.fetched = [records(A, 0, 1)]
    assert await chunks(consumer) == []
    assert consumer._thread.wanted == []
    consumer.app.positions.at = {A: 0}
    await consumer.seek_to_committed()
    assert [c.after for c in await chunks(consumer)] == [0]
    assert consumer._thread.wanted == [{A}]


async def test_partition_without_room_is_not_fetched_and_looked_at_again_soon(
    consumer: ChunkConsumer,
) -> None:
    await consumer.seek_to_committed()
    consumer.app.positions.full = {A}
    await chunks(consumer)
    consumer.app.positions.full = {A, B}
    await chunks(consumer)
    consumer.app.positions.full = set()
    await chunks(consumer)

    assert consumer._thread.wanted == [{B}, {A, B}]
    assert consumer._thread.timeouts[0] < 0.1
    assert consumer._thread.timeouts[1] == 1.0


async def test_what_was_fetched_before_a_seek_is_dropped(consumer: ChunkConsumer) -> None:
    await consumer.seek_to_committed()
    positions = consumer.app.positions
    positions.go.clear()
    seeking = asyncio.create_task(consumer.seek_to_stored({A}))
    consumer._thread.during_fetch = lambda: asyncio.sleep(0)
    consumer._thread.fetched = [records(A, 10) | records(B, 20)]
    assert [(c.partition, c.after) for c in await chunks(consumer)] == [(1, 20)]
    positions.go.set()
    await seeking
    consumer._thread.fetched = [records(A, 10)]
    assert [(c.after, c.seek) for c in await chunks(consumer)] == [(10, 2)]


async def test_partition_taken_away_during_a_seek_is_no_error(consumer: ChunkConsumer) -> None:
    consumer._thread.assigned = {B}
    assert await consumer.seek_to_stored({A, B}) == {B: 20}
    consumer._thread.gone = True
    assert await consumer.seek_to_stored({B}) == {}
    assert consumer.delivered(*B) is None


async def test_recovery_is_not_kept_waiting_by_a_seek(consumer: ChunkConsumer) -> None:
    """Faust gives it 60 s, and when they have passed it handles no rebalance any more."""
    positions = consumer.app.positions
    positions.go.clear()
    await asyncio.wait_for(consumer.perform_seek(), 1)
    await asyncio.sleep(0)
    assert positions.asked == 1
    assert consumer.delivered(*A) is None
    positions.go.set()
    await consumer._seeking
    assert consumer.delivered(*A) == 10


async def test_a_new_rebalance_ends_the_seek_before(consumer: ChunkConsumer) -> None:
    positions = consumer.app.positions
    positions.go.clear()
    await consumer.perform_seek()
    await asyncio.sleep(0)
    first = consumer._seeking
    await consumer.perform_seek()
    await asyncio.sleep(0)
    assert first.done()
    positions.go.set()
    await consumer._seeking
    assert consumer.seeks(*A) == 1
    assert positions.asked == 2


async def test_revoked_partitions_are_not_sought_and_not_given_out(consumer: ChunkConsumer) -> None:
    """A lease taken after them would be taken from the new owner."""
    await consumer.seek_to_committed()
    positions = consumer.app.positions
    positions.go.clear()
    await consumer.perform_seek()
    await asyncio.sleep(0)
    seeking = consumer._seeking
    revoking = asyncio.create_task(consumer.on_partitions_revoked({A, B}))
    await asyncio.sleep(0.01)
    assert seeking.done()
    # The group waits for what was begun.
    assert not revoking.done()
    positions.go.set()
    await revoking
    assert positions.released == [{A, B}]
    consumer._thread.fetched = [records(A, 10)]
    consumer._set_active_tps({A, B})
    consumer.resume_flow()
    assert await chunks(consumer) == []
    assert positions.asked == 2


async def test_flow_that_stops_during_a_fetch_seeks_nothing(consumer: ChunkConsumer) -> None:
    await consumer.seek_to_committed()

    async def stop() -> None:
        consumer.flow_active = False

    consumer._thread.during_fetch = stop
    consumer._thread.fetched = [records(A, 10)]
    assert await chunks(consumer) == []
    await asyncio.sleep(0)
    assert consumer.app.positions.asked == 1


async def test_faust_forgets_what_it_delivered_so_that_a_seek_back_is_not_dropped(
    consumer: ChunkConsumer,
) -> None:
    await consumer.seek_to_committed()
    consumer._read_offset[A] = 5000
    consumer._thread.fetched = [records(A, 10)]
    async for tp, _ in consumer.getmany(1.0):
        assert consumer._read_offset[tp] is None


async def test_committed_is_what_the_store_has_and_not_what_was_acknowledged(consumer: ChunkConsumer) -> None:
    consumer._acked[A] = [11, 16]
    consumer._acked_index[A] = {11, 16}
    assert consumer._new_offset(A) is None
    consumer.app.positions.done = {A: 14}
    assert consumer._new_offset(A) == 14
    assert consumer._acked[A] == []
    assert consumer._acked_index[A] == set()


@pytest.mark.parametrize(
    "error", [CommitFailedError(), KafkaError("away"), OSError("away"), IllegalStateError("gone"), None]
)
async def test_commit_that_fails_ends_nothing(error: Exception | None) -> None:
    asked: list[Any] = []

    class Client:
        async def commit(self, offsets: Any) -> None:
            asked.append(offsets)
            if error is not None:
                raise error

    thread: Any = SimpleNamespace(
        assignment=lambda: {A}, _ensure_consumer=Client, log=SimpleNamespace(info=lambda *args: None)
    )
    assert await _ConsumerThread._commit(thread, {A: 5, B: 6}) is (error is None)
    assert [(tp, o.offset) for tp, o in asked[0].items()] == [(A, 5)]


async def test_broker_may_wait_less_while_records_come() -> None:
    fetcher = SimpleNamespace(_fetch_max_wait_ms=20)
    thread: Any = _ConsumerThread.__new__(_ConsumerThread)
    thread.app = SimpleNamespace(fetch_wait_ms=20)
    thread._consumer = SimpleNamespace(_fetcher=fetcher, _max_poll_records=10)
    found = [records(A, 1), {}, records(A, 2)]

    async def call_thread(*args: Any, **kwargs: Any) -> Any:
        return found.pop(0)

    thread.call_thread = call_thread
    waits = []
    for _ in range(3):
        await thread.getmany({A}, timeout=1.0)
        waits.append(fetcher._fetch_max_wait_ms)
    assert waits == [5, 20, 5]
    thread.app.fetch_wait_ms = 2
    found.append(records(A, 3))
    await thread.getmany({A}, timeout=1.0)
    assert fetcher._fetch_max_wait_ms == 2


async def test_what_ended_the_clients_tasks_is_raised(consumer: ChunkConsumer) -> None:
    loop = asyncio.get_running_loop()
    coordination, fetching = loop.create_future(), loop.create_future()
    coordinator = SimpleNamespace(_coordination_task=coordination, _pending_exception=None)
    client = SimpleNamespace(_coordinator=coordinator, _fetcher=SimpleNamespace(error_future=fetching))
    consumer._thread._ensure_consumer = lambda: client
    consumer.check()
    coordinator._pending_exception = KafkaError("not authorised")
    with pytest.raises(KafkaError, match="not authorised"):
        consumer.check()
    coordinator._pending_exception = None
    fetching.set_exception(KafkaError("fetches nothing"))
    with pytest.raises(KafkaError, match="fetches nothing"):
        consumer.check()


async def test_a_client_that_is_still_starting_is_no_failure(consumer: ChunkConsumer) -> None:
    def not_started() -> Any:
        raise ConsumerNotStarted

    consumer._thread.assignment = consumer._thread._ensure_consumer = not_started
    consumer.check()
    assert consumer.assignment() == set()
    client = SimpleNamespace(_coordinator=None, _fetcher=None)
    consumer._thread._ensure_consumer = lambda: client
    consumer.check()


def test_thread_does_not_outlive_the_process() -> None:
    assert _ConsumerThread.Worker(SimpleNamespace()).daemon


def test_brokers_of_the_settings_reach_faust() -> None:
    app = create_faust_app(WorkerSettings(bootstrap="a:9092, b:9093", group="g", chunk_records=7))
    assert [str(url) for url in app.conf.broker] == ["tidegate://a:9092", "tidegate://b:9093"]
    assert app.conf.id == "g"
    assert app.conf.broker_max_poll_records == 7
    assert not app.conf.web_enabled
    assert not app.conf.stream_wait_empty
