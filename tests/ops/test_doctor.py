"""The doctor on a real broker and a real Valkey: nothing on a healthy one, and each seeded mistake."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis

from features.codec import VERSION
from infra.access import KafkaAccess, RedisAccess
from infra.checks import Status
from infra.doctor import Deployment, examine
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin
from schemas.topics import LABELS, TRANSACTIONS

pytestmark = pytest.mark.ops
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with EmbeddedStack(tmp_path_factory.mktemp("doctor")) as running:
        yield running


@pytest.fixture
def models(registry, models, tmp_path):
    """Models that are as new as a deployment's would be."""
    folder = tmp_path / "models"
    shutil.copytree(registry._root, folder)
    for path in folder.glob("*/v*/card.json"):
        card = json.loads(path.read_text())
        path.write_text(json.dumps({**card, "created_at": datetime.now(UTC).isoformat()}))
    return folder


@pytest.fixture
async def healthy(stack, models):
    """A deployment as a worker leaves it; its state is made anew for each test."""
    admin = TopicsAdmin(stack.bootstrap)
    await admin.create(2)
    with Redis.from_url(stack.redis_url) as client:
        client.flushall()
        client.config_set("appendonly", "yes")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
        client.set("tg:cluster", await admin.cluster_id())
        client.set("tg:topology", 2)
        for partition in range(2):
            client.hset(
                f"{{tg:{partition}}}:meta", mapping={"version": VERSION, f"next:{TRANSACTIONS.name}": 0}
            )
    return Deployment(
        stack.bootstrap, stack.redis_url, "tg", models, KafkaAccess(), RedisAccess(), timeout_s=2.0
    )


@pytest.fixture
def redis(stack):
    with Redis.from_url(stack.redis_url) as client:
        yield client


async def problems(deployment):
    return {f.check: f for f in await examine(deployment) if f.status in (Status.ERROR, Status.WARNING)}


async def test_healthy_deployment_has_no_finding(healthy):
    findings = await examine(healthy)
    assert {f.check: f.detail for f in findings if f.status not in (Status.OK, Status.SKIPPED)} == {}
    checked = {f.check for f in findings if f.status is Status.OK}
    assert {
        "kafka.topic_settings",
        "redis.eviction",
        "state.cluster",
        "state.offsets",
        "model.fraud",
    } <= checked


