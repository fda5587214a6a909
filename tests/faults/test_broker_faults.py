"""Kafka dies, stands still, loses one of three brokers, and gets a partition more."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from schemas.topics import TOPICS
from tests.faults.world import PARTITIONS, START_S

PAUSE_S = 10
pytestmark = pytest.mark.faults


@pytest.mark.short
async def test_broker_killed(world):
    if not world.kafka:
        pytest.skip("the embedded broker keeps nothing")
    async with world.load() as faults:
        for _ in range(2):
            world.broker.kill()
            faults.injected += 1
            await asyncio.to_thread(world.broker.start, START_S)
            await world.resumed(faults)
    await world.finish("broker killed, back with its log", faults)


@pytest.mark.short
async def test_broker_paused(world):
    async with world.load() as faults:
        world.broker.pause()
        faults.injected += 1
        await asyncio.sleep(PAUSE_S)
        world.broker.resume()
        await world.resumed(faults)
    faults.note = f"for {PAUSE_S} s"
    await world.finish("broker paused", faults)


async def test_one_of_three_brokers_killed(new_world):
    world = new_world(brokers=3)
    async with world.load() as faults:
        for node in world.broker.nodes[:2]:
            node.kill()
            faults.injected += 1
            # With it away.
            await world.resumed(faults)
            await asyncio.to_thread(node.start, START_S)
            await world.resumed(faults)
    await world.finish("one of three brokers killed", faults)


async def test_partition_added(new_world):
    world = new_world()
    async with world.load() as faults:
        await world.committed()
    await world.drained()
    admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions(
            {topic.name: NewPartitions(total_count=PARTITIONS + 1) for topic in TOPICS}
        )
    finally:
        await admin.close()
    faults.injected += 1
    late = world.worker()
    await asyncio.gather(asyncio.to_thread(late.start, 180), return_exceptions=True)
    await world.until(lambda: not late.running, 180, "refusal")
    assert late.exit_code == 3
    (refusal,) = [line for line in late.lines() if line["level"] == "error"]
    assert "4 partitions, the topic now has 5" in refusal["error"]
    assert "tidegate rebuild" in refusal["error"]
    # Nor do those go on that were running.
    for worker in world.workers:
        await world.until(lambda worker=worker: not worker.running, 90, "the end of a worker that ran")
        assert worker.exit_code == 3
    await world.no_members()
    assert await asyncio.to_thread(world.tidegate, "rebuild", "--yes") == 0
    world.partitions = PARTITIONS + 1
    await world.workers_running()
    # Events of customers who belong elsewhere now are passed on: the log grows while it is read.
    await world.drained()
    faults.note = "refused, with the instruction to rebuild; rebuilt"
    await world.finish("partition added", faults, moved=True)
