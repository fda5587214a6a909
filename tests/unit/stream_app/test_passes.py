"""Chunks of several partitions scored in one pass: what comes of each is what came of it alone."""

import asyncio
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.ports import Commit, Lease, LeaseLost, Outcome
from infra.partitioning import partition_for
from models.model_set import Models
from schemas.errors import DependencyError
from schemas.topics import DEAD_LETTERS, TRANSACTIONS
from stream_app.transport import Chunk
from tests.examples import examples
from tests.streaming import START_MS, Crash, Stream, transaction

T, PARTITIONS = TRANSACTIONS.name, 4


def stream_of(models: Models, events: Iterable[tuple[int, int]]) -> Stream:
    """Transactions `(customer, hour)`, each in the partition of its customer."""
    stream = Stream(models, partitions=PARTITIONS, misplaced=True)
    for n, (who, hour) in enumerate(events):
        customer = f"customer-{who}"
        message = transaction(n, customer=customer, event_time=START_MS + hour * 3_600_000)
        stream.kafka.put(T, partition_for(customer, PARTITIONS), message, customer.encode())
    return stream


async def start(stream: Stream) -> None:
    """A worker that has looked for erasures: until then each partition is handled alone."""
    worker = await stream.start()
    for number in range(PARTITIONS):
        assert await worker.steps.erasures.ready(worker._partition(number))


async def gone_back(stream: Stream) -> None:
    """Until every partition that goes back is where the store is."""
    async with asyncio.timeout(60):
        while stream.worker._going_back:
            await asyncio.sleep(0)


async def waiting_for_the_store(stream: Stream) -> asyncio.Task[None]:
    """A pass of all partitions under way, which waits for a store that is away."""
    handling = asyncio.create_task(stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS)))
    async with asyncio.timeout(60):
        while not stream.observer.retries["redis"]:
            await asyncio.sleep(0)
    return handling


async def run_together(stream: Stream, sizes: Iterable[int] = repeat(7)) -> None:
    """Hand over a chunk of each partition in one call, until there are no more."""
    wanted = iter(sizes)
    while chunks := _next_chunks(stream, [next(wanted, 7) for _ in range(PARTITIONS)]):
        await stream.worker.handle(chunks)
        await gone_back(stream)


def _next_chunks(stream: Stream, sizes: list[int]) -> list[Chunk]:
    fetched = [stream.consumer.fetch(T, p, most) for p, most in enumerate(sizes)]
    return [chunk for chunk in fetched if chunk is not None]


def published(stream: Stream) -> dict[tuple[str, int], list[Any]]:
    """What stands on each output topic and partition, in its order."""
    return {
        tp: [(m.key, m.value) for m in log if m is not None]
        for tp, log in stream.kafka.logs.items()
        if tp[0] != T
    }


def scored_once(stream: Stream, count: int) -> bool:
    return sorted(stream.scored) == sorted(f"t-{n}" for n in range(count))


@settings(examples(40), deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 80)), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 12), max_size=20),
)
def test_what_is_scored_together_is_what_is_scored_alone(models, events, sizes):
    async def compare() -> None:
        together, alone = stream_of(models, events), stream_of(models, events)
        await start(together)
        await run_together(together, sizes)
        await alone.start()
        await alone.run(topics=[T])
        assert not together.worker.failed.done()
        assert published(together) == published(alone)
        assert together.store.state() == alone.store.state()
        assert together.observer.outcomes == alone.observer.outcomes

    asyncio.run(compare())


async def test_a_pass_commits_all_its_partitions_at_once_behind_what_it_published(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(40)])
    await start(stream)
    steps: list[object] = []
    publish, apply_all = stream.publisher.publish, stream.store.apply_all

    async def published(messages: Any, source: int) -> None:
        assert {m.partition for m in messages} == {source}
        await publish(messages, source)
        steps.append(source)

    async def applied(commits: Any) -> Any:
        if not commits[0][1].models:
            steps.append([lease.partition for lease, _ in commits])
        return await apply_all(commits)

    stream.publisher.publish = published  # type: ignore[method-assign]
    stream.store.apply_all = applied  # type: ignore[method-assign]
    await stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS))
    together = [0, 1, 2, 3, [0, 1, 2, 3]]
    # The first event of a day ends a part, and a sweep of each partition follows.
    assert steps == [*together, [0], [1], [2], [3], *together]
    assert scored_once(stream, 40)
    ends = [len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)]
    assert [stream.worker.processed(T, p) for p in range(PARTITIONS)] == ends


