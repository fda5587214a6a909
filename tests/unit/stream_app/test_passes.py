"""Chunks of several partitions scored in one pass: what comes of each is what came of it alone."""

import asyncio
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.ports import Commit, Lease, Outcome
from infra.partitioning import partition_for
from models.pipeline import Models
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


async def run_together(stream: Stream, sizes: Iterable[int] = repeat(7)) -> None:
    """Hand over a chunk of each partition in one call, until there are no more."""
    wanted = iter(sizes)
    while chunks := _next_chunks(stream, [next(wanted, 7) for _ in range(PARTITIONS)]):
        await stream.worker.handle(chunks)


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
        await together.start()
        await run_together(together, sizes)
        await alone.start()
        await alone.run(topics=[T])
        assert not together.worker.failed.done()
        assert published(together) == published(alone)
        assert together.store.state() == alone.store.state()
        assert together.observer.outcomes == alone.observer.outcomes

    asyncio.run(compare())


async def test_a_pass_publishes_once_and_commits_each_partition(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(40)])
    await stream.start()
    calls = []
    publish = stream.publisher.publish

    async def counted(messages: Any, source: int) -> None:
        calls.append({m.partition for m in messages})
        await publish(messages, source)

    stream.publisher.publish = counted  # type: ignore[method-assign]
    await stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS))
    assert calls == [{0, 1, 2, 3}] * 2, "the first event of a day ends a part"
    assert scored_once(stream, 40)
    ends = [len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)]
    assert [stream.worker.processed(T, p) for p in range(PARTITIONS)] == ends


@pytest.mark.parametrize("outcome", [Outcome.FENCED, Outcome.ROLLED_BACK])
async def test_partition_that_is_not_ours_any_more_takes_no_other_with_it(
    models: Models, outcome: Outcome
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(60)])
    await stream.start()
    apply, acquired = stream.store.apply, stream.observer.leases["acquired"]

    async def one_fails(lease: Lease, commit: Commit) -> Outcome:
        if lease.partition == 2 and not commit.models:
            stream.store.apply = apply  # type: ignore[method-assign]
            return outcome
        return await apply(lease, commit)

    stream.store.apply = one_fails  # type: ignore[assignment, method-assign]
    await stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS))
    done = [stream.worker.processed(T, p) for p in (0, 1, 3)]
    assert done == [len(stream.kafka.logs[T, p]) for p in (0, 1, 3)]
    again = outcome is Outcome.ROLLED_BACK
    assert (stream.worker.processed(T, 2) is None) is not again
    assert stream.observer.leases["acquired"] == acquired + again
    await stream.start()
    await run_together(stream)
    assert scored_once(stream, 60)


async def test_dead_letters_of_each_partition_go_to_it(models: Models) -> None:
    stream = stream_of(models, [(n % 13, 1) for n in range(20)])
    for p in range(PARTITIONS):
        stream.kafka.put(T, p, b"not json")
    await stream.start()
    await run_together(stream, repeat(1000))
    letters = [stream.kafka.messages(DEAD_LETTERS.name, p) for p in range(PARTITIONS)]
    assert [[letter["source"]["partition"] for letter in mine] for mine in letters] == [[0], [1], [2], [3]]
    assert scored_once(stream, 20)


async def test_partition_that_is_taken_while_a_pass_waits_interrupts_all_and_nothing_is_lost(
    models: Models,
) -> None:
    stream = stream_of(models, [(n % 13, n) for n in range(40)])
    await stream.start()
    stream.publisher.failures = [(9, DependencyError("no broker"))] + [
        (0, DependencyError("no broker"))
    ] * 10_000
    handling = asyncio.create_task(stream.worker.handle(_next_chunks(stream, [1000] * PARTITIONS)))
    async with asyncio.timeout(5):
        while not stream.observer.retries["kafka"]:
            await asyncio.sleep(0)
    await stream.consumer.seek_to_stored({(T, 1)})
    await handling
    assert not stream.worker.failed.done()
    stream.publisher.failures = []
    await run_together(stream)

    scores = {m["transaction_id"]: orjson.dumps(m) for m in stream.kafka.messages("scores.fraud")}
    assert len(scores) == 40
    assert scored_once(stream, 40), "what was published before is not published again"
    assert [stream.worker.processed(T, p) for p in range(PARTITIONS)] == [
        len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)
    ]


@pytest.mark.parametrize("point", ["before-publish", "after-publish", "before-commit", "after-commit"])
@pytest.mark.parametrize("time", [1, 2, 3, 6])
async def test_crash_within_a_pass_changes_nothing(models: Models, point: str, time: int) -> None:
    events = [(n % 13, 2 * n) for n in range(80)]
    stream, undisturbed = stream_of(models, events), stream_of(models, events)
    await undisturbed.start()
    await run_together(undisturbed)
    reached = 0

    def crash(at: str) -> None:
        nonlocal reached
        reached += at == point
        if at == point and reached == time:
            raise Crash

    stream.crash = crash
    await stream.start()
    with pytest.raises(Crash):
        await run_together(stream)
    stream.crash = lambda at: None
    await stream.start()
    await run_together(stream)
    assert stream.store.state() == undisturbed.store.state()
    assert scored_once(stream, 80)
    assert published(stream)["scores.fraud", 0] == published(undisturbed)["scores.fraud", 0]
