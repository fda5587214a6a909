"""Checks of what was found of a deployment; each says what to change."""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from features.codec import VERSION
from features.engine import Engine
from features.lifetime import customer_names
from infra.access import KafkaAccess, RedisAccess, expires
from infra.history_layout import UNDECIDED, entities_mark, wrong_entities
from infra.kafka_inspection import KafkaFacts
from infra.redis_inspection import RedisFacts
from models.anomaly import ANOMALY
from models.registry import NAMES, ModelRegistry
from schemas.errors import TidegateError
from schemas.topics import TOPICS, TRANSACTIONS

_CLOCK_S = 2.0
_EXPIRES_DAYS = 14
_STALE_DAYS = 45
_MEMORY_SHARE = 0.85
_LEAST_REDIS, _LEAST_VALKEY = 7, 8


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        check: What was looked at, such as `redis.eviction`.
        detail: What was found.
        advice: What to change; empty where all is well.
    """

    check: str
    status: Status
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, detail)


def error(check: str, detail: str, advice: str) -> Finding:
    """Something does not work or loses events."""
    return Finding(check, Status.ERROR, detail, advice)


def warning(check: str, detail: str, advice: str) -> Finding:
    """Something will not work or could be better."""
    return Finding(check, Status.WARNING, detail, advice)


def check_files(
    kafka: KafkaAccess,
    redis: RedisAccess,
    now: datetime,
    served: Iterable[tuple[str, Path]] = (),
    served_key: Path | None = None,
) -> Iterator[Finding]:
    """Certificates and passwords on disk; `served` are the API's own certificates, by what they are for."""
    for use, path in (*kafka.certificates(), *redis.certificates(), *served):
        check = f"certificate.{use.replace(' ', '_')}"
        try:
            left = (expires(path) - now).days
        except TidegateError as bad:
            yield error(check, str(bad), "point the setting at a file with certificates in PEM form")
            continue
        if left < 0:
            yield error(check, f"{path} expired {-left} days ago", "replace it")
        elif left < _EXPIRES_DAYS:
            yield warning(check, f"{path} expires in {left} days", "replace it")
        else:
            yield ok(check, f"valid for {left} days")
    for name, secret in (
        ("kafka_password", kafka.kafka_password_file),
        ("redis_password", redis.redis_password_file),
        ("kafka_key", kafka.kafka_key),
        ("redis_key", redis.redis_key),
        ("api_key", served_key),
    ):
        if secret is None or not secret.exists():
            continue
        mode = stat.S_IMODE(secret.stat().st_mode)
        if mode & 0o007 and not _closed(secret.parent):
            yield warning(
                f"secret.{name}", f"everybody on this machine can read {secret}", f"chmod 640 {secret}"
            )
        else:
            yield ok(f"secret.{name}", "closed to others")


def _closed(folder: Path) -> bool:
    """Whether others cannot enter a folder, so that the modes in it do not matter to them."""
    return not stat.S_IMODE(folder.stat().st_mode) & 0o001


def check_models(folder: Path, engine: Engine, now: datetime) -> Iterator[Finding]:
    """Models that are in use."""
    registry = ModelRegistry(folder)
    optional = [ANOMALY] if registry.roles(ANOMALY).champion else []
    for name in (*NAMES, *optional):
        try:
            if name == ANOMALY:
                card = registry.load_anomaly(registry.champion(name), engine).card
            else:
                card = registry.load(name, customer_names(engine)).card
        except TidegateError as bad:
            yield error(
                f"model.{name}", str(bad), f"run 'tidegate train {name}' or point TIDEGATE_MODELS elsewhere"
            )
            continue
        if card.features_hash != engine.hash:
            yield error(
                f"model.{name}",
                f"{card.version} was trained on feature declarations {card.features_hash}, this program has "
                f"{engine.hash}",
                f"run 'tidegate train {name}', or the version of Tidegate that trained it",
            )
        elif (age := (now - datetime.fromisoformat(card.created_at)).days) > _STALE_DAYS:
            yield warning(
                f"model.{name}", f"{card.version} is {age} days old", f"run 'tidegate train {name}'"
            )
        else:
            yield ok(f"model.{name}", f"{card.version} of {card.created_at}")


