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
