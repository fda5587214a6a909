"""What the API needs of what the sink keeps, whatever it is made of."""

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
        """How much there is and how new it is."""
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

    async def totals(self, by: Sequence[str], which: EventFilter) -> Sequence[Row]:
        """Counts and sums of transactions by columns."""
        ...
