import asyncio
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest

from features.codec import decode
from features.ports import Lease, Outcome
from models.model_set import Models
from schemas.errors import DependencyError, HistoryError
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from stream_app.ports import Outgoing
from tests.streaming import Consumer, Publisher, Stream, label, transaction

T, L = TRANSACTIONS.name, LABELS.name


async def until(condition: object) -> None:
    """Let other tasks run until it holds."""
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)


class TestTheStoreAnswers:
    async def test_fenced_worker_publishes_and_changes_nothing_more(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        await stream.run([10])
        old, old_consumer = stream.worker, stream.consumer
        stream.transact(10, first=10)
        late = old_consumer.fetch(T, 0)
        assert late is not None
        await stream.start()
        await old.handle([late])
        assert stream.observer.leases["fenced"] == 1
        assert old.processed(T, 0) is None
        before = len(stream.scored)
        await old.handle([late])
        assert len(stream.scored) == before
        stream.tail = False
        await stream.run()

        assert stream.worker.processed(T, 0) == 20
        assert {s for s in stream.scored} == {f"t-{n}" for n in range(20)}
        state = await stream.store.read("c-0")
        assert state is not None
        assert decode(state.history).totals.count == 7
        assert not old.failed.done()

    async def test_lost_reply_is_taken_for_applied(self, stream: Stream) -> None:
        stream.transact(10)
        stream.store.lost_replies = 1
        await stream.start()
        await stream.run([5])

        assert stream.observer.leases["already_applied"] == 1
        assert stream.scored == [f"t-{n}" for n in range(10)]
        states = [await stream.store.read(f"c-{n}") for n in range(3)]
        assert sum(decode(s.history).totals.count for s in states if s) == 10

    async def test_lost_replies_anywhere_leave_the_same_state(self, stream: Stream, models: Models) -> None:
        other = Stream(models)
        for s in (stream, other):
            s.transact(60)
            s.store.lost_replies = 100 if s is stream else 0
            await s.start()
            await s.run([9, 9, 9])

        assert stream.store.state() == other.store.state()

    async def test_store_that_lost_writes_is_followed_back(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        await stream.run([5])
        saved = deepcopy(stream.store._partitions)
        stream.transact(10, first=10)
        await stream.run([5])
        after = stream.store.state()

        # Redis came back from an older file: everything of it, the epoch too, is what it was.
        restore(stream, saved)
        stream.transact(1, first=20)
        await stream.run()

        assert stream.observer.leases["rolled_back"] == 1
        assert stream.worker.processed(T, 0) == 21
        assert stream.scored == [f"t-{n}" for n in range(21)]
        assert stream.store.state()[0][3].keys() == after[0][3].keys()
        state = await stream.store.read("c-0")
        assert state is not None
        assert decode(state.history).totals.count == 7

    async def test_histories_of_a_store_that_went_back_score_nothing(self, stream: Stream) -> None:
        """The customer is not cached, so nothing but the store says what came before."""
        stream.transact(10)
        await stream.start()
        await stream.run([5])
        saved = deepcopy(stream.store._partitions)
        stream.transact(10, first=10)
        await stream.run([5])
        restore(stream, saved)
        stream.worker._partition(0).arena.clear()
        stream.transact(3, first=20)
        await stream.run()

        assert stream.observer.leases["rolled_back"] == 1
        other = Stream(stream.models)
        other.transact(23)
        await other.start()
        await other.run([5])
        scores = [s.kafka.messages("scores.fraud") for s in (stream, other)]
        assert scores[0] == scores[1]

    async def test_worker_that_lost_the_partition_does_not_take_what_came_after_for_what_came_before(
        self, stream: Stream
    ) -> None:
        """It stood still between its lease and its first look at the histories."""
        stream.transact(10)
        zombie = await stream.start()
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        await stream.start()
        await stream.run()
        published = {tp: list(log) for tp, log in stream.kafka.logs.items()}
        await zombie.handle([chunk])

        assert stream.dead == []
        assert dict(stream.kafka.logs) == published
        assert stream.observer.leases["fenced"] == 1
        assert not zombie.failed.done()

    async def test_emptied_store_with_a_commit_ends_the_worker(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        await stream.run([5])
        stream.kafka.committed[T, 0] = 10
        stream.store._partitions.clear()
        stream.transact(1, first=10)
        await stream.run()

        assert isinstance(stream.worker.failed.result(), HistoryError)
        assert "histories were lost" in str(stream.worker.failed.result())

    async def test_dependencies_that_fail_for_a_while_are_waited_for(self, stream: Stream) -> None:
        stream.transact(10)
        stream.consumer.failures = [DependencyError("no broker")]
        await stream.start()
        stream.store.failures = [DependencyError("no redis")] * 5
        stream.publisher.failures = [(0, DependencyError("no broker"))] * 3
        await stream.run([3])

        assert stream.scored == [f"t-{n}" for n in range(10)]
        assert stream.observer.retries["redis"] == 5
        assert stream.observer.retries["kafka"] >= 3

    async def test_dependency_that_stays_away_ends_the_worker(self, models: Models) -> None:
        stream = Stream(models, give_up_s=0.02)
        stream.transact(3)
        await stream.start()
        stream.store.failures = [DependencyError("no redis")] * 10_000
        await stream.run()

        assert isinstance(stream.worker.failed.result(), DependencyError)
        assert stream.worker.processed(T, 0) is None

    async def test_unexpected_error_ends_the_worker_and_not_the_agent(self, stream: Stream) -> None:
        stream.transact(3)
        await stream.start()
        stream.store.failures = [ZeroDivisionError("a bug")]
        await stream.run()

        assert isinstance(stream.worker.failed.result(), ZeroDivisionError)

    async def test_unexpected_error_while_taking_leases_ends_the_worker(self, stream: Stream) -> None:
        stream.store.failures = [ZeroDivisionError("a bug")]
        await stream.start()

        assert isinstance(stream.worker.failed.result(), ZeroDivisionError)
        assert stream.consumer.next == {}


def restore(stream: Stream, saved: dict[int, Any]) -> None:
    """Put the store back to an earlier state, but for who holds the lease."""
    now, then = stream.store._partitions[0], deepcopy(saved[0])
    then.epoch, then.owner = now.epoch, now.owner
    stream.store._partitions[0] = then


class _Held(Publisher):
    """Publishes when let go."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.kafka)
        self.go = asyncio.Event()
        self.waiting = 0

    async def publish(self, messages: Sequence[Outgoing], source: int) -> None:
        self.waiting += 1
        await self.go.wait()
        await super().publish(messages, source)


class TestLeasesWhileChunksAreUnderWay:
    async def test_lease_is_not_taken_from_under_a_chunk(self, stream: Stream) -> None:
        stream.transact(4)
        await stream.start()
        held = stream.worker._delivery.publisher = _Held(stream)
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        handling = asyncio.create_task(stream.worker.handle([chunk]))
        await until(lambda: held.waiting)
        taking = asyncio.create_task(stream.consumer.seek_to_stored(set(stream.consumer.given)))
        await asyncio.sleep(0.01)
        assert not taking.done()
        held.go.set()
        await asyncio.gather(handling, taking)
        await stream.run()

        assert stream.scored == [f"t-{n}" for n in range(4)]
        assert stream.consumer.next[T, 0] == 4
        assert stream.observer.leases["fenced"] == 0

    async def test_chunk_that_waits_for_a_dependency_lets_go(self, stream: Stream) -> None:
        stream.transact(4)
        await stream.start()
        stream.publisher.failures = [(0, DependencyError("no broker"))] * 10_000
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        handling = asyncio.create_task(stream.worker.handle([chunk]))
        await until(lambda: stream.observer.retries["kafka"])
        await stream.consumer.seek_to_stored(set(stream.consumer.given))
        await handling
        assert stream.scored == []
        stream.publisher.failures = []
        await stream.run()

        assert stream.scored == [f"t-{n}" for n in range(4)]
        assert not stream.worker.failed.done()

    async def test_labels_that_let_go_do_not_drop_the_new_lease(self, stream: Stream) -> None:
        """They wait without the lock, so the new lease may have begun when they hear of it."""
        stream.transact(4)
        stream.kafka.put(L, 0, label("t-1", customer="c-1"))
        await stream.start()
        stream.consumer.failures = [DependencyError("no broker")]
        stream.worker._delivery.retry.first_s = stream.worker._delivery.retry.most_s = 60.0
        chunk = stream.consumer.fetch(L, 0)
        assert chunk is not None
        handling = asyncio.create_task(stream.worker.handle([chunk]))
        await until(lambda: stream.observer.retries["kafka"])
        await asyncio.sleep(0.01)  # into its pause
        await stream.consumer.seek_to_stored(set(stream.consumer.given))
        await handling
        await stream.run()

        assert stream.worker.processed(T, 0) == 4
        assert stream.worker.processed(L, 0) == 1
        assert stream.scored == [f"t-{n}" for n in range(4)]

    async def test_interrupted_lease_leaves_nothing_half_taken(self, stream: Stream) -> None:
        stream.transact(4)
        await stream.start()
        stream.consumer.failures = [DependencyError("no broker")] * 10_000
        taking = asyncio.create_task(stream.consumer.seek_to_stored(set(stream.consumer.given)))
        await until(lambda: stream.observer.retries["kafka"] > 3)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert stream.worker.reached(T, 0) is None
        stream.consumer.failures = []
        await stream.consumer.seek_to_stored(set(stream.consumer.given))
        await stream.run()

        assert stream.scored == [f"t-{n}" for n in range(4)]

    async def test_end_of_the_log_is_asked_behind_the_lease(self, stream: Stream) -> None:
        """The owner before may process what came after an end that was asked for first."""
        stream.transact(4)
        await stream.start()
        await stream.run()
        acquire = stream.store.acquire

        async def acquire_late(partition: int) -> Lease:
            if old := stream.consumer.fetch(T, 0):
                await old_worker.handle([old])
            return await acquire(partition)

        old_worker = stream.worker
        new_consumer = Consumer(stream.kafka, 1)
        new = new_consumer.worker = stream.new_worker(new_consumer)
        stream.store.acquire = acquire_late  # type: ignore[method-assign]
        asked = new_consumer.ranges

        async def ranges(partitions: object) -> object:
            found = await asked(partitions)  # type: ignore[arg-type]
            stream.transact(1, first=len(stream.kafka.logs[T, 0]))
            return found

        new_consumer.ranges = ranges  # type: ignore[assignment, method-assign]
        await new_consumer.seek_to_stored(set(new_consumer.given))

        assert not new.failed.done()


class TestGivingPartitionsUp:
    async def test_what_was_begun_ends_before_and_nothing_is_begun_after(self, stream: Stream) -> None:
        stream.transact(8)
        await stream.start()
        held = stream.worker._delivery.publisher = _Held(stream)
        for _ in range(2):
            chunk = stream.consumer.fetch(T, 0, 4)
            assert chunk is not None
            stream.worker.submit(chunk)
            await until(lambda: held.waiting)
        releasing = asyncio.create_task(stream.worker.release({(T, 0), (L, 0)}))
        await asyncio.sleep(0.01)
        assert not releasing.done()
        held.go.set()
        await releasing
        await until(lambda: stream.worker.lanes.is_idle(T, 0))

        assert stream.scored == [f"t-{n}" for n in range(4)]
        assert stream.store.state()[0][0] == {T: 4}
        assert stream.worker.reached(T, 0) is None

        await stream.start()
        await stream.run()
        assert stream.scored == [f"t-{n}" for n in range(8)]

    async def test_a_dependency_that_is_away_is_not_waited_for(self, stream: Stream) -> None:
        stream.transact(1)
        await stream.start()
        stream.store.failures = [DependencyError("no redis")] * 100_000
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        stream.worker.submit(chunk)
        await until(lambda: stream.observer.retries["redis"] > 3)

        async with asyncio.timeout(1):
            await stream.worker.release({(T, 0)})
        assert not stream.worker.failed.done()
        assert stream.scored == []

    async def test_the_group_is_not_kept_waiting(
        self, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stream_app.worker._RELEASE_S", 0.02)
        stream.transact(1)
        await stream.start()
        held = stream.worker._delivery.publisher = _Held(stream)
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        stream.worker.submit(chunk)
        await until(lambda: held.waiting)
        await stream.worker.release({(T, 0)})
        assert stream.scored == []
        held.go.set()
        await stream.worker.lanes.close()


class TestStopping:
    async def test_drain_waits_for_what_is_under_way_and_takes_nothing_more(self, stream: Stream) -> None:
        stream.transact(8)
        await stream.start()
        held = stream.worker._delivery.publisher = _Held(stream)
        chunk = stream.consumer.fetch(T, 0, 4)
        assert chunk is not None
        stream.worker.submit(chunk)
        await until(lambda: held.waiting)
        draining = asyncio.create_task(stream.worker.drain(5))
        await asyncio.sleep(0.01)
        assert not draining.done()
        held.go.set()
        assert await draining
        await stream.run()
        await stream.worker.lanes.close()

        assert stream.scored == [f"t-{n}" for n in range(4)]
        assert stream.store.state()[0][0] == {T: 4}

    async def test_drain_gives_up_after_its_limit(self, stream: Stream) -> None:
        stream.transact(1)
        await stream.start()
        held = stream.worker._delivery.publisher = _Held(stream)
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        stream.worker.submit(chunk)
        await until(lambda: held.waiting)

        assert not await stream.worker.drain(0.02)
        await stream.worker.lanes.close()
        assert stream.worker.reached(T, 0) is None

    async def test_drain_does_not_wait_for_a_dependency_that_is_away(self, stream: Stream) -> None:
        stream.transact(1)
        await stream.start()
        stream.store.failures = [DependencyError("no redis")] * 100_000
        chunk = stream.consumer.fetch(T, 0)
        assert chunk is not None
        stream.worker.submit(chunk)
        await until(lambda: stream.observer.retries["redis"] > 3)

        async with asyncio.timeout(1):
            assert await stream.worker.drain(60)
        assert not stream.worker.failed.done()
        assert stream.scored == []

    async def test_stop_while_leases_are_taken(self, stream: Stream) -> None:
        stream.store.failures = [DependencyError("no redis")] * 100_000
        starting = asyncio.create_task(stream.start())
        await until(lambda: stream.observer.retries["redis"] > 3)
        async with asyncio.timeout(1):
            assert await stream.worker.drain(60)
            await starting

        assert stream.consumer.next == {}
        assert not stream.worker.failed.done()


async def test_what_is_committed_to_kafka_is_what_the_store_has(stream: Stream) -> None:
    """A chunk that was dropped is no progress: a commit for it would look like lost state at a start."""
    stream.transact(4)
    await stream.start()
    assert stream.worker.processed(T, 0) is None
    stream.publisher.failures = [(0, ZeroDivisionError("a bug"))]
    await stream.run()
    assert stream.worker.processed(T, 0) is None

    await stream.start()
    await stream.run()
    assert stream.worker.processed(T, 0) == 4
    assert stream.worker.processed(L, 0) is None


async def test_partitions_go_on_side_by_side(models: Models) -> None:
    stream = Stream(models, partitions=4, misplaced=True)
    for p in range(4):
        for n in range(40):
            stream.kafka.put(T, p, transaction(n, customer=f"customer-{n}"))
    await stream.start()
    held = stream.worker._delivery.publisher = _Held(stream)
    # As large as a chunk may be: each a pass of its own.
    stream.worker.lanes._chunk_records = 10
    for p in range(4):
        chunk = stream.consumer.fetch(T, p, 10)
        assert chunk is not None
        stream.worker.submit(chunk)
    await until(lambda: held.waiting == 4)
    assert all(stream.worker.is_busy(T, p) for p in range(4))
    held.go.set()
    await until(lambda: not any(stream.worker.is_busy(T, p) for p in range(4)))
    stream.worker._delivery.publisher = stream.publisher
    await stream.run()

    # Each message stands in all four partitions: three were passed on, and one was the first.
    assert sorted(stream.scored, key=lambda i: int(i[2:])) == [f"t-{n}" for n in range(40)]


async def test_rolled_back_partition_that_is_gone_meanwhile_does_not_end_the_worker(stream: Stream) -> None:
    stream.transact(4)
    await stream.start()
    chunk = stream.consumer.fetch(T, 0, 2)
    assert chunk is not None
    applied = stream.store.apply

    async def apply(lease: Lease, commit: object) -> Outcome:
        return Outcome.ROLLED_BACK

    stream.store.apply = apply  # type: ignore[assignment, method-assign]

    async def seek(partitions: object) -> None: ...

    stream.consumer.seek_to_stored = seek  # type: ignore[assignment, method-assign]
    await stream.worker.handle([chunk])

    assert applied is not None
    assert stream.worker.reached(T, 0) is None
    assert not stream.worker.failed.done()


async def test_is_behind_where_records_are_left_and_not_where_only_markers_are(stream: Stream) -> None:
    stream.transact(4)
    await stream.start()
    assert await stream.worker.is_behind([(T, 0)]) == {(T, 0): True}
    await stream.run()
    assert await stream.worker.is_behind([(T, 0)]) == {(T, 0): False}
    stream.kafka.logs[T, 0].append(None)
    assert await stream.worker.is_behind([(T, 0)]) == {(T, 0): False}
    stream.transact(1, first=4)
    stream.consumer.fetch(T, 0)
    assert await stream.worker.is_behind([(T, 0)]) == {(T, 0): True}


async def test_scores_of_one_customer_stay_in_order_when_chunks_wait(stream: Stream) -> None:
    stream.transact(30, customers=2)
    await stream.start()
    while (chunk := stream.consumer.fetch(T, 0, 3)) is not None:
        stream.worker.submit(chunk)
    await until(lambda: stream.worker.lanes.is_idle(T, 0))

    scores = stream.kafka.messages(FRAUD_SCORES.name)
    assert [s["transaction_id"] for s in scores] == [f"t-{n}" for n in range(30)]
