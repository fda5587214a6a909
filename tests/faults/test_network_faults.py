"""What lies between worker and servers is cut, hangs, is late or breaks off in the middle of an answer."""

import asyncio

import pytest

pytestmark = pytest.mark.faults
MODES = ("cut", "hang", "half-close", "delay", "reset")
BROKEN_S = 4


@pytest.mark.parametrize("to", ["Redis", pytest.param("Kafka", marks=pytest.mark.short)])
async def test_connections_broken(new_world, to):
    world = new_world(proxied=True)
    proxy = world.redis_proxy if to == "Redis" else world.kafka_proxy
    async with world.load() as faults:
        for mode in MODES:
            proxy.set(mode)
            faults.injected += 1
            await asyncio.sleep(BROKEN_S)
            proxy.set("pass")
            await world.resumed(faults)
    assert proxy.broken > 0
    faults.note = f"{', '.join(MODES)}; {BROKEN_S} s each"
    await world.finish(f"connections to {to} broken", faults)
