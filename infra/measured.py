"""Redis and Kafka clients that note how long each call took and whether it failed."""

from collections.abc import Sequence
from typing import Any

from features.ports import Commit, CustomerState, Lease, Outcome
from infra.batch_producer import BatchProducer, Message
from infra.dependency_metrics import DependencyMetrics
from infra.history_store import RedisHistoryStore


class MeasuredHistoryStore(RedisHistoryStore):
    """A `RedisHistoryStore` with metrics."""

    def __init__(self, url: str, metrics: DependencyMetrics, **options: Any) -> None:
        super().__init__(url, **options)
        self._metrics = metrics

    async def acquire(self, partition: int) -> Lease:
        """Take the lease of a partition."""
        with self._metrics.call("redis", "acquire"):
            return await super().acquire(partition)

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        """Stored histories."""
        with self._metrics.call("redis", "load"):
            return await super().load(partition, customer_ids, lease)

    async def apply_all(self, commits: Sequence[tuple[Lease, Commit]]) -> list[Outcome]:
        """Apply commits."""
        with self._metrics.call("redis", "apply"):
            return await super().apply_all(commits)

    async def complete(self, lease: Lease) -> None:
        """Say that a partition is built."""
        with self._metrics.call("redis", "complete"):
            await super().complete(lease)

    async def silent_since(self, partition: int, after_ms: int, before_ms: int) -> list[str]:
        """Customers whose newest event is in a span of time."""
        with self._metrics.call("redis", "silent_since"):
            return await super().silent_since(partition, after_ms, before_ms)

    async def read(self, customer_id: str, *, scores: bool = True) -> CustomerState | None:
        """State of a customer."""
        with self._metrics.call("redis", "read"):
            return await super().read(customer_id, scores=scores)

    async def ping(self) -> None:
        """Raise unless the store answers."""
        with self._metrics.call("redis", "ping"):
            await super().ping()

    async def require_usable(self, entities: Sequence[str] = ()) -> None:
        """Raise unless customers can be answered for."""
        with self._metrics.call("redis", "ping"):
            await super().require_usable(entities)


class MeasuredProducer:
    """A producer with metrics."""

    def __init__(self, producer: BatchProducer, metrics: DependencyMetrics) -> None:
        self._producer = producer
        self._metrics = metrics

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        await self._producer.stop()

    async def take(self, partition: int) -> None:
        """Become the producer of a source partition."""
        with self._metrics.call("kafka", "take"):
            await self._producer.take(partition)

    async def publish(self, messages: Sequence[Message], source: int) -> None:
        """Publish; returns when the broker has acknowledged all."""
        with self._metrics.call("kafka", "publish"):
            counts = await self._producer.publish(messages, source)
        self._metrics.published(counts)