def check_topics(kafka: KafkaFacts) -> Iterator[Finding]:
    """Topics against their declarations."""
    missing = [topic.name for topic in TOPICS if topic.name not in kafka.topics]
    if missing:
        yield error("kafka.topics", f"missing: {', '.join(missing)}", "run 'tidegate topics create'")
    else:
        yield ok("kafka.topics", "all there")
    counts = {
        t.name: kafka.topics[t.name].partitions for t in TOPICS if t.name in kafka.topics and t.copartitioned
    }
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        yield error(
            "kafka.partitions",
            f"topics differ: {shown}",
            "add partitions to the topics that have fewer, then stop the workers and run 'tidegate rebuild': "
            "all need the same number",
        )
    elif counts:
        yield ok("kafka.partitions", f"{next(iter(counts.values()))} of each topic")
    wrong = [
        (name, setting, value, wanted)
        for topic in TOPICS
        if (name := topic.name) in kafka.topics and kafka.topics[name].settings
        for setting, wanted in topic.config.items()
        if not _is_enough(setting, value := kafka.topics[name].settings.get(setting, ""), wanted)
    ]
    for name, setting, value, wanted in wrong:
        yield error(
            "kafka.topic_settings",
            f"{name}: {setting} is {value or 'not set'}, declared is {wanted}",
            f"kafka-configs.sh --alter --entity-type topics --entity-name {name} "
            f"--add-config {setting}={wanted}",
        )
    if not wrong and kafka.topics:
        yield ok("kafka.topic_settings", "as declared or longer")
    yield from _check_copies(kafka)


def _is_enough(setting: str, value: str, wanted: str) -> bool:
    if setting == "retention.ms" and value.lstrip("-").isdigit():
        # -1 keeps everything.
        return int(value) < 0 or int(value) >= int(wanted)
    return value == wanted


def _check_copies(kafka: KafkaFacts) -> Iterator[Finding]:
    if kafka.brokers < 3:
        yield Finding("kafka.replication", Status.SKIPPED, f"{kafka.brokers} broker: nothing to copy to")
        return
    few = sorted(name for name, topic in kafka.topics.items() if topic.copies < 3)
    if few:
        yield warning(
            "kafka.replication",
            f"fewer than three copies: {', '.join(few)}",
            "kafka-reassign-partitions.sh, or make the topics with --replication 3",
        )
    behind = sorted(name for name, topic in kafka.topics.items() if topic.in_sync < topic.copies)
    if behind:
        yield warning(
            "kafka.replication", f"replicas out of sync: {', '.join(behind)}", "look at the brokers' logs"
        )
    if not few and not behind:
        yield ok("kafka.replication", "three copies, in sync")


def server_name(redis: RedisFacts) -> str:
    """What it is, with its version."""
    name = redis.info.get("server_name", "redis")
    return f"{name} {redis.info.get('valkey_version', redis.info.get('redis_version', '?'))}"


