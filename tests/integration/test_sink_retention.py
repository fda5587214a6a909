"""The sink over logs that Apache Kafka has cut, with scores that a worker published in transactions."""

import asyncio
import shutil
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from harness.processes import SinkProcess
from infra.database import Database
from infra.kafka_cluster import KafkaCluster
from infra.sink_store import SinkStore
from infra.topics_admin import TopicsAdmin
from infra.transactional_producer import TransactionalProducer
from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from stream_app.ports import Outgoing
from tests.deployment import eventually
from tests.sinking import score, transaction

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="needs Java 17 and Maven"),
]


def to_scores(value):
    return Outgoing(FRAUD_SCORES.name, 0, None, value)


@pytest.fixture
async def cluster(tmp_path):
    with KafkaCluster(tmp_path) as cluster:
        await TopicsAdmin(cluster.bootstrap).create(1)
        yield cluster


async def accept(cluster, names):
    """Publish transactions, without a Kafka transaction."""
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
    await producer.start()
    try:
        for name in names:
            await producer.send_and_wait(TRANSACTIONS.name, transaction(name), partition=0)
    finally:
        await producer.stop()


async def cut(cluster, topic, offset=-1):
    """Have the broker delete what is before an offset, or all; returns where the log begins."""
    admin, tp = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap), TopicPartition(topic, 0)
    await admin.start()
    try:
        return (await admin.delete_records({tp: RecordsToDelete(offset)}))[tp]
    finally:
        await admin.close()


@contextmanager
def sink_of(cluster, folder):
    sink = SinkProcess(
        folder,
        {
            "bootstrap": cluster.bootstrap,
            "database_url": f"sqlite:///{folder}/index.db",
            "events": folder / "events",
            "flush_s": 0.1,
            "log_format": "json",
        },
    )
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


class Kept:
    """What the sink has stored."""

    def __init__(self, folder):
        database = Database(f"sqlite:///{folder}/index.db")
        database.migrate()
        self.folder, self.store = folder, SinkStore(database)

    def rows(self):
        files = [pq.read_table(self.folder / "events" / f.path).to_pylist() for f in self.store.files()]
        return sorted(row["transaction_id"] for rows in files for row in rows)

    async def until(self, names):
        await eventually(lambda: self.rows() == sorted(names), 60, f"the rows {names}")


async def test_scores_that_ended_in_markers_and_were_cut_are_no_loss(cluster, tmp_path):
    """A committed and an aborted transaction: the log begins behind what is no record to the sink."""
    names, kept = ["t-0", "t-1", "t-2"], Kept(tmp_path)
    await accept(cluster, names)
    worker = TransactionalProducer(cluster.bootstrap, prefix="g-tg", last_topic=FRAUD_SCORES.name)
    await worker.take(0)
    await worker.publish([to_scores(score("t-0", 0)), to_scores(score("t-1", 1))], 0)
    aborted = worker._producers[0]
    await aborted.begin_transaction()
    await aborted.send_and_wait(FRAUD_SCORES.name, score("t-2", 2), partition=0)
    await aborted.abort_transaction()
    with sink_of(cluster, tmp_path):
        await kept.until(["t-0", "t-1"])
        # Two scores and a marker, one aborted score and a marker.
        await eventually(lambda: kept.store.offsets()[FRAUD_SCORES.name, 0] == 5, 20, "what is behind")
    assert await cut(cluster, FRAUD_SCORES.name) == 5
    with sink_of(cluster, tmp_path) as sink:
        await worker.publish([to_scores(score("t-2", 2))], 0)
        await worker.stop()
        await kept.until(names)
        assert sink.running


async def test_a_committed_score_that_was_cut_before_it_was_read_is_refused(cluster, tmp_path):
    kept = Kept(tmp_path)
    await accept(cluster, ["t-0", "t-1"])
    worker = TransactionalProducer(cluster.bootstrap, prefix="g-tg", last_topic=FRAUD_SCORES.name)
    await worker.take(0)
    await worker.publish([to_scores(score("t-0", 0))], 0)
    with sink_of(cluster, tmp_path):
        await kept.until(["t-0"])
        await eventually(lambda: kept.store.offsets()[FRAUD_SCORES.name, 0] == 2, 20, "what is behind")
    await worker.publish([to_scores(score("t-1", 1))], 0)
    await worker.stop()
    # The broker answers before the marker is there.
    await asyncio.sleep(1)
    assert await cut(cluster, FRAUD_SCORES.name) == 4
    with sink_of(cluster, tmp_path) as sink:
        await eventually(lambda: not sink.running, 60, "the end of the sink")
        assert sink._process.poll() == 3
        assert "starts at offset 4, the event log goes to 2" in sink.log_path.read_text()


async def test_a_sink_that_begins_with_nothing_goes_on_behind_transactions_that_were_cut(cluster, tmp_path):
    names, kept = [f"t-{n}" for n in range(6)], Kept(tmp_path)
    await accept(cluster, names)
    worker = TransactionalProducer(cluster.bootstrap, prefix="g-tg", last_topic=FRAUD_SCORES.name)
    await worker.take(0)
    await worker.publish([to_scores(score(name, n)) for n, name in enumerate(names)], 0)
    await worker.stop()
    assert await cut(cluster, TRANSACTIONS.name, 4) == 4
    with sink_of(cluster, tmp_path) as sink:
        await kept.until(names[4:])
        said = sink.log_path.read_text()
    assert said.count("scores of transactions that the broker deleted before the event log was begun") == 1
