"""Looks at a deployment and says what to change. Changes nothing itself."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.access import KafkaAccess, RedisAccess
from infra.checks import (
    Finding,
    Status,
    check_files,
    check_models,
    check_offsets,
    check_redis,
    check_state,
    check_topics,
    error,
    ok,
    server_name,
)
from infra.feature_file import load_engine
from infra.kafka_inspection import KafkaFacts, inspect_kafka
from infra.log_tail import LogTail
from infra.redis_inspection import RedisFacts, inspect_redis
from infra.sink_inspection import check_sink, inspect_sink
from schemas.errors import TidegateError
from schemas.topics import FRAUD_SCORES


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is looked at."""

    bootstrap: str
    redis_url: str
    namespace: str
    models: Path
    kafka: KafkaAccess
    redis: RedisAccess
    timeout_s: float = 5.0
    features: Path | None = None
    entities: str = ""
    attributes: str = ""
    group: str = "tidegate"
    database_url: str = ""
    events: Path = Path()
    served: Sequence[tuple[str, Path]] = ()
    served_key: Path | None = None


async def examine(deployment: Deployment, now: datetime | None = None) -> list[Finding]:
    """Run every check; one that fails does not keep others from running."""
    now = now or datetime.now(UTC)
    d = deployment
    engine = load_engine(d.features, d.entities, d.attributes)
    findings = [
        *check_files(d.kafka, d.redis, now, d.served, d.served_key),
        *check_models(d.models, engine, now),
    ]
    kafka: KafkaFacts | None = None
    redis: RedisFacts | None = None
    try:
        kafka = await inspect_kafka(
            d.bootstrap, group=d.group, timeout_s=d.timeout_s, options=d.kafka.options()
        )
        findings += [ok("kafka.connection", f"cluster {kafka.cluster_id}"), *check_topics(kafka)]
    except TidegateError as bad:
        findings.append(
            error(
                "kafka.connection",
                str(bad),
                "check TIDEGATE_BOOTSTRAP and TIDEGATE_KAFKA_*, the network and the broker's log",
            )
        )
    try:
        options = d.redis.options(d.redis_url)
        redis = await inspect_redis(
            d.redis_url, namespace=d.namespace, timeout_s=d.timeout_s, options=options
        )
        findings += [ok("redis.connection", server_name(redis)), *check_redis(redis)]
    except TidegateError as bad:
        findings.append(
            error(
                "redis.connection",
                str(bad),
                "check TIDEGATE_REDIS_URL and TIDEGATE_REDIS_*, the network, the user's rights, Redis's log",
            )
        )
    if kafka is not None and redis is not None:
        findings += check_state(redis, kafka, sorted({feature.entity for feature in engine.entities}))
        findings += await _check_offsets(d, redis, kafka)
    else:
        findings.append(Finding("state", Status.SKIPPED, "needs Kafka and Redis"))
    return [*findings, *await _check_sink(d, kafka)]


async def _check_sink(d: Deployment, kafka: KafkaFacts | None) -> list[Finding]:
    """Whether event log and index fit each other and the log."""
    if not d.database_url:
        return []
    facts = await asyncio.to_thread(inspect_sink, d.database_url, d.events, timeout_s=d.timeout_s)
    if isinstance(facts, Finding):
        return [facts]
    scores = kafka.topics.get(FRAUD_SCORES.name) if kafka is not None else None
    if kafka is None or scores is None:
        return list(check_sink(facts, None, {}))
    try:
        bounds = await _bounds(d, [(FRAUD_SCORES.name, p) for p in range(scores.partitions)])
    except TidegateError:
        return list(check_sink(facts, None, {}))
    return list(check_sink(facts, kafka.cluster_id, bounds, scores.partitions))


async def _check_offsets(d: Deployment, redis: RedisFacts, kafka: KafkaFacts) -> list[Finding]:
    """Whether the log still has what comes next."""
    stored = {
        (name.removeprefix("next:"), partition): int(offset)
        for partition, meta in redis.meta.items()
        for name, offset in meta.items()
        if name.startswith("next:")
    }
    stored = {
        (topic, p): offset
        for (topic, p), offset in stored.items()
        if topic in kafka.topics and p < kafka.topics[topic].partitions
    }
    if not stored or redis.cluster != kafka.cluster_id:
        return [Finding("state.offsets", Status.SKIPPED, "no offsets of this log")]
    try:
        bounds = await _bounds(d, stored)
    except TidegateError as bad:
        return [Finding("state.offsets", Status.SKIPPED, str(bad))]
    return list(check_offsets(stored, bounds))


async def _bounds(
    d: Deployment, partitions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], tuple[int, int]]:
    """First and next offset of partitions."""
    tail = LogTail(d.bootstrap, timeout_s=d.timeout_s * 2, options=d.kafka.options())
    try:
        await tail.start()
        return await tail.bounds(partitions)
    finally:
        await tail.stop()
