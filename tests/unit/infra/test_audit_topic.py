import asyncio
import json
from contextlib import suppress

import pytest

from infra import audit_topic
from infra.audit_topic import AuditTopic
from schemas.errors import DependencyError


class Kafka:
    """Takes records while it is there."""

    def __init__(self):
        self.records: list[tuple[bytes, dict]] = []
        self.away = False
        self.connected = 0

    def __call__(self, bootstrap, **options):
        assert options["topics"] == ["audit"]
        return self

    async def __aenter__(self):
        self._check()
        self.connected += 1
        return self

    async def __aexit__(self, *error):
        return None

    async def publish(self, topic, key, value):
        self._check()
        self.records.append((key, json.loads(value)))

    async def flush(self):
        self._check()

    def _check(self):
        if self.away:
            raise DependencyError("Kafka does not answer")


@pytest.fixture
def kafka(monkeypatch):
    found = Kafka()
    monkeypatch.setattr(audit_topic, "Publisher", found)
    monkeypatch.setattr(audit_topic, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(audit_topic, "_LONGEST_PAUSE_S", 0.0)
    return found


def record(number):
    return json.dumps({"number": number}).encode() + b"\n"


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def stopped(task):
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_records_are_published_in_order_by_actor_with_a_version(kafka):
    counts = []
    topic = AuditTopic("k:1", lambda event, n: counts.append((event, n)))
    running = asyncio.create_task(topic.run())
    for number in range(3):
        topic.offer("desk", record(number))
    await until(lambda: len(kafka.records) == 3)
    await stopped(running)
    assert kafka.records == [(b"desk", {"schema_version": 1, "number": n}) for n in range(3)]
    assert counts == [("published", 3)]


async def test_while_kafka_is_away_the_newest_wait_and_the_others_are_counted(kafka):
    counts = []
    topic = AuditTopic("k:1", lambda event, n: counts.append((event, n)), waiting=4)
    kafka.away = True
    running = asyncio.create_task(topic.run())
    for number in range(10):
        topic.offer("desk", record(number))
        await asyncio.sleep(0)
    assert counts == [("unpublished", 1)] * 6
    kafka.away = False
    await until(lambda: len(kafka.records) == 4)
    await stopped(running)
    assert [r["number"] for _, r in kafka.records] == [6, 7, 8, 9]


async def test_what_waits_at_the_end_is_published_or_counted(kafka):
    counts = []
    topic = AuditTopic("k:1", lambda event, n: counts.append((event, n)))
    topic.offer("desk", record(1))
    await topic.drain(5)
    assert [r["number"] for _, r in kafka.records] == [1]
    kafka.away = True
    topic.offer("desk", record(2))
    await topic.drain(5)
    assert counts == [("published", 1), ("unpublished", 1)]