def check_redis(redis: RedisFacts) -> Iterator[Finding]:
    """Version, persistence, eviction, memory, clock."""
    info = redis.info
    valkey = info.get("valkey_version")
    version, least = (valkey, _LEAST_VALKEY) if valkey else (info.get("redis_version", "0"), _LEAST_REDIS)
    if int(str(version).split(".")[0]) < least:
        yield error("redis.version", server_name(redis), "Redis 7 or Valkey 8 is needed, for functions")
    else:
        yield ok("redis.version", server_name(redis))
    if not info.get("aof_enabled"):
        yield error(
            "redis.persistence",
            "the append-only file is off: a restart loses all histories",
            "CONFIG SET appendonly yes, and the same in its configuration",
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield error("redis.persistence", "the last write to disk failed", "look at its disk and its log")
    else:
        yield ok("redis.persistence", "append-only file on")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield error(
            "redis.eviction",
            f"maxmemory-policy is {policy}: an evicted history looks like a customer without one",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )
    else:
        yield ok("redis.eviction", policy)
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > _MEMORY_SHARE * limit:
        yield warning(
            "redis.memory",
            f"{used / limit:.0%} of {limit >> 20} MiB are used; at the limit it takes no writes",
            "give it more memory, or more partitions on more servers",
        )
    else:
        yield ok("redis.memory", f"{used >> 20} MiB" + (f" of {limit >> 20}" if limit else ", no limit"))
    if abs(redis.clock_ahead_s) > _CLOCK_S:
        yield error(
            "clock",
            f"Redis's clock is {redis.clock_ahead_s:+.1f} s from this machine's",
            "synchronise clocks: events from the future are refused by the broker's timestamps",
        )
    else:
        yield ok("clock", f"Redis's clock is {redis.clock_ahead_s:+.2f} s from this machine's")


def check_state(redis: RedisFacts, kafka: KafkaFacts, entities: Sequence[str] = ()) -> Iterator[Finding]:
    """Whether the histories are of this log, whole, and of a format that is read."""
    nothing = not any(name.startswith("next:") for meta in redis.meta.values() for name in meta)
    if nothing and any(meta.get("owner", "").startswith("reset-") for meta in redis.meta.values()):
        yield error("state", "a rebuild was interrupted", "run 'tidegate rebuild' again")
        return
    if nothing and kafka.processed:
        yield error(
            "state",
            f"the group has processed {kafka.processed} transactions, and nothing is stored: Redis was "
            "emptied, or another namespace is set",
            "restore Redis, or stop the workers and run 'tidegate rebuild'",
        )
        return
    if redis.cluster is None:
        yield Finding("state", Status.SKIPPED, "no worker has run in this namespace yet")
        return
    rebuild = "stop the workers and run 'tidegate rebuild', or point at the right one"
    if redis.cluster != kafka.cluster_id:
        yield error(
            "state.cluster",
            f"histories are of Kafka cluster {redis.cluster}, this is {kafka.cluster_id}",
            f"connect to the other one; or {rebuild}",
        )
    else:
        yield ok("state.cluster", redis.cluster)
    now = kafka.topics[TRANSACTIONS.name].partitions if TRANSACTIONS.name in kafka.topics else None
    if now is not None and redis.partitions != now:
        yield error(
            "state.partitions",
            f"histories were built from {redis.partitions} partitions, the topic now has {now}",
            rebuild,
        )
    else:
        yield ok("state.partitions", str(redis.partitions))
    other = {p: m["version"] for p, m in redis.meta.items() if m.get("version", str(VERSION)) != str(VERSION)}
    if other:
        shown = ", ".join(f"partition {p}: {v}" for p, v in other.items())
        yield error(
            "state.format",
            f"histories have another format than {VERSION}: {shown}",
            "run the version that wrote them, or 'tidegate rebuild'",
        )
    else:
        yield ok("state.format", str(VERSION))
    if redis.entities != UNDECIDED:
        wrong = wrong_entities(redis.entities, entities_mark(entities))
        yield (
            ok("state.entities", redis.entities or "none")
            if wrong is None
            else error("state.entities", *wrong.split(": ", 1))
        )
    yield _check_whole(redis)


def _check_whole(redis: RedisFacts) -> Finding:
    check, building = "state.whole", [p for p, meta in redis.meta.items() if "building" in meta]
    if not building:
        return ok(check, "of all partitions")
    shown = ", ".join(map(str, building))
    return warning(
        check,
        f"partitions {shown} are being built from the log: lookups of their customers are refused, "
        "or scored without history",
        "let the workers come to the end of the log",
    )


def check_offsets(
    stored: Mapping[tuple[str, int], int], bounds: Mapping[tuple[str, int], tuple[int, int]]
) -> Iterator[Finding]:
    """Offsets that come next, against first and next offset of the log."""
    problems: list[Finding] = []
    for (topic, partition), offset in sorted(stored.items()):
        start, end = bounds[topic, partition]
        if offset < start:
            problems.append(
                error(
                    "state.offsets",
                    f"{topic}[{partition}] goes on at {offset}, the log starts at {start}: "
                    "events were deleted before they were processed",
                    "restore the topic, or run 'tidegate rebuild' to build from what is left",
                )
            )
        elif offset > end:
            problems.append(
                error(
                    "state.offsets",
                    f"{topic}[{partition}] goes on at {offset}, the log ends at {end}: "
                    "it was made again or lost its end",
                    "restore the topic, or run 'tidegate rebuild'",
                )
            )
    behind = sum(max(0, bounds[tp][1] - offset) for tp, offset in stored.items())
    yield from problems or [ok("state.offsets", f"in the log; {behind} records behind")]


def worst(findings: list[Finding]) -> Status:
    """The worst status; a skipped check is none."""
    order = [Status.ERROR, Status.WARNING]
    return next((status for status in order if any(f.status is status for f in findings)), Status.OK)
