"""What a Kafka cluster says of itself and of our topics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from infra.addresses import check_bootstrap
from schemas.errors import DependencyError
from schemas.topics import TOPICS, TRANSACTIONS


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic as the cluster has it.

    Attributes:
        copies: Fewest replicas of a partition.
        in_sync: Fewest replicas of a partition that are in sync.
        settings: By name; empty where the cluster does not tell.
    """

    partitions: int
    copies: int
    in_sync: int
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """One cluster, with those of our topics that exist.

    Attributes:
        processed: Transactions that the group has committed as processed, as far as the cluster tells.
    """

    cluster_id: str
    brokers: int
    topics: Mapping[str, TopicFacts]
    processed: int = 0


async def inspect_kafka(
    bootstrap: str, *, group: str = "", timeout_s: float = 10.0, options: Mapping[str, Any] | None = None
) -> KafkaFacts:
    """Ask a cluster.

    Raises:
        DependencyError: It does not answer.
    """
    check_bootstrap(bootstrap)
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, request_timeout_ms=int(timeout_s * 1000), **(options or {})
    )
    try:
        await client.start()
        cluster = await client.describe_cluster()
        described = {t["topic"]: t for t in await client.describe_topics() if not t["error_code"]}
        names = [topic.name for topic in TOPICS if topic.name in described]
        settings = await _settings(client, names)
        topics = {
            name: TopicFacts(
                len(described[name]["partitions"]),
                min((len(p["replicas"]) for p in described[name]["partitions"]), default=0),
                min((len(p["isr"]) for p in described[name]["partitions"]), default=0),
                settings.get(name, {}),
            )
            for name in names
        }
        transactions = topics.get(TRANSACTIONS.name)
        processed = await _processed(client, group, transactions) if group and transactions else 0
        return KafkaFacts(str(cluster["cluster_id"]), len(cluster["brokers"]), topics, processed)
    except (KafkaError, OSError, TimeoutError) as error:
        raise DependencyError(
            f"Kafka at {bootstrap} does not answer: {str(error) or type(error).__name__}"
        ) from error
    finally:
        await client.close()


async def _processed(client: AIOKafkaAdminClient, group: str, transactions: TopicFacts) -> int:
    wanted = [TopicPartition(TRANSACTIONS.name, p) for p in range(transactions.partitions)]
    try:
        committed = await client.list_consumer_group_offsets(group, partitions=wanted)
    except KafkaError:
        # Not every user may ask for groups.
        return 0
    return sum(max(0, at.offset) for at in committed.values())


async def _settings(client: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for answer in await client.describe_configs(wanted):
        for code, _, _, name, entries, *_ in answer.resources:
            if not code:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found
