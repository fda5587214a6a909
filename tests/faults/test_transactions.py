"""With Kafka transactions, readers of committed messages see each score exactly once."""

import asyncio

import pytest

from tests.faults.world import SESSION_S

pytestmark = pytest.mark.faults
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")


@pytest.mark.short
async def test_readers_of_committed_messages_see_each_score_once(new_world, short):
    world = new_world(settings={"transactions": True})
    async with world.load(workers=2) as faults:
        for point in POINTS * (1 if short else 3):
            dying = world.worker(crash_point=point)
            starting = asyncio.create_task(asyncio.to_thread(dying.start, 120))
            await asyncio.gather(starting, return_exceptions=True)
            await world.until(lambda w=dying: not w.running, 60, f"death at {point}")
            faults.injected += 1
            await world.resumed(faults)
        await world.workers_running(2)
        for _ in range(1 if short else 6):
            victim = world.random.choice(world.workers)
            victim.kill()
            faults.injected += 1
            await asyncio.gather(world.resumed(faults), world.again(victim))
        zombie = world.workers[0]
        zombie.pause()
        faults.injected += 1
        await asyncio.sleep(2 * SESSION_S)
        zombie.resume()
        await world.resumed(faults)
        world.broker.kill()
        faults.injected += 1
        await asyncio.to_thread(world.broker.start)
        await world.resumed(faults)
    faults.note = (
        "workers killed at random and at each named point, one paused, the broker killed; read_committed"
    )
    verdict = await world.finish("with Kafka transactions", faults, committed_only=True)
    assert verdict.repeated == 0
