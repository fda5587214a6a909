"""With Kafka transactions, readers of committed messages see each score exactly once."""

import asyncio

import pytest

from tests.faults.world import POINTS, SESSION_S, START_S

pytestmark = pytest.mark.faults


@pytest.mark.short
async def test_readers_of_committed_messages_see_each_score_once(new_world, short):
    world = new_world(settings={"transactions": True})
    async with world.load(workers=2) as faults:
        for points in (POINTS[:2], POINTS[2:]):
            await world.die_at(points, faults)
        await world.workers_running(2)
        await world.kill_at_random(1 if short else 6, faults)
        zombie = world.workers[0]
        zombie.pause()
        faults.injected += 1
        await asyncio.sleep(2 * SESSION_S)
        zombie.resume()
        await world.resumed(faults)
        world.broker.kill()
        faults.injected += 1
        await asyncio.to_thread(world.broker.start, START_S)
        await world.resumed(faults)
    faults.note = (
        "workers killed at random and at each named point, one paused, the broker killed; read_committed"
    )
    verdict = await world.finish("with Kafka transactions", faults, committed_only=True)
    assert verdict.repeated == 0
