"""What the stream needs from outside besides the history store."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from models.churn_scores import ChurnResults
from models.pipeline import Events, ScoredChunk

Headers = tuple[tuple[str, bytes], ...]
TopicPartition = tuple[str, int]


class Outgoing(NamedTuple):
    """One message to publish.

    Attributes:
        headers: The trace context of what it came from.
        timestamp_ms: When it was published first, of what is passed on; `None` for now.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    timestamp_ms: int | None = None


class Publisher(Protocol):
    """Publishes messages."""

    async def publish(self, messages: Sequence[Outgoing], source: int) -> None:
        """Publish in order within each partition; returns when the broker has acknowledged all.

        Args:
            messages: Fraud scores are published when all others are.
            source: Partition of the input that they come from.

        Raises:
            LeaseLost: Somebody else publishes for this partition now.
            PublishInDoubt: Take the lease again and see what is there.
            DependencyError: It did not in time. Some may have been published: again is safe.
        """
        ...


class Observer(Protocol):
    """Counts what happens. No customer ever appears in it."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Time one step of a chunk."""
        ...

    def chunk(self, topic: str, records: int) -> None:
        """A chunk was committed."""
        ...

    def outcome(self, name: str, count: int = 1) -> None:
        """Events ended as `scored`, `duplicate`, `late`, `forwarded`, `labelled`, ..."""
        ...

    def dead_letter(self, reason: str) -> None:
        """A message was refused."""
        ...

    def retry(self, dependency: str) -> None:
        """A call to a dependency failed and is tried again."""
        ...

    def lease(self, event: str) -> None:
        """A lease was `acquired`, `fenced`, `rolled_back` or found `already_applied`."""
        ...

    def progress(self, topic: str, partition: int, next_offset: int) -> None:
        """How far a partition is."""
        ...

    def cache(self, lookups: int, misses: int) -> None:
        """Histories were looked up in the cache."""
        ...

    def scored(
        self,
        events: Events,
        chunk: ScoredChunk,
        published_ms: Sequence[int],
        traced: tuple[int, str] | None = None,
    ) -> None:
        """Transactions were scored and are part of the state.

        Args:
            events: All of the chunk.
            chunk: What became of them.
            published_ms: Row `i` was published then.
            traced: Row of one that is part of a sampled trace, and the id of that.
        """
        ...

    def churn(self, results: ChurnResults, trigger: str) -> None:
        """Customers were rescored for churn, because of an `event` or a `sweep`."""
        ...

    def label(self, name: str, decision: str, proba: float | None = None) -> None:
        """A label was put into a history.

        Args:
            name: The label.
            decision: What the model in use says of its transaction; `none` where it names none.
            proba: The probability behind that.
        """
        ...


@dataclass(frozen=True, slots=True)
class LogRange:
    """What the broker knows of a partition: first offset, next offset, the group's commit."""

    start: int
    end: int
    committed: int | None


class Log(Protocol):
    """What the worker asks of the log and of its consumer."""

    async def ranges(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, LogRange]:
        """Ranges of partitions."""
        ...

    async def bounds(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """First and next offsets of partitions."""
        ...

    async def seek_to_stored(self, partitions: set[TopicPartition]) -> None:
        """Ask `Positions` again for these and go there."""
        ...

    def seeks(self, topic: str, partition: int) -> int:
        """How often a partition was sought."""
        ...

    def check(self) -> None:
        """Raise what ended the Kafka client's own tasks, if anything did."""
        ...

    def assigned(self) -> set[TopicPartition]:
        """What the group gave to this worker; empty during a rebalance."""
        ...

    async def position(self, topic: str, partition: int) -> int:
        """Offset the consumer fetches next, behind markers and gaps too."""
        ...

    def delivered(self, topic: str, partition: int) -> int | None:
        """Offset behind the last record the consumer gave out; `None` while it is not sought."""
        ...

    def end(self, topic: str, partition: int) -> int | None:
        """Behind the last record of the log, as the last fetch knew it; `None` before the first."""
        ...
