"""Messages that are broken, late or many, clocks that are wrong, and versions that are mixed."""

import asyncio
import json
import shutil
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.checker import read_log
from tests.faults.traffic import out_of_order
from tests.faults.world import START_S

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
ROOMS = "schemas features models generator infra stream_app api harness cli".split()
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
POISON = {
    "cut off": b'{"transaction_id": "p-1", "customer_id": "c00',
    "another schema": b'{"id": 1, "value": 2}',
    "no object": b'["a", "list"]',
    "huge": b'{"transaction_id": "p-2", "note": "' + b"x" * 100_000 + b'"}',
    "nested": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "not UTF-8": b'{"transaction_id": "\xff\xfe"}',
    "no value": None,
    "empty": b"",
    "no amount of money": b'{"transaction_id": "p-3", "customer_id": "c0000001", "event_time": '
    b'"2026-01-01T00:00:00Z", "amount": -5, "currency": "EUR"}',
}


@pytest.mark.short
async def test_poison_among_good_messages(world):
    before = await world.verdict()
    async with world.load() as faults:
        for _ in range(5):
            await world.publish("transactions", [(b"c0000001", value) for value in POISON.values()])
            faults.injected += len(POISON)
            await world.resumed(faults)
    faults.resumed_s.clear()
    verdict = await world.finish("poison messages", faults)
    assert verdict.refused - before.refused == faults.injected


@pytest.mark.short
async def test_transactions_that_the_sender_aborts(new_world):
    # A world of its own: the log keeps what was aborted, and others read all of it.
    world = new_world()
    async with world.load() as faults:
        for number in range(6):
            events = islice((e for e in world.traffic.events if e.topic == "transactions"), 20)
            named = [e.message | {"transaction_id": f"sent-{number}-{n}"} for n, e in enumerate(events)]
            pairs = [(m["customer_id"].encode(), json.dumps(m).encode()) for m in named]
            await world.in_transaction(pairs, commit=number % 2 == 0)
            faults.injected += number % 2
            await world.resumed(faults)
    faults.resumed_s.clear()
    await world.finish("sender aborts its transactions", faults, committed_only=True)
    scored = Counter()
    for records in (await read_log(world.bootstrap, ["scores.fraud"])).values():
        ids = [json.loads(record.value)["transaction_id"] for record in records]
        scored.update(name.split("-")[1] for name in ids if name.startswith("sent-"))
    assert scored == {"0": 20, "2": 20, "4": 20}


async def test_late_and_shuffled_events(new_world):
    world = new_world()
    world.traffic.events = out_of_order(world.traffic.events, world.random)
    async with world.load() as faults:
        for _ in range(3):
            victim = world.random.choice(world.workers)
            victim.kill()
            faults.injected += 1
            await asyncio.gather(world.resumed(faults), world.again(victim))
    faults.note = "with a worker killed as often"
    await world.finish("late and shuffled events", faults)


@pytest.mark.short
async def test_backlog_after_an_outage(world, short):
    for worker in world.workers:
        worker.stop()
    events = 20_000 if short else 100_000
    async with world.load(workers=0) as faults:
        pass
    await world.burst(events)
    faults.injected += 1
    await world.workers_running()
    began = time.monotonic()
    await world.drained(600)
    faults.note = f"{events} events while no worker ran; caught up in {time.monotonic() - began:.0f} s"
    await world.finish("backlog after an outage", faults)


async def test_workers_with_wrong_clocks(world):
    if not FAKETIME:
        pytest.skip("needs libfaketime (Debian: apt-get install libfaketime)")
    for worker in world.workers:
        await asyncio.to_thread(worker.stop)
    for skew in ("+1h", "-1h"):
        environment = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": skew, "DONT_FAKE_MONOTONIC": "1"}
        await asyncio.to_thread(world.worker(environment).start, START_S)
    async with world.load() as faults:
        faults.injected += 2
        victim = world.workers[0]
        victim.kill()
        await asyncio.gather(world.resumed(faults), world.again(victim))
    stamps = {worker.name: worker.lines()[-1]["timestamp"][:13] for worker in world.workers}
    assert len(set(stamps.values())) == 3, stamps
    faults.note = "one an hour ahead, one an hour behind, one right; one killed"
    await world.finish("worker clocks an hour off", faults)
    for worker in world.workers:
        worker.stop()


async def test_two_versions_side_by_side(world, tmp_path):
    old = tmp_path / "old"
    for room in ROOMS:
        # With the compiled kernels beside the source: compiling takes minutes on busy cores.
        shutil.copytree(ROOT / room, old / room, ignore=shutil.ignore_patterns("*.pyc"))
    functions = old / "infra" / "functions.lua"
    functions.write_text(functions.read_text().replace("-- The atomic step", "-- An older atomic step"))
    for worker in world.workers:
        await asyncio.to_thread(worker.stop)
    world.workers = []
    for _ in range(3):
        await asyncio.to_thread(world.worker(root=old).start, START_S)
    async with world.load() as faults:
        for worker in list(world.workers):
            await asyncio.to_thread(worker.stop)
            new = world.worker()
            faults.injected += 1
            await asyncio.gather(world.resumed(faults), world.again(new))
            world.workers.remove(worker)
    faults.note = "two versions of the Redis Function at once, workers replaced one by one"
    await world.finish("old and new worker side by side", faults)