async def test_partition_whose_messages_kafka_does_not_take_is_tried_alone_and_holds_up_no_other(
    models: Models,
) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(60)])
    await start(stream)
    publish, refused = stream.publisher.publish, 0

    async def one_refused(messages: Any, source: int) -> None:
        nonlocal refused
        if source == 1 and refused < 5:
            refused += 1
            raise DependencyError("no leader")
        await publish(messages, source)

    stream.publisher.publish = one_refused  # type: ignore[method-assign]
    chunks = _next_chunks(stream, [1000] * PARTITIONS)
    await stream.worker.handle(chunks)
    ends = [len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)]
    assert [stream.worker.processed(T, p) for p in (0, 2, 3)] == [ends[p] for p in (0, 2, 3)]
    assert refused == 1
    await gone_back(stream)
    assert stream.observer.outcomes["scored"] == 60 - ends[1]
    # As a label of the partition does, which comes before its transactions.
    assert await stream.worker.steps.erasures.ready(stream.worker._partition(1))
    assert stream.worker._look(chunks[0]).alone is False
    assert stream.worker._look(chunks[1]).alone is True
    await run_together(stream)
    assert refused == 5
    assert stream.worker._look(chunks[1]).alone is False
    assert scored_once(stream, 60), "nothing is published again"
    assert stream.observer.outcomes["scored"] == 60


async def test_partition_that_cannot_go_back_holds_up_no_other(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(60)])
    await start(stream)
    publish, published_upto, away = stream.publisher.publish, stream.worker._published_upto, True

    async def no_leader(messages: Any, source: int) -> None:
        if source == 1 and away:
            raise DependencyError("no leader")
        await publish(messages, source)

    async def no_tail(partition: int, stored: int) -> tuple[int, bool]:
        if partition == 1 and away:
            raise DependencyError("no leader")
        return await published_upto(partition, stored)

    stream.publisher.publish = no_leader  # type: ignore[method-assign]
    stream.worker._published_upto = no_tail
    async with asyncio.timeout(60):
        while chunks := _next_chunks(stream, [3] * PARTITIONS):
            await stream.worker.handle(chunks)
    ends = [len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)]
    assert [stream.worker.processed(T, p) for p in (0, 2, 3)] == [ends[p] for p in (0, 2, 3)]
    assert stream.worker.processed(T, 1) is None
    away = False
    await gone_back(stream)
    await run_together(stream)
    assert scored_once(stream, 60)


@pytest.mark.parametrize("where", ["load", "publish"])
async def test_lease_that_was_lost_in_the_part_that_is_interrupted_is_not_taken_back(
    models: Models, where: str
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(60)])
    await start(stream)
    apply_all, publish, load = stream.store.apply_all, stream.publisher.publish, stream.store.load

    async def no_store(commits: Any) -> Any:
        if len(commits) > 1:
            raise DependencyError("no store")
        return await apply_all(commits)

    async def load_lost(partition: int, customers: Any, lease: Lease | None = None) -> Any:
        if where == "load" and partition == 2:
            raise LeaseLost("partition 2")
        return await load(partition, customers, lease)

    async def publish_lost(messages: Any, source: int) -> None:
        if where == "publish" and source == 2:
            raise LeaseLost("partition 2")
        await publish(messages, source)

    stream.store.apply_all, stream.store.load = no_store, load_lost  # type: ignore[method-assign]
    stream.publisher.publish = publish_lost  # type: ignore[method-assign]
    handling = await waiting_for_the_store(stream)
    stream.worker._partition(1).interrupted.set()
    await handling
    stream.store.apply_all = apply_all  # type: ignore[method-assign]
    await gone_back(stream)
    assert [stream.worker.reached(T, p) is not None for p in range(PARTITIONS)] == [True, False, False, True]


async def test_pass_does_not_wait_for_a_partition_that_is_locked(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(60)])
    await start(stream)
    ends = [len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)]
    async with stream.worker._partition(3).lock:
        handling = asyncio.create_task(stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS)))
        async with asyncio.timeout(60):
            while [stream.worker.processed(T, p) for p in range(3)] != ends[:3]:
                await asyncio.sleep(0)
        assert not handling.done()
    await handling
    assert scored_once(stream, 60)


