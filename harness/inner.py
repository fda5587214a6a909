"""The worker's inner path in this process: messages in, commits out, no broker."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from features.ports import HistoryStore
from models.churn_scores import ChurnResults
from models.model_set import Models
from models.pipeline import Events, ScoredChunk
from schemas.fields import from_epoch_ms, to_rfc3339
from schemas.topics import TRANSACTIONS
from stream_app.delivery import Delivery, Failures, Placement
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.processor import TransactionProcessor
from stream_app.retry import Retry


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A Kafka record, as far as the path looks at one."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int
    topic: str = TRANSACTIONS.name
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class StepTimes:
    """An observer that adds up processor seconds by step and counts outcomes."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    outcomes: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - before

    def step(self, name: str) -> AbstractContextManager[None]:
        """Time one step of a chunk."""
        return self._timed(name)

    def outcome(self, name: str, count: int = 1) -> None:
        """Count."""
        self.outcomes[name] += count

    def dead_letter(self, reason: str) -> None:
        """Count."""
        self.outcomes[f"dead letter: {reason}"] += 1

    def chunk(self, topic: str, records: int) -> None:
        """Not looked at."""

    def retry(self, dependency: str) -> None:
        """Not looked at."""

    def lease(self, event: str) -> None:
        """Not looked at."""

    def progress(self, topic: str, partition: int, next_offset: int) -> None:
        """Not looked at."""

    def cache(self, lookups: int, misses: int) -> None:
        """Not looked at."""

    def scored(
        self,
        events: Events,
        chunk: ScoredChunk,
        published_ms: Sequence[int],
        traced: tuple[int, str] | None = None,
    ) -> None:
        """Count."""
        self.outcomes["scored"] += len(chunk.accepted)

    def churn(self, results: ChurnResults, trigger: str) -> None:
        """Not looked at."""

    def label(self, name: str, decision: str, proba: float | None = None) -> None:
        """Not looked at."""


class _Nowhere:
    async def publish(self, messages: Sequence[Outgoing], source: int) -> None:
        """Take the messages and forget them."""


class InnerPath:
    """Scores chunks of one partition with the worker's own processor.

    Args:
        store: Where histories go.
        models: What to score with.
        cached_records: Bound of the cache.
    """

    def __init__(self, store: HistoryStore, models: Models, *, cached_records: int = 4_000_000) -> None:
        self.times = StepTimes()
        self.partition = Partition(0, store, cached_records)
        self._store = store

        async def these(partition: Partition) -> Models:
            return models

        self._processor = TransactionProcessor(
            Delivery(
                store,
                _Nowhere(),
                self.times,
                Retry(0.1, 1.0, 10.0, self.times.retry),
                Placement(1, lambda customer_id, partitions: 0),
                lambda: to_rfc3339(from_epoch_ms(int(time.time() * 1000))),
            ),
            these,
        )

    async def start(self) -> None:
        """Take the lease."""
        lease = await self._store.acquire(0)
        # There is no log that it would have to be built from.
        await self._store.complete(lease)
        self.partition.begin(lease, {}, {})

    async def run(self, chunk: Sequence[Any]) -> None:
        """Process one chunk."""
        records = iter(chunk)
        while (part := self._processor.parse(self.partition, records)) is not None:
            failures: Failures = {}
            await self._processor.process([(self.partition, part)], failures)
            for failure in failures.values():
                raise failure
