"""Customers by SQL: pages, one, and totals."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from infra.answers import Answers
from infra.database import CUSTOMERS, EVENT_FILES, Database
from schemas.errors import DependencyError

T = TypeVar("T")
# Totals look at every customer; the sink writes every two seconds.
_TOTALS_S = 1.0
_KEPT_TOTALS = 256
_UNKNOWN: Mapping[str, Any] = {
    **dict.fromkeys(("first_event_ms", "last_event_ms", "churn_as_of_ms"), 0),
    **dict.fromkeys(("last_score", "churn_probability", "value_at_risk"), -1),
    **dict.fromkeys(("last_decision", "churn_band", "country", "segment", "opened_on"), ""),
}

_COLUMNS = [(column.name, _UNKNOWN.get(column.name)) for column in CUSTOMERS.columns]
# Made once: putting a statement together takes as long as the database does to answer it.
_ONE = sa.select(CUSTOMERS).where(CUSTOMERS.c.customer_id == sa.bindparam("asked"))


class Filter(Protocol):
    """Which customers are asked for; `None` asks for all."""

    @property
    def churn_band(self) -> str | None: ...  # noqa: D102
    @property
    def decision(self) -> str | None: ...  # noqa: D102
    @property
    def country(self) -> str | None: ...  # noqa: D102
    @property
    def segment(self) -> str | None: ...  # noqa: D102
    @property
    def min_transactions(self) -> int | None: ...  # noqa: D102
    @property
    def min_churn(self) -> float | None: ...  # noqa: D102
    @property
    def active_since_ms(self) -> int | None: ...  # noqa: D102
    @property
    def silent_since_ms(self) -> int | None: ...  # noqa: D102


class SqlCustomerIndex:
    """The reading side of the customer index.

    Args:
        database: Written by the sink; it need not be there yet.
        page: Makes a page of rows and the next position.
        timeout_s: Limit of one question.
    """

    def __init__(self, database: Database, page: Callable[..., Any], *, timeout_s: float = 5.0) -> None:
        self._database = database
        self._page = page
        self._timeout_s = timeout_s
        self._ready = False
        self._totals = Answers[Sequence[Mapping[str, Any]]](_KEPT_TOTALS, _TOTALS_S)

    async def page(
        self, which: Filter, sort: str, direction: str, after: tuple[Any, ...] | None, limit: int
    ) -> Any:
        """Customers sorted by a column, then by id; a page ends with the position of the next."""
        id_, by = CUSTOMERS.c.customer_id, CUSTOMERS.c[sort]
        # An order by the id alone names it once.
        keys = [id_] if sort == "customer_id" else [by, id_]
        statement = sa.select(CUSTOMERS).where(*_conditions(which)).limit(limit + 1)
        statement = statement.order_by(*(k.asc() if direction == "asc" else k.desc() for k in keys))
        if after is not None:
            here, there = sa.tuple_(*keys), sa.tuple_(*(sa.literal(v) for v in after))
            statement = statement.where(here > there if direction == "asc" else here < there)

        def ask(connection: sa.Connection) -> Any:
            found = connection.execute(statement).all()
            more = len(found) > limit
            following = tuple(getattr(found[limit - 1], k.name) for k in keys) if more else None
            return self._page([_known(row) for row in found[:limit]], following)

        return await self._ask(ask)

    async def get(self, customer_id: str) -> Mapping[str, Any] | None:
        """A customer; `None` for one never seen."""

        def ask(connection: sa.Connection) -> Mapping[str, Any] | None:
            found = connection.execute(_ONE, {"asked": customer_id}).first()
            return None if found is None else _known(found)

        return await self._ask(ask)

    async def totals(self, by: str, which: Filter) -> Sequence[Mapping[str, Any]]:
        """Counts and sums by a column; unknown is its own group. An answer is kept for a second."""
        c, key = CUSTOMERS.c, CUSTOMERS.c[by]
        at_risk = sa.case((c.value_at_risk > 0, c.value_at_risk), else_=0.0)
        known = sa.case((c.churn_probability >= 0, c.churn_probability))
        statement = (
            sa.select(
                key.label("key"),
                sa.func.count().label("customers"),
                sa.func.sum(c.transactions).label("transactions"),
                sa.func.sum(c.flagged).label("flagged"),
                sa.func.sum(c.blocked).label("blocked"),
                sa.func.avg(known).label("churn_probability_mean"),
                sa.func.sum(at_risk).label("value_at_risk"),
            )
            .where(*_conditions(which))
            .group_by(key)
            .order_by(sa.func.count().desc(), key)
        )

        def ask(connection: sa.Connection) -> Sequence[Mapping[str, Any]]:
            rows = connection.execute(statement).mappings().all()
            whole = ("customers", "transactions", "flagged", "blocked")
            return [{**row, "key": row["key"] or None, **{n: int(row[n]) for n in whole}} for row in rows]

        conditions = (which.churn_band, which.decision, which.country, which.segment)
        numbers = (which.min_transactions, which.min_churn, which.active_since_ms, which.silent_since_ms)
        return await self._totals.get((by, conditions, numbers), lambda: self._ask(ask))

    async def status(self) -> Mapping[str, Any]:
        """How much there is."""
        counted = sa.select(
            sa.func.count().label("files"),
            sa.func.coalesce(sa.func.sum(EVENT_FILES.c.rows), 0).label("rows"),
            sa.func.coalesce(sa.func.sum(EVENT_FILES.c.bytes), 0).label("bytes"),
        ).where(EVENT_FILES.c.retired_ms == 0)

        def ask(connection: sa.Connection) -> Mapping[str, Any]:
            row = connection.execute(counted).mappings().one()
            return {name: None if value is None else int(value) for name, value in row.items()}

        return await self._ask(ask)

    async def _ask(self, ask: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            if not self._ready:
                if not self._database.ready():
                    raise DependencyError("there is no customer index yet: start 'tidegate sink'")
                self._ready = True
            with self._database.begin() as connection:
                return ask(connection)

        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.to_thread(run)
        except TimeoutError:
            raise DependencyError("the customer index does not answer in time") from None


def _conditions(which: Filter) -> list[sa.ColumnElement[bool]]:
    c = CUSTOMERS.c
    found = {
        c.churn_band: which.churn_band,
        c.last_decision: which.decision,
        c.country: which.country,
        c.segment: which.segment,
    }
    conditions: list[sa.ColumnElement[bool]] = [
        column == value for column, value in found.items() if value is not None
    ]
    if which.min_transactions is not None:
        conditions.append(c.transactions >= which.min_transactions)
    if which.min_churn is not None:
        conditions.append(c.churn_probability >= which.min_churn)
    if which.active_since_ms is not None:
        conditions.append(c.last_event_ms >= which.active_since_ms)
    if which.silent_since_ms is not None:
        conditions += [c.last_event_ms < which.silent_since_ms, c.last_event_ms > 0]
    return conditions


def _known(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        name: None if value == unknown else value
        for (name, unknown), value in zip(_COLUMNS, row, strict=True)
    }
