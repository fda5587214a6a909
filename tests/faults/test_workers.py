"""Workers are killed, paused, stopped and added under load."""

import asyncio
import time

import pytest

from tests.faults.world import POINTS, SESSION_S

pytestmark = pytest.mark.faults
# What a rebalance may cost a partition on Apache Kafka. The embedded broker's groups take longer (three plain
# consumers, started 3 s apart, had partitions after 3 to 19 s there): of it only exactness is asked for.
STILL_S = 10


def still(stalls):
    return f"no partition stood still for more than {max(stalls.values()):.1f} s"


@pytest.mark.short
async def test_workers_killed_at_random(world, short):
    kills = 4 if short else 20
    async with world.load() as faults:
        await world.kill_at_random(kills, faults)
    await world.finish("worker killed at random", faults)
    if world.kafka:
        assert max(faults.resumed_s) <= SESSION_S + 20


@pytest.mark.short
async def test_workers_that_die_at_a_named_point(world, short):
    rounds = 1 if short else 3
    async with world.load(workers=2) as faults:
        for _ in range(rounds):
            for points in (POINTS[:2], POINTS[2:]):
                await world.die_at(points, faults)
    await world.finish("worker killed at each named point", faults)


@pytest.mark.short
async def test_paused_worker_that_comes_back(world):
    async with world.load() as faults:
        zombie = world.workers[0]
        for _ in range(2):
            zombie.pause()
            faults.injected += 1
            await world.resumed(faults)
            # Longer than the group waits for it: others have its partitions and go on.
            await asyncio.sleep(2 * SESSION_S)
            zombie.resume()
            await world.resumed(faults)
    faults.note = f"paused for {2 * SESSION_S} s and more; said that it lost a partition: " + str(
        len(zombie.said("partition lost"))
    )
    await world.finish("worker paused, then back (zombie)", faults)


@pytest.mark.short
async def test_rolling_restart(world):
    exits = []
    before = await world.verdict()
    async with world.load() as faults, world.stalls() as stalls:
        for worker in list(world.workers):
            asked = time.monotonic()
            process = worker._process
            await asyncio.to_thread(worker.stop, 30)
            exits.append(time.monotonic() - asked)
            assert process.returncode == 0
            faults.injected += 1
            await asyncio.gather(world.resumed(faults), world.again(worker))
    faults.note = f"SIGTERM to exit at most {max(exits):.1f} s; {still(stalls)}"
    verdict = await world.finish("rolling restart", faults)
    assert max(exits) <= 10
    # Whoever is asked to stop ends what it has begun: nobody after it does it again.
    assert (verdict.repeated, verdict.repeated_others) == (before.repeated, before.repeated_others)
    if world.kafka:
        assert max(stalls.values()) <= STILL_S


@pytest.mark.short
async def test_rebalance_storm(world, short):
    seconds = 20 if short else 120
    async with world.load(workers=2) as faults, world.stalls() as stalls:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            extra = await world.run_worker()
            faults.injected += 1
            await asyncio.sleep(2.5)
            await asyncio.to_thread(extra.stop, 30)
            faults.injected += 1
            await world.resumed(faults)
    faults.note = still(stalls)
    await world.finish("rebalance storm", faults)
    if world.kafka:
        assert max(stalls.values()) <= STILL_S
