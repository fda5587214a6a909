"""Broker, Redis and workers go away in the middle of a run and come back: nothing is lost or doubled."""

import asyncio
from datetime import UTC, datetime

import pytest

from generator.settings import BankSettings
from tests.deployment import Deployment, Outputs, eventually

pytestmark = pytest.mark.faults
BANK = BankSettings(customers=400, days=60, seed=21, start=datetime(2026, 1, 1, tzinfo=UTC))
AWAY_S = 20


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root)
    running.stack.start()
    yield running
    running.close()


def assert_exact(deployment, outputs):
    assert not outputs.conflicting()
    assert deployment.outcomes() == dict(deployment.log.totals)
    assert not outputs.dead()


def waited_for(deployment, worker, dependency):
    lines = [line for line in deployment.logs(worker) if line.get("event") == "waiting"]
    return [line for line in lines if line["dependency"] == dependency]


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_redis_away_in_the_middle(deployment, how):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    worker = deployment.worker(chunk_records=200, redis_timeout_s=1)
    worker.start()
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until(lambda: len(outputs.scored()) > 2000, 60, "first scores")
        if how == "paused":
            deployment.stack.redis.pause()
        else:
            deployment.stack.redis.kill()
        # The time away is the fault: nothing to wait for but the clock.
        await asyncio.sleep(AWAY_S)
        assert waited_for(deployment, worker, "redis")
        if how == "paused":
            deployment.stack.redis.resume()
        else:
            deployment.stack.redis.start()
        await outputs.until_scored(deployment.log.ids, 120)
    assert worker.running
    assert_exact(deployment, outputs)


async def test_broker_paused_in_the_middle(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    worker = deployment.worker(chunk_records=200, publish_timeout_s=5)
    worker.start()
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until(lambda: len(outputs.scored()) > 2000, 60, "first scores")
        deployment.stack.broker.pause()
        await asyncio.sleep(AWAY_S)
        deployment.stack.broker.resume()
        await outputs.until_scored(deployment.log.ids, 180)
    assert worker.running
    assert_exact(deployment, outputs)


async def test_nothing_there_at_start(tmp_path, registry):
    deployment = Deployment(tmp_path, registry._root)
    worker = deployment.worker()
    try:
        await asyncio.to_thread(worker.start, 60)
        await eventually(lambda: bool(waited_for(deployment, worker, "redis")), 30, "a word about Redis")
        deployment.stack.redis.start()
        await eventually(lambda: bool(waited_for(deployment, worker, "kafka")), 30, "a word about Kafka")
        deployment.stack.broker.start()
        await eventually(
            lambda: any(line["event"] == "connected" for line in deployment.logs(worker)), 60, "connecting"
        )
        small = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))
        await deployment.publish_bank(small)
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
        assert_exact(deployment, outputs)
    finally:
        deployment.close()


async def test_killed_workers_partitions_are_taken_over(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    workers = [deployment.worker(chunk_records=100) for _ in range(2)]
    await asyncio.gather(*(asyncio.to_thread(worker.start, 120) for worker in workers))
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until(lambda: len(outputs.scored()) > 1000, 60, "first scores")
        workers[0].kill()
        await outputs.until_scored(deployment.log.ids, 120)
    assert_exact(deployment, outputs)


async def test_paused_worker_that_comes_back_writes_nothing(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    zombie = deployment.worker(chunk_records=100)
    zombie.start()
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until(lambda: len(outputs.scored()) > 1000, 60, "first scores")
        zombie.pause()
        other = deployment.worker()
        other.start()
        await outputs.until_scored(deployment.log.ids, 120)
        zombie.resume()
        more = BankSettings(customers=50, days=5, seed=33, start=datetime(2026, 4, 1, tzinfo=UTC))
        await deployment.publish_bank(more)
        await outputs.until_scored(deployment.log.ids, 120)
    assert_exact(deployment, outputs)


async def test_broker_that_lost_its_log_is_refused(deployment):
    await deployment.create_topics()
    small = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))
    await deployment.publish_bank(small)
    worker = deployment.worker()
    worker.start()
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until_scored(deployment.log.ids)
    worker.stop()
    deployment.stack.broker.kill()
    deployment.stack.broker.start()
    again = deployment.worker()
    await asyncio.to_thread(again.start, 60)
    process = again._process
    await eventually(lambda: process.poll() is not None, 60, "a refusal")
    assert process.returncode == 3
    (refusal,) = [line for line in deployment.logs(again) if line["level"] == "error"]
    assert "built from the log of Kafka cluster" in refusal["error"]
    assert "TIDEGATE_NAMESPACE" in refusal["error"]
