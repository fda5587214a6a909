"""Kafka transactions for each source partition, on Apache Kafka."""

import shutil

import pytest

from features.ports import LeaseLost, PublishInDoubt
from infra.kafka_cluster import KafkaCluster
from infra.log_tail import LogTail
from infra.topics_admin import TopicsAdmin
from infra.transactional_producer import TransactionalProducer
from stream_app.ports import Outgoing
from tests.deployment import eventually
from tests.faults.checker import read_log

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="needs Java 17 and Maven"),
]


def score(offset):
    source = b'{"source": {"topic": "transactions", "offset": %d}}' % offset
    return Outgoing("scores.fraud", 0, None, source)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


async def test_owner_before_is_fenced_off_and_what_it_left_open_does_not_count(cluster):
    await TopicsAdmin(cluster.bootstrap).create(1)
    first = TransactionalProducer(cluster.bootstrap, prefix="g-tg", last_topic="scores.fraud")
    second = TransactionalProducer(cluster.bootstrap, prefix="g-tg", last_topic="scores.fraud")
    tail = LogTail(cluster.bootstrap, committed_only=True)
    await tail.start()
    try:
        with pytest.raises(PublishInDoubt, match="did not end well"):
            await first.publish([score(0)], 0)
        await first.take(0)
        await first.publish([Outgoing("alerts", 0, None, b"{}"), score(0), score(1)], 0)
        # It stands still in the middle of a transaction.
        left_open = first._producers[0]
        await left_open.begin_transaction()
        await left_open.send_and_wait("scores.fraud", score(2).value, partition=0)

        await second.take(0)
        assert await tail.scored_upto("scores.fraud", 0, "transactions") == (2, False)
        with pytest.raises(Exception, match=r"fenced|epoch|Fenced"):
            await left_open.commit_transaction()
        await second.publish([score(2)], 0)
        with pytest.raises((LeaseLost, PublishInDoubt)):
            await first.publish([score(3)], 0)

        # The broker says that a transaction is committed before its markers are in the partitions: only who
        # takes the partition over waits for these.
        async def all_seen() -> bool:
            return await tail.scored_upto("scores.fraud", 0, "transactions") == (3, False)

        await eventually(all_seen, 10, "the committed score")
    finally:
        await tail.stop()
        await first.stop()
        await second.stop()
    committed = await read_log(cluster.bootstrap, ["scores.fraud"], committed_only=True)
    assert [r.value for r in committed["scores.fraud", 0]] == [score(i).value for i in range(3)]
