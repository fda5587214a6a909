"""Figures over all customers and transactions."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from api.deps import Given
from api.errors import problems
from api.ports import CustomerFilter, EventFilter
from api.routes.customers import QueryMoment
from api.shapes import Stored, json_answer, stored_until
from schemas.fields import EARLIEST, Moment, epoch_ms_to_rfc3339, to_epoch_ms
from schemas.score import Band, Decision
from schemas.transaction import Channel, Currency, TransactionType

router = APIRouter(
    prefix="/analytics",
    tags=["analytics"],
    responses=problems(
        refused="The request is refused.", away="The customer index or the event log does not answer."
    ),
)
CustomerGroup = Literal["churn_band", "country", "segment", "last_decision"]
EventGroup = Literal[
    "day",
    "hour",
    "decision",
    "channel",
    "transaction_type",
    "merchant_category",
    "merchant_country",
    "model_version",
]
_DEFAULT_DAYS = 30
_HOUR_DAYS = 31


class CustomerTotals(BaseModel):
    """Customers that have one value."""

    key: str | None = Field(description="Null is unknown.", examples=["high"])
    customers: int
    transactions: int
    flagged: int
    blocked: int
    churn_probability_mean: float | None
    value_at_risk: float


class CustomerFigures(Stored):
    """Customers by a property."""

    by: CustomerGroup
    groups: list[CustomerTotals]


class EventTotals(BaseModel):
    """Transactions that have the same values, of one currency: amounts are not converted."""

    keys: dict[str, str | None] = Field(examples=[{"day": "2026-03-01"}])
    currency: str
    transactions: int = Field(description="Corrections count as transactions of their own.")
    customers: int = Field(description="Different ones.")
    amount_minor: int = Field(
        description="Debits and credits added, which is no balance; of a corrected transaction every version "
        "counts, as in `transactions`. Exact, so it may have more than 64 bits."
    )
    credit_minor: int = Field(description="The part of `amount_minor` that are credits.")
    flagged: int
    blocked: int
    score_mean: float


class EventFigures(Stored):
    """Transactions by properties."""

    by: list[EventGroup]
    since: Moment
    until: Moment
    groups: list[EventTotals]


@router.get("/customers")
async def customers(
    given: Given,
    by: Annotated[CustomerGroup, Query(description="Property to group by.")] = "churn_band",
    churn_band: Annotated[Band | None, Query(description="Only these.")] = None,
    active_since: Annotated[QueryMoment | None, Query(description="With an event at or after it.")] = None,
) -> CustomerFigures:
    """Counts and sums of customers."""
    since = None if active_since is None else to_epoch_ms(active_since)
    which = CustomerFilter(churn_band=churn_band, active_since_ms=since)
    index = given.require_index()
    stored = await stored_until(given.events)
    rows = await index.totals(by, which)
    groups = [CustomerTotals.model_validate(row) for row in rows]
    return CustomerFigures.model_validate({"by": by, "groups": groups, **stored})


@router.get(
    "/transactions",
    response_model=EventFigures,
    responses=problems(
        refused="The request is refused, or there are more than 20,000 groups: `detail` says what to ask.",
        away="The event log does not answer, or not in time: then `detail` says what to ask instead.",
    ),
)
async def transactions(
    given: Given,
    by: Annotated[list[EventGroup], Query(max_length=3, description="Properties to group by.")] = ["day"],  # noqa: B006
    since: Annotated[QueryMoment | None, Query(description="30 days before `until` if left out.")] = None,
    until: Annotated[
        QueryMoment | None, Query(description="Before it; the end of today (UTC) if left out.")
    ] = None,
    decision: Annotated[Decision | None, Query(description="Only these.")] = None,
    currency: Annotated[Currency | None, Query(description="Only this.")] = None,
    channel: Annotated[Channel | None, Query(description="Only this.")] = None,
    transaction_type: Annotated[TransactionType | None, Query(description="Only this.")] = None,
) -> Response:
    """Counts and sums of transactions, from the event log. One group for each currency."""
    # To the end of the day: the same question is the same until tomorrow, and its answer can be kept.
    tomorrow = given.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    until_ms = to_epoch_ms(until or tomorrow)
    # No moment is before 1980, nor is one that is left out.
    default_ms = max(until_ms - _DEFAULT_DAYS * 86_400_000, to_epoch_ms(EARLIEST))
    since_ms = to_epoch_ms(since) if since else default_ms
    if "hour" in by:
        since_ms = max(since_ms, until_ms - _HOUR_DAYS * 86_400_000)
    equal: dict[str, Any] = {
        "decision": decision,
        "currency": currency,
        "channel": channel,
        "transaction_type": transaction_type,
    }
    names = list(dict.fromkeys(by))
    which = EventFilter(since_ms, until_ms, {n: v for n, v in equal.items() if v is not None})
    # Before the figures: they may have more than is said, never less.
    stored = await stored_until(given.require_events())
    groups = await given.require_events().totals(names, which)
    return json_answer(
        {
            "by": names,
            "since": epoch_ms_to_rfc3339(since_ms),
            "until": epoch_ms_to_rfc3339(until_ms),
            "groups": orjson.Fragment(groups),
            **stored,
        }
    )