class TestSeededMistake:
    """Each is found, alone, and comes with what to do."""

    async def one(self, deployment, check, status=Status.ERROR):
        found = await problems(deployment)
        assert set(found) == {check}, found
        assert found[check].status is status
        assert found[check].advice
        return found[check]

    async def test_broker_that_does_not_answer(self, healthy):
        await self.one(replace(healthy, bootstrap="127.0.0.1:1"), "kafka.connection")

    async def test_redis_that_does_not_answer(self, healthy):
        await self.one(replace(healthy, redis_url="redis://:hidden@127.0.0.1:1/0"), "redis.connection")
        found = await problems(replace(healthy, redis_url="redis://:hidden@127.0.0.1:1/0"))
        assert "hidden" not in found["redis.connection"].detail

    async def test_redis_without_persistence(self, healthy, redis):
        redis.config_set("appendonly", "no")
        await self.one(healthy, "redis.persistence")

    async def test_redis_that_drops_histories(self, healthy, redis):
        redis.config_set("maxmemory-policy", "allkeys-lru")
        assert "allkeys-lru" in (await self.one(healthy, "redis.eviction")).detail

    async def test_redis_that_is_nearly_full(self, healthy, redis):
        redis.config_set("maxmemory", int(redis.info()["used_memory"] * 1.05))
        await self.one(healthy, "redis.memory", Status.WARNING)

    async def test_histories_of_another_kafka_cluster(self, healthy, redis):
        redis.set("tg:cluster", "another")
        assert "another" in (await self.one(healthy, "state.cluster")).detail

    async def test_topic_with_another_number_of_partitions_than_before(self, healthy, redis):
        redis.set("tg:topology", 8)
        await self.one(healthy, "state.partitions")

    async def test_histories_of_another_format(self, healthy, redis):
        redis.hset("{tg:1}:meta", "version", VERSION + 1)
        assert "partition 1" in (await self.one(healthy, "state.format")).detail

    async def test_offset_behind_the_end_of_the_log(self, healthy, redis):
        redis.hset("{tg:0}:meta", f"next:{TRANSACTIONS.name}", 7)
        assert "transactions[0] goes on at 7" in (await self.one(healthy, "state.offsets")).detail

    async def test_histories_that_are_being_built(self, healthy, redis):
        redis.hset("{tg:1}:meta", "building", 1)
        assert "partitions 1 " in (await self.one(healthy, "state.whole", Status.WARNING)).detail

    async def test_rebuild_that_was_interrupted(self, healthy, redis):
        for partition in range(2):
            redis.hdel(f"{{tg:{partition}}}:meta", f"next:{TRANSACTIONS.name}")
            redis.hset(f"{{tg:{partition}}}:meta", mapping={"owner": "reset-1", "building": 1})
        assert "interrupted" in (await self.one(healthy, "state")).detail

    async def test_redis_that_was_emptied(self, healthy, redis, stack):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=stack.bootstrap, group_id="emptied", enable_auto_commit=False
        )
        await consumer.start()
        partition = TopicPartition(TRANSACTIONS.name, 1)
        consumer.assign([partition])
        await consumer.commit({partition: 12})
        await consumer.stop()
        redis.flushall()
        found = await self.one(replace(healthy, group="emptied"), "state")
        assert "processed 12 transactions, and nothing is stored" in found.detail
        assert await problems(replace(healthy, group="another")) == {}

    async def test_other_entities_than_the_state_counts(self, healthy, redis, models):
        redis.set("tg:entities", "merchant@1")
        found = await self.one(healthy, "state.entities")
        assert "the state counts entities 'merchant'" in found.detail
        assert "tidegate rebuild" in found.advice

    async def test_missing_model(self, healthy, models):
        (models / "churn" / "roles.json").unlink()
        assert "tidegate train churn" in (await self.one(healthy, "model.churn")).advice

    async def test_model_of_other_declarations(self, healthy, models):
        self.change_card(models, features_hash="0000")
        await self.one(healthy, "model.fraud")

    async def test_old_model(self, healthy, models):
        self.change_card(models, created_at=(datetime.now(UTC) - timedelta(days=60)).isoformat())
        await self.one(healthy, "model.fraud", Status.WARNING)

    def change_card(self, models, **changes):
        (path,) = (models / "fraud").glob("v*/card.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    async def test_expired_certificate(self, healthy, tmp_path):
        chain = tmp_path / "old.pem"
        issued = trustme.CA().issue_cert(
            "old.test",
            not_before=datetime.now(UTC) - timedelta(days=40),
            not_after=datetime.now(UTC) - timedelta(days=10),
        )
        issued.cert_chain_pems[0].write_to_path(chain)
        access = RedisAccess(redis_ca=chain)
        found = await problems(replace(healthy, redis=access))
        # Not encrypted either, with a certificate that nobody would use.
        assert set(found) == {"certificate.redis_authority", "redis.connection"}
        assert "expired" in found["certificate.redis_authority"].detail
        assert "rediss://" in found["redis.connection"].detail

    async def test_password_that_everybody_can_read(self, healthy, tmp_path):
        secret = tmp_path / "open" / "password"
        secret.parent.mkdir(mode=0o755)
        secret.write_text("")
        secret.chmod(0o644)
        found = await problems(replace(healthy, kafka=KafkaAccess(kafka_password_file=secret)))
        assert found["secret.kafka_password"].status is Status.WARNING

    async def test_login_that_is_only_half_there(self, healthy):
        found = await self.one(
            replace(healthy, kafka=KafkaAccess(kafka_security="sasl_plaintext")), "kafka.connection"
        )
        assert "TIDEGATE_KAFKA_USERNAME" in found.detail


async def test_topics_missing_different_and_kept_too_short(models, tmp_path):
    """Topics are made once on this broker, so it is one of its own."""
    with EmbeddedStack(tmp_path / "other", durable=True) as stack:
        client = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
        await client.start()
        await client.create_topics(
            [
                NewTopic(TRANSACTIONS.name, 4, 1, topic_configs={"retention.ms": "86400000"}),
                NewTopic(LABELS.name, 2, 1, topic_configs=dict(LABELS.config)),
            ]
        )
        await client.close()
        deployment = Deployment(
            stack.bootstrap, stack.redis_url, "tg", models, KafkaAccess(), RedisAccess(), timeout_s=5.0
        )
        found = [f for f in await examine(deployment) if f.status is Status.ERROR]
    assert {f.check for f in found} == {"kafka.topics", "kafka.partitions", "kafka.topic_settings"}
    details = " ".join(f.detail for f in found)
    assert "scores.fraud" in details
    assert "transactions 4, labels 2" in details
    assert "transactions: retention.ms is 86400000" in details


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
async def test_command_says_it_to_machines_and_by_its_exit_code(healthy, redis, broken, code):
    if broken:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cli.main", "doctor", "--json", "--bootstrap", healthy.bootstrap),
            *("--redis-url", healthy.redis_url, "--models", str(healthy.models)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == ("error" if broken else "ok")
    assert all(f["advice"] for f in said["findings"] if f["status"] == "error")
