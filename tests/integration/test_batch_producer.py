"""Messages in bulk on a real broker."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer

from infra.batch_producer import BatchProducer
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin
from stream_app.ports import Outgoing

pytestmark = pytest.mark.integration
PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


async def test_messages_arrive_in_order_each_with_its_own_headers(tmp_path):
    with EmbeddedStack(tmp_path, durable=False) as stack:
        await TopicsAdmin(stack.bootstrap).create(1)
        producer = BatchProducer(stack.bootstrap)
        await producer.start()
        sent = [Outgoing("alerts", 0, b"k", b"plain"), Outgoing("alerts", 0, b"k", b"traced", (PARENT,))]
        await producer.publish(sent, 0)
        await producer.stop()
        consumer = AIOKafkaConsumer("alerts", bootstrap_servers=stack.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found = []
        try:
            async with asyncio.timeout(30):
                while len(found) < len(sent):
                    for records in (await consumer.getmany(timeout_ms=500)).values():
                        found += [(record.value, record.headers) for record in records]
        finally:
            await consumer.stop()
    assert found == [(b"plain", ()), (b"traced", (PARENT,))]


async def test_source_partitions_publish_side_by_side_each_in_order(tmp_path):
    with EmbeddedStack(tmp_path, durable=False) as stack:
        await TopicsAdmin(stack.bootstrap).create(6)
        producer = BatchProducer(stack.bootstrap)
        await producer.start()
        rounds = [[Outgoing("alerts", p, b"k", b"%d-%d" % (p, n)) for n in range(20)] for p in range(6)]
        await asyncio.gather(
            *(_publish_one_by_one(producer, messages, p) for p, messages in enumerate(rounds))
        )
        await producer.stop()
        consumer = AIOKafkaConsumer("alerts", bootstrap_servers=stack.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found: dict[int, list[bytes]] = {p: [] for p in range(6)}
        try:
            async with asyncio.timeout(30):
                while sum(map(len, found.values())) < 120:
                    for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                        found[tp.partition] += [record.value for record in records]
        finally:
            await consumer.stop()
    assert found == {p: [m.value for m in messages] for p, messages in enumerate(rounds)}


async def _publish_one_by_one(producer, messages, source):
    for message in messages:
        await producer.publish([message], source)
