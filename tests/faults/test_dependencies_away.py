"""Nothing is there when a worker starts, or it is another log than before."""

import asyncio
from datetime import UTC, datetime

import pytest

from generator.settings import BankSettings
from tests.deployment import Deployment, Outputs, eventually

pytestmark = pytest.mark.faults


@pytest.fixture
def embedded(tmp_path, registry):
    """A deployment on the broker that keeps nothing."""
    running = Deployment(tmp_path, registry._root, kafka=False)
    running.stack.start(180)
    yield running
    running.close()


def assert_exact(deployment, outputs):
    assert not outputs.conflicting()
    assert deployment.outcomes() == dict(deployment.log.totals)
    assert not outputs.dead()


def waited_for(deployment, worker, dependency):
    lines = [line for line in deployment.logs(worker) if line.get("event") == "waiting"]
    return [line for line in lines if line["dependency"] == dependency]


async def test_nothing_there_at_start(tmp_path, registry):
    deployment = Deployment(tmp_path, registry._root)
    worker = deployment.worker()
    try:
        await asyncio.to_thread(worker.start, 180)
        await eventually(lambda: bool(waited_for(deployment, worker, "redis")), 30, "a word about Redis")
        deployment.stack.redis.start(180)
        await eventually(lambda: bool(waited_for(deployment, worker, "kafka")), 30, "a word about Kafka")
        deployment.stack.broker.start(180)
        await eventually(
            lambda: any(line["event"] == "connected" for line in deployment.logs(worker)), 180, "connecting"
        )
        small = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))
        await deployment.publish_bank(small)
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
        assert_exact(deployment, outputs)
    finally:
        deployment.close()


async def test_broker_that_lost_its_log_is_refused(embedded):
    deployment = embedded
    await deployment.create_topics()
    small = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))
    await deployment.publish_bank(small)
    worker = deployment.worker()
    worker.start()
    async with Outputs(deployment.stack.bootstrap) as outputs:
        await outputs.until_scored(deployment.log.ids)
    worker.stop()
    deployment.stack.broker.kill()
    deployment.stack.broker.start(180)
    again = deployment.worker()
    await asyncio.to_thread(again.start, 180)
    process = again._process
    await eventually(lambda: process.poll() is not None, 180, "a refusal")
    assert process.returncode == 3
    (refusal,) = [line for line in deployment.logs(again) if line["level"] == "error"]
    assert "built from the log of Kafka cluster" in refusal["error"]
    assert "tidegate rebuild" in refusal["error"]
