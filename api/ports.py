"""What the API needs of what the sink keeps, whatever it is made of."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from schemas.errors import TidegateError

Row = Mapping[str, Any]
Direction = Literal["asc", "desc"]


class InvalidCursor(TidegateError):
    """A cursor that was not given out for this question: HTTP 422."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in their order, and where the next page begins; `None` behind the last."""

    rows: Sequence[Row]
    next: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class CustomerFilter:
    """Which customers are asked for. `None` asks for all."""

    churn_band: str | None = None
    decision: str | None = None
    country: str | None = None
    segment: str | None = None
    min_transactions: int | None = None
    min_churn: float | None = None
    active_since_ms: int | None = None
    silent_since_ms: int | None = None


class CustomerIndex(Protocol):
    """One row for each customer. Every method raises `DependencyError` when it is away."""

    async def page(
        self,
        which: CustomerFilter,
        sort: str,
        direction: Direction,
        after: tuple[Any, ...] | None,
        limit: int,
    ) -> Page:
        """Customers, sorted by a column and then by their ids."""
        ...

    async def get(self, customer_id: str) -> Row | None:
        """A customer; `None` for one never seen."""
        ...

    async def totals(self, by: str, which: CustomerFilter) -> Sequence[Row]:
        """Counts and sums of customers by a column."""
        ...

    async def status(self) -> Row:
        """How much there is."""
        ...


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which transactions are asked for: event times in `[from_ms, to_ms)`."""

    from_ms: int | None = None
    to_ms: int | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)
    min_score: float | None = None


class EventLog(Protocol):
    """Accepted transactions with their scores. Every method raises `DependencyError` when it is away."""

    async def of_customer(
        self, customer: Row, which: EventFilter, after: tuple[Any, ...] | None, limit: int
    ) -> Page:
        """A customer's transactions, newest first."""
        ...

    async def totals(self, by: Sequence[str], which: EventFilter) -> bytes:
        """Counts and sums of transactions by columns: a JSON array of `EventTotals`.

        Raises:
            QuestionError: There are more groups than an answer has.
        """
        ...

    async def newest(self) -> tuple[int | None, int | None]:
        """The newest event and the newest score that are stored, in ms; `None` where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a write, kept for whoever asks again with the same key."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a key.

    Attributes:
        request: Digest of the request that came with it first.
        reply: Its answer; `None` while it is being made.
    """

    request: str
    reply: Reply | None

    @classmethod
    def of(cls, request: str, status: int = 0, content_type: str = "", body: bytes = b"") -> "Kept":
        """What is known of a key, from its parts; without a status the answer is being made."""
        return cls(request, Reply(status, content_type, body) if status else None)


class ReplyStore(Protocol):
    """Answers by idempotency key. Every method raises `DependencyError` when it is away."""

    async def begin(self, key: str, request: str) -> Kept | None:
        """Claim a key for a request; what is known of it, where it was claimed before.

        A claim of which cannot be said whether it was made is taken back: the key can be tried again soon.
        """
        ...

    async def finish(self, key: str, request: str, reply: Reply) -> None:
        """Keep the answer."""
        ...

    async def forget(self, key: str) -> None:
        """Let go of a key whose request failed, so that it can be tried again."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreFilter:
    """Which live scores a client wants; empty is all."""

    decisions: frozenset[str] = frozenset()
    customers: frozenset[str] = frozenset()


class Subscription(Protocol):
    """One client's live scores."""

    async def next(self, timeout_s: float) -> Sequence["LiveScore"]:
        """What has come, at least one score; nothing after the time.

        Raises:
            Dropped: The client is too slow, or the feed has ended.
        """
        ...

    @property
    def position(self) -> str:
        """The event id behind everything that was given out."""
        ...

    @property
    def dropped(self) -> asyncio.Event:
        """Set when the client is let go."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class LiveScore:
    """A score as it was published.

    Attributes:
        id: Event id: a vector of partitions and next offsets. Everything before it was given out.
        score: JSON.
    """

    id: str
    score: bytes


class Dropped(TidegateError):
    """A live client is let go, for the reason it says."""


class InvalidPosition(TidegateError):
    """An event id that was not given out: HTTP 422."""


class LiveFeed(Protocol):
    """Scores as they are published, for many clients from one consumer."""

    async def subscribe(self, which: ScoreFilter, after: str | None) -> Subscription:
        """A subscription from now, or from an event id.

        Raises:
            InvalidPosition: The id is of another log, or what follows it is not kept any more.
            DependencyError: Kafka is away.
        """
        ...

    async def run(self) -> None:
        """Read until cancelled."""
        ...

    def status(self) -> Row:
        """How many clients there are and how far the feed is."""
        ...
