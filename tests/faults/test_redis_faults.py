"""Redis dies, stands still, forgets, runs out of disk, and is replaced by a replica that is behind."""

import asyncio
import shutil
import subprocess

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from infra.embedded import EmbeddedRedis
from tests.faults.world import START_S

pytestmark = pytest.mark.faults
PAUSE_S = 8


def went_back(world):
    return sum(len(worker.said("going back to where the store is")) for worker in world.workers)


def behind(before, after):
    return sum(max(0, before[p] - after[p]) for p in before)


@pytest.mark.short
async def test_redis_killed(world):
    async with world.load() as faults:
        for _ in range(3):
            world.redis.kill()
            faults.injected += 1
            await asyncio.sleep(1)
            await asyncio.to_thread(world.redis.start, START_S)
            await world.resumed(faults)
    await world.finish("Redis killed, back from its AOF", faults)


@pytest.mark.short
async def test_redis_paused(world):
    async with world.load() as faults:
        for _ in range(2):
            world.redis.pause()
            faults.injected += 1
            await asyncio.sleep(PAUSE_S)
            world.redis.resume()
            await world.resumed(faults)
    faults.note = f"for {PAUSE_S} s, calls give up after 2 s"
    await world.finish("Redis paused", faults)


@pytest.mark.short
async def test_redis_back_from_an_older_copy(world):
    if world.containers:
        pytest.skip("puts back an older copy of the AOF, which is in the container")
    files, copy = world.redis.directory / "appendonlydir", world.folder / "older"
    lost = 0
    async with world.load() as faults:
        for _ in range(2):
            shutil.copytree(files, copy)
            await world.resumed(type(faults)())
            await world.resumed(type(faults)())
            before = world.positions()
            world.redis.kill()
            shutil.rmtree(files)
            copy.rename(files)
            await asyncio.to_thread(world.redis.start, START_S)
            lost += behind(before, world.positions())
            faults.injected += 1
            await world.resumed(faults)
    assert lost > 0
    assert went_back(world) > 0
    faults.note = f"{lost} acknowledged events forgotten by Redis"
    await world.finish("Redis back from an older copy of its AOF", faults)


async def test_replica_that_is_behind_is_promoted(new_world):
    world = new_world(proxied=True)
    replica = EmbeddedRedis(world.folder / "replica")
    replica.start(START_S)
    try:
        with Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", world.redis.port)
            async with world.load() as faults:
                await world.until(
                    lambda: client.info("replication")["master_link_status"] == "up", 180, "replication"
                )
                replica.pause()
                # Past what the sockets between the two hold.
                await asyncio.sleep(15)
                before = world.positions()
                world.redis.kill()
                replica.resume()
                client.replicaof("NO", "ONE")
                primary, world.redis = world.redis, replica
                world.redis_proxy.target_port = replica.port
                world.redis_proxy.drop_all()
                faults.injected += 1
                lost = behind(before, world.positions())
                await world.resumed(faults)
        assert primary.running is False
        assert lost > 0
        faults.note = f"{lost} acknowledged events had not reached it"
        await world.finish("Redis replica promoted that is behind", faults)
    finally:
        replica.kill()


async def test_disk_of_the_aof_is_full(new_world, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode().strip()}")
    try:
        world = new_world(redis_dir=disk)
        async with world.load() as faults:
            free = shutil.disk_usage(disk).free
            filler = disk / "filler"
            filler.write_bytes(b"\0" * (free - 64 * 1024))

            def refuses():
                with Redis(port=world.redis.port) as client:
                    try:
                        client.set("probe", b"x" * 1000)
                    except ResponseError as error:
                        return "MISCONF" in str(error)
                return False

            await world.until(refuses, 180, "writes refused for a full disk")
            faults.injected += 1
            held = world.positions()
            await asyncio.sleep(5)
            assert world.positions() == held
            filler.unlink()
            await world.resumed(faults)
            with Redis(port=world.redis.port) as client:
                client.delete("probe")
        faults.note = "no offset moved while writes were refused"
        await world.finish("disk of the AOF full, then freed", faults)
        world.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.short
async def test_redis_emptied_is_refused_and_rebuilt(world):
    async with world.load() as faults:
        # What was not committed yet may start again by itself: it is the beginning of the log.
        await world.committed()
        before = await world.verdict()
        with Redis(port=world.redis.port) as client:
            client.flushall()
        faults.injected += 1
        workers = list(world.workers)
        await world.until(lambda: not any(w.running for w in workers), 180, "refusal of every worker")
        assert {worker.exit_code for worker in workers} == {3}
        refusals = [line["error"] for worker in workers for line in worker.lines() if "error" in line]
        assert sum("tidegate rebuild" in refusal for refusal in refusals) >= len(workers)
    if world.kafka:
        await world.no_members()
    # The embedded broker lists members that are gone for ever.
    forced = [] if world.kafka else ["--force"]
    assert await asyncio.to_thread(world.tidegate, "rebuild", "--yes", *forced) == 0
    await world.workers_running()
    faults.note = "refused with exit code 3; rebuilt from the log by tidegate rebuild"
    verdict = await world.finish("Redis emptied (FLUSHALL)", faults)
    assert verdict.repeated == before.repeated
    # A chunk may have been between its alerts and its scores when Redis was emptied.
    assert verdict.repeated_others - before.repeated_others <= 200
