"""Apache Kafka from jars: starts, keeps what it has, and goes on without one of three."""

import shutil

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from infra import kafka_jars
from infra.kafka_cluster import KafkaCluster
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError

needs_java = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="needs Java 17 and Maven"
)


async def publish(cluster, value):
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait("labels", value, partition=0)
    finally:
        await producer.stop()


async def everything(cluster, wanted):
    consumer = AIOKafkaConsumer("labels", bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found = []
        while len(found) < wanted:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [record.value for record in records]
        return found
    finally:
        await consumer.stop()


@pytest.mark.integration
@needs_java
async def test_killed_broker_keeps_its_log_and_its_id(tmp_path):
    # One in 64 ids begins like an option.
    (tmp_path / "cluster-id").write_text("-7LkPm2GTn6x3cVbQw8RtA")
    with KafkaCluster(tmp_path) as cluster:
        admin = TopicsAdmin(cluster.bootstrap)
        await admin.create(1)
        await publish(cluster, b"acknowledged")
        cluster.kill()
        cluster.start(300)
        assert await everything(cluster, 1) == [b"acknowledged"]
        assert await admin.cluster_id() == cluster.cluster_id
    assert KafkaCluster(tmp_path).cluster_id == cluster.cluster_id


@pytest.mark.faults
@needs_java
async def test_three_brokers_take_messages_with_one_of_them_away(tmp_path):
    with KafkaCluster(tmp_path, 3) as cluster:
        await TopicsAdmin(cluster.bootstrap).create(1, 3)
        await publish(cluster, b"one")
        cluster.nodes[0].kill()
        await publish(cluster, b"two")
        assert await everything(cluster, 2) == [b"one", b"two"]


@pytest.mark.parametrize("arguments", [{"brokers": 2}, {"brokers": 3, "ports": [9092]}])
def test_odd_clusters_are_refused(tmp_path, arguments):
    with pytest.raises(DependencyError, match="brokers"):
        KafkaCluster(tmp_path, **arguments)


@pytest.mark.integration
@needs_java
def test_broken_settings_are_shown(tmp_path):
    cluster = KafkaCluster(tmp_path, properties={"log.segment.bytes": "many"})
    with pytest.raises(DependencyError, match=r"log\.segment\.bytes"):
        cluster.start()


def test_missing_maven_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="no mvn found"):
        kafka_jars.classpath(tmp_path)


def test_missing_java_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(DependencyError, match="no java found"):
        kafka_jars.java()
