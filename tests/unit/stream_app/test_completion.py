"""From when on histories are said to be complete."""

import asyncio

from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from tests.streaming import Stream

T = TRANSACTIONS.name


async def settled(stream: Stream) -> bool:
    """Whether histories are still being built, once nothing moves any more."""
    for _ in range(50):
        await asyncio.sleep(0)
    return stream.store.is_building()


async def test_histories_are_complete_once_the_log_of_the_start_is_processed(stream: Stream) -> None:
    stream.transact(10)
    await stream.start()
    for _ in range(2):
        chunk = stream.consumer.fetch(T, 0, 4)
        assert chunk is not None
        await stream.worker.handle([chunk])
        assert await settled(stream)
    # What came meanwhile is a lag like any other.
    stream.transact(5, first=10)
    chunk = stream.consumer.fetch(T, 0, 4)
    assert chunk is not None
    await stream.worker.handle([chunk])
    assert not await settled(stream)


async def test_an_empty_log_has_complete_histories(stream: Stream) -> None:
    await stream.start()
    assert not await settled(stream)


async def test_whoever_takes_over_goes_on_until_they_are_complete(stream: Stream) -> None:
    stream.transact(10)
    await stream.start()
    chunk = stream.consumer.fetch(T, 0, 4)
    assert chunk is not None
    await stream.worker.handle([chunk])
    await stream.worker.drain(1)
    await stream.start()
    assert await settled(stream)
    await stream.run()
    assert not await settled(stream)
    assert len(stream.kafka.messages(FRAUD_SCORES.name)) == 10


async def test_a_store_that_was_emptied_is_not_complete(stream: Stream) -> None:
    stream.transact(10)
    await stream.start()
    await stream.run()
    assert not await settled(stream)
    stream.store._partitions.clear()
    stream.transact(5, first=10)
    await stream.start()
    assert await settled(stream)
