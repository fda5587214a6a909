from datetime import UTC, datetime, timedelta

import trustme

from infra.access import KafkaAccess, RedisAccess
from infra.checks import Finding, Status, check_files, check_offsets, check_redis, check_topics, worst
from infra.kafka_inspection import KafkaFacts, TopicFacts
from infra.redis_inspection import RedisFacts
from schemas.topics import TOPICS

INFO = {
    "redis_version": "7.2.4",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "used_memory": 1 << 20,
}


def problems(findings):
    return {f.check: f for f in findings if f.status in (Status.ERROR, Status.WARNING)}


def redis(clock_ahead_s=0.0, **info):
    return RedisFacts({**INFO, **info}, clock_ahead_s, None, None, {})


def cluster(brokers=3, **changes):
    given = {"partitions": 4, "copies": 3, "in_sync": 3, **changes}
    return KafkaFacts("k", brokers, {t.name: TopicFacts(**given, settings=dict(t.config)) for t in TOPICS})


def test_redis_that_is_well_has_no_problem():
    assert problems(check_redis(redis())) == {}


def test_redis_before_functions_is_too_old():
    assert "functions" in problems(check_redis(redis(redis_version="6.2.1")))["redis.version"].advice
    assert problems(check_redis(redis(redis_version="7.2.4", valkey_version="8.1.0"))) == {}
    assert "redis.version" in problems(check_redis(redis(redis_version="7.2.4", valkey_version="7.2.5")))


def test_failing_disk_is_said():
    assert "disk" in problems(check_redis(redis(aof_last_write_status="err")))["redis.persistence"].detail


def test_clock_that_differs_is_said_with_its_sign():
    assert "-3.5 s" in problems(check_redis(redis(-3.5)))["clock"].detail
    assert problems(check_redis(redis(1.0))) == {}


def test_cluster_that_is_well_has_no_problem():
    assert problems(check_topics(cluster())) == {}


def test_single_copies_on_a_cluster_are_a_warning():
    assert problems(check_topics(cluster(copies=1, in_sync=1)))["kafka.replication"].status is Status.WARNING
    assert problems(check_topics(cluster(brokers=1, copies=1, in_sync=1))) == {}


def test_replicas_out_of_sync_are_a_warning():
    assert "out of sync" in problems(check_topics(cluster(in_sync=2)))["kafka.replication"].detail


def test_longer_retention_than_declared_is_well_and_shorter_is_not():
    for value, expected in (
        ("-1", set()),
        (str(400 * 86_400_000), set()),
        ("1000", {"kafka.topic_settings"}),
    ):
        settings = {**TOPICS[0].config, "retention.ms": value}
        topics = {**cluster().topics, TOPICS[0].name: TopicFacts(4, 3, 3, settings)}
        assert set(problems(check_topics(KafkaFacts("k", 3, topics)))) == expected, value


def test_offset_before_the_start_of_the_log_means_lost_events():
    (found,) = check_offsets({("transactions", 1): 5}, {("transactions", 1): (9, 20)})
    assert found.status is Status.ERROR
    assert "transactions[1] goes on at 5, the log starts at 9" in found.detail


def test_offsets_in_the_log_tell_how_far_behind_they_are():
    (found,) = check_offsets({("transactions", 1): 5}, {("transactions", 1): (0, 20)})
    assert found.status is Status.OK
    assert "15 records" in found.detail


def test_worst_of_findings():
    def of(*statuses):
        return worst([Finding("x", status, "") for status in statuses])

    assert of(Status.OK, Status.WARNING, Status.ERROR) is Status.ERROR
    assert of(Status.OK, Status.WARNING) is Status.WARNING
    assert of(Status.OK, Status.SKIPPED) is Status.OK


def test_the_certificate_and_key_that_the_api_answers_with_are_looked_at(tmp_path):
    now = datetime(2026, 3, 1, tzinfo=UTC)
    issued = trustme.CA().issue_cert("api.test", not_before=now, not_after=now + timedelta(days=3))
    chain, key = tmp_path / "chain.pem", tmp_path / "open" / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    key.parent.mkdir(mode=0o755)
    key.write_text("")
    key.chmod(0o644)

    def looked_at(at):
        return problems(check_files(KafkaAccess(), RedisAccess(), at, [("api server", chain)], key))

    assert looked_at(now)["certificate.api_server"].detail.endswith("expires in 3 days")
    assert looked_at(now + timedelta(days=4))["certificate.api_server"].status is Status.ERROR
    assert looked_at(now)["secret.api_key"].advice == f"chmod 640 {key}"
