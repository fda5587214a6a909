"""Topics on the broker, made as `schemas.topics` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from infra.addresses import check_bootstrap
from schemas.errors import ConfigError, DependencyError
from schemas.topics import TOPICS, TRANSACTIONS, Topic


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic after `TopicsAdmin.create`."""

    topic: Topic
    partitions: int
    created: bool


class TopicsAdmin:
    """Creates and checks topics.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of one request.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self, bootstrap: str, *, timeout_s: float = 10.0, options: Mapping[str, Any] | None = None
    ) -> None:
        check_bootstrap(bootstrap)
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = dict(options or {})

    async def create(self, partitions: int, replication: int = 1) -> list[TopicState]:
        """Create the topics that are missing.

        Args:
            partitions: Of topics that are made now. Those that exist keep theirs; the others follow
                the transactions topic.
            replication: Copies on a cluster.

        Raises:
            DependencyError: The broker does not answer.
            ConfigError: Existing topics have different numbers of partitions.
        """
        existing = await self.partitions()
        partitions = existing.get(TRANSACTIONS.name, partitions)
        missing = [topic for topic in TOPICS if topic.name not in existing]
        new = [NewTopic(t.name, partitions, replication, topic_configs=dict(t.config)) for t in missing]
        if new:
            await self._create(new)
        states = [
            TopicState(topic, existing.get(topic.name, partitions), topic.name not in existing)
            for topic in TOPICS
        ]
        for state in states:
            if state.topic.copartitioned and state.partitions != partitions:
                raise ConfigError(
                    f"topic {state.topic.name} has {state.partitions} partitions, {TRANSACTIONS.name} has "
                    f"{partitions}: both need the same number. Partitions cannot be taken away: add them "
                    "to the smaller one, and if there are histories run 'tidegate rebuild'"
                )
        return states

    async def source_partitions(self) -> int:
        """Number of partitions of the transactions topic.

        Raises:
            DependencyError: The broker does not answer, or the topic is not there yet.
        """
        existing = await self.partitions()
        # The others are nothing that a worker or a sink needs.
        missing = [t.name for t in TOPICS if t.copartitioned and t.name not in existing]
        if missing:
            raise DependencyError(f"topics are missing ({', '.join(missing)}): run 'tidegate topics create'")
        return existing[TRANSACTIONS.name]

    async def cluster_id(self) -> str:
        """The cluster's own name for itself; the embedded broker takes a new one with each new log."""
        client = await self._client()
        try:
            return str((await client.describe_cluster())["cluster_id"])
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        finally:
            await client.close()

    async def group_members(self, group: str) -> int:
        """Number of members of a consumer group; 0 for one that does not exist.

        Raises:
            DependencyError: The broker does not answer.
        """
        client = await self._client()
        try:
            (response,) = await client.describe_consumer_groups([group])
            return sum(len(described[5]) for described in response.groups)
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        finally:
            await client.close()

    async def partitions(self) -> dict[str, int]:
        """Number of partitions by topic, of all topics on the broker."""
        client = await self._client()
        try:
            described = await client.describe_topics()
            return {
                topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]
            }
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        finally:
            await client.close()

    async def _create(self, new: list[NewTopic]) -> None:
        client = await self._client()
        try:
            response = await client.create_topics(new, timeout_ms=int(self._timeout_s * 1000))
            for name, code, *rest in response.topic_errors:
                error = for_code(code)
                # Two workers may start at once.
                if code and error is not TopicAlreadyExistsError:
                    raise ConfigError(f"the broker did not create {name}: {error.__name__} {rest or ''}")
        except TopicAlreadyExistsError:
            return
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        finally:
            await client.close()

    async def _client(self) -> AIOKafkaAdminClient:
        client = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap,
            request_timeout_ms=int(self._timeout_s * 1000),
            **self._options,
        )
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            await client.close()
            raise self._away(error) from error
        return client

    def _away(self, error: Exception) -> DependencyError:
        return DependencyError(f"Kafka at {self._bootstrap} does not answer: {error}")
