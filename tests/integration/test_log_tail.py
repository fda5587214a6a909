"""The end of an output partition, read from a real broker."""

import asyncio
import json

import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded import EmbeddedBroker
from infra.log_tail import LogTail
from infra.topics_admin import TopicsAdmin
from schemas.parse import parse_message
from schemas.transaction import Transaction

pytestmark = pytest.mark.integration
TOPIC = "scores.fraud"


@pytest.fixture
async def producer(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        await TopicsAdmin(broker.address).create(2)
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        producer.address = broker.address
        yield producer
        await producer.stop()


@pytest.fixture
async def tail(producer):
    tail = LogTail(producer.address, timeout_s=10)
    await tail.start()
    yield tail
    await tail.stop()


async def publish(producer, offsets, topic="transactions", log="this"):
    for offset in offsets:
        source = {"topic": topic, "offset": offset}
        score = {"transaction_id": f"{log}-{offset}", "source": source}
        await producer.send_and_wait(TOPIC, json.dumps(score).encode(), partition=1)


@pytest.mark.parametrize("scores", [1, 2, 19, 20, 21])
async def test_newest_scored_offset_is_found(producer, tail, scores):
    await publish(producer, range(scores))
    assert await tail.scored_upto(TOPIC, 1, "transactions") == (scores, False)
    assert await tail.scored_upto(TOPIC, 0, "transactions") == (0, False)


async def test_it_looks_further_back_past_what_is_no_score(producer, tail):
    await publish(producer, range(3))
    await publish(producer, range(200), topic="somebody else's")
    assert await tail.scored_upto(TOPIC, 1, "transactions") == (3, False)


async def test_many_looks_at_different_partitions_one_after_the_other(producer, tail):
    # Taking the subscription away between looks ended aiokafka's fetcher, now and then for good.
    await publish(producer, range(5))
    looks = [tail.scored_upto(TOPIC, i % 2, "transactions") for i in range(100)]
    assert await asyncio.gather(*looks) == [(0, False), (5, False)] * 50
    assert await tail.bounds([(TOPIC, 1)]) == {(TOPIC, 1): (0, 5)}


async def test_consumer_whose_tasks_have_ended_is_replaced(producer, tail):
    await publish(producer, range(5))
    tail._timeout_s = 1.0
    tail._consumer._fetcher._fetch_task.cancel()
    with pytest.raises(Exception, match="does not show the end"):
        await tail.scored_upto(TOPIC, 1, "transactions")
    assert await tail.scored_upto(TOPIC, 1, "transactions") == (5, False)


async def log(producer, records):
    for offset in range(records):
        event = {"transaction_id": f"this-{offset}"}
        await producer.send_and_wait("transactions", json.dumps(event).encode(), partition=1)


async def test_scores_of_a_log_that_was_made_again_do_not_count(producer, tail):
    await log(producer, 12)
    await publish(producer, range(10), log="other")
    assert await tail.scored_upto(TOPIC, 1, "transactions") == (0, False)
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=10) == (0, True), "the state is of it too"
    await publish(producer, range(4))
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=4) == (4, False)


@pytest.mark.parametrize(
    ("transaction_id", "more"),
    [
        (" padded ", {}),
        (" ", {}),
        ("n", {"risk": float("nan")}),
        ("n", {"limit": float("inf"), "x": 10**400}),
    ],
)
async def test_whatever_was_accepted_is_known_again(producer, tail, transaction_id, more):
    event = {"transaction_id": transaction_id, "customer_id": "c", "amount": 1, "currency": "EUR"}
    event |= {"event_time": 1_767_225_600_000, **more}
    raw = json.dumps(event).encode()
    assert parse_message(Transaction, raw).transaction_id == transaction_id
    score = {"transaction_id": transaction_id, "source": {"topic": "transactions", "offset": 0}}
    await producer.send_and_wait("transactions", raw, partition=1)
    await producer.send_and_wait(TOPIC, json.dumps(score).encode(), partition=1)
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=1) == (1, False)
    assert await tail.holds("transactions", 1, 0, transaction_id.__eq__)
    assert await tail.holds(TOPIC, 1, 0, transaction_id.__eq__)


async def test_a_log_that_lost_its_end_and_grew_again_is_another_one_behind_it(producer, tail):
    await publish(producer, range(5))
    await publish(producer, range(5, 8), log="lost")
    await log(producer, 12)
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=5) == (0, False)
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=7) == (0, True)


async def test_what_the_log_does_not_hold_any_more_says_nothing(producer, tail):
    await log(producer, 2)
    await publish(producer, range(5), log="other")
    assert await tail.scored_upto(TOPIC, 1, "transactions", stored=5) == (5, False)


async def test_a_record_is_known_where_it_was_and_another_or_none_there_is_not_it(producer, tail):
    await publish(producer, range(5))
    assert await tail.holds(TOPIC, 1, 3, "this-3".__eq__)
    assert await tail.holds(TOPIC, 1, 4, "this-4".__eq__)
    assert not await tail.holds(TOPIC, 1, 3, "older-3".__eq__)
    for offset in (5, 500):
        assert not await tail.holds(TOPIC, 1, offset, "this-5".__eq__)
    assert not await tail.holds(TOPIC, 0, 0, "this-0".__eq__)