@pytest.mark.parametrize("outcome", [Outcome.FENCED, Outcome.ROLLED_BACK])
async def test_partition_that_is_not_ours_any_more_takes_no_other_with_it(
    models: Models, outcome: Outcome
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(60)])
    await start(stream)
    apply, acquired = stream.store.apply, stream.observer.leases["acquired"]

    async def one_fails(lease: Lease, commit: Commit) -> Outcome:
        if lease.partition == 2 and not commit.models:
            stream.store.apply = apply  # type: ignore[method-assign]
            return outcome
        return await apply(lease, commit)

    stream.store.apply = one_fails  # type: ignore[assignment, method-assign]
    await stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS))
    await gone_back(stream)
    done = [stream.worker.processed(T, p) for p in (0, 1, 3)]
    assert done == [len(stream.kafka.logs[T, p]) for p in (0, 1, 3)]
    again = outcome is Outcome.ROLLED_BACK
    assert (stream.worker.processed(T, 2) is None) is not again
    assert stream.observer.leases["acquired"] == acquired + again
    await start(stream)
    await run_together(stream)
    assert scored_once(stream, 60)


async def test_dead_letters_of_each_partition_go_to_it(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(20)])
    for p in range(PARTITIONS):
        stream.kafka.put(T, p, b"not json")
    await start(stream)
    await run_together(stream, repeat(1000))
    letters = [stream.kafka.messages(DEAD_LETTERS.name, p) for p in range(PARTITIONS)]
    assert [[letter["source"]["partition"] for letter in mine] for mine in letters] == [[0], [1], [2], [3]]
    assert scored_once(stream, 20)


async def test_partition_that_is_taken_while_a_pass_waits_interrupts_all_and_nothing_is_lost(
    models: Models,
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(40)])
    await start(stream)
    apply_all, away = stream.store.apply_all, True

    async def apply_if_there(commits: Any) -> Any:
        if away and len(commits) > 1:
            raise DependencyError("no store")
        return await apply_all(commits)

    stream.store.apply_all = apply_if_there  # type: ignore[method-assign]
    acquired = stream.observer.leases["acquired"]
    handling = await waiting_for_the_store(stream)
    await stream.consumer.seek_to_stored({(T, 1)})
    await handling
    await gone_back(stream)
    assert stream.observer.leases["acquired"] == acquired + PARTITIONS
    away = False
    await run_together(stream)

    assert not stream.worker.failed.done()
    assert scored_once(stream, 40), "what was published before is not published again"
    assert [stream.worker.processed(T, p) for p in range(PARTITIONS)] == [
        len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)
    ]


async def test_lease_that_was_lost_is_not_taken_back_because_another_member_was_interrupted(
    models: Models,
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(60)])
    await start(stream)
    apply_all = stream.store.apply_all
    passes = 0

    async def lose_and_go_away(commits: Any) -> Any:
        nonlocal passes
        if len(commits) > 1:
            passes += 1
            if passes > 1:
                raise DependencyError("no store")
            await stream.store.acquire(2)
        return await apply_all(commits)

    stream.store.apply_all = lose_and_go_away  # type: ignore[method-assign]
    handling = await waiting_for_the_store(stream)
    stream.worker._partition(1).interrupted.set()
    await handling
    stream.store.apply_all = apply_all  # type: ignore[method-assign]
    await gone_back(stream)
    assert stream.observer.leases["fenced"] == 1
    assert stream.worker.reached(T, 2) is None, "it is somebody else's"
    assert stream.worker.reached(T, 0) is not None
    assert stream.worker.reached(T, 3) is not None


@pytest.mark.parametrize("point", ["before-publish", "after-publish", "before-commit", "after-commit"])
@pytest.mark.parametrize("time", [1, 2, 3, 6])
async def test_crash_within_a_pass_changes_nothing(models: Models, point: str, time: int) -> None:
    events = [(n % 13, 2 * n) for n in range(80)]
    stream, undisturbed = stream_of(models, events), stream_of(models, events)
    await start(undisturbed)
    await run_together(undisturbed)
    reached = 0

    def crash(at: str) -> None:
        nonlocal reached
        reached += at == point
        if at == point and reached == time:
            raise Crash

    stream.crash = crash
    await start(stream)
    with pytest.raises(Crash):
        await run_together(stream)
    stream.crash = lambda at: None
    await start(stream)
    await run_together(stream)
    assert stream.store.state() == undisturbed.store.state()
    assert scored_once(stream, 80)
    assert published(stream)["scores.fraud", 0] == published(undisturbed)["scores.fraud", 0]
