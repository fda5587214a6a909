"""Lookups of customers: from the state that the stream keeps, and from the index and the log of the sink."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, BeforeValidator, Field

from api.cursor import decode_cursor, encode_cursor
from api.deps import CustomerId, Given, Services, known_state
from api.errors import UnknownCustomer, problems
from api.paths import ID, ID_BEFORE
from api.ports import CustomerFilter, Direction, EventFilter, Row
from api.shapes import (
    HISTORY_CUT,
    Cursor,
    CustomerOut,
    CustomerPage,
    Limit,
    TransactionPage,
    customer_out,
    event_out,
    json_answer,
)
from features.codec import decode
from features.ports import CustomerState
from features.retention import history_cut
from schemas.errors import DependencyError, HistoryError, HistoryIncomplete
from schemas.fields import CountryCode, Moment, epoch_ms_to_rfc3339, to_epoch_ms
from schemas.score import Band, ChurnScore, Decision, FraudScore

# The rest of a path: an id may have a slash in it.
router = APIRouter(
    prefix="/customers",
    tags=["customers"],
    responses=problems(
        unknown_customer="No transaction or profile of this customer was ever accepted.",
        refused="The request is refused: not an id, not a moment with an offset.",
        away="Redis does not answer, or what it has stored cannot be read.",
    ),
)


def _epoch_ms(text: str) -> int | str:
    """A number where the text is one: in a query everything is text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


_PAGE: Final = 20
_ALL: Final = EventFilter(None, None, {}, None)
QueryMoment = Annotated[Moment, BeforeValidator(_epoch_ms)]


class CustomerFeatures(BaseModel):
    """Features of a customer as of a moment."""

    customer_id: str
    as_of: Moment
    declarations: str = Field(description="Identity of the feature declarations.")
    transactions: int = Field(description="Transactions ever accepted.")
    features: dict[str, float | None] = Field(
        description="Null is unknown. What compares with an event is null."
    )
    history_cut: bool = Field(default=False, description=HISTORY_CUT)


class CustomerScores(BaseModel):
    """The newest scores of a customer."""

    customer_id: str
    fraud: list[FraudScore] = Field(description="Newest first.")
    churn: ChurnScore | None


Sort = Literal[
    "customer_id",
    "last_event_ms",
    "transactions",
    "flagged",
    "last_score",
    "churn_probability",
    "value_at_risk",
]


@router.get("", response_model=CustomerPage)
async def list_customers(
    given: Given,
    sort: Annotated[Sort, Query(description="What to sort by; then by id.")] = "customer_id",
    order: Annotated[Direction, Query(description="Smallest or largest first.")] = "asc",
    churn_band: Annotated[Band | None, Query(description="Band of the newest churn score.")] = None,
    decision: Annotated[Decision | None, Query(description="Decision on the newest transaction.")] = None,
    country: Annotated[CountryCode | None, Query(description="Of the profile.")] = None,
    segment: Annotated[str | None, Query(max_length=32, description="Of the profile.")] = None,
    min_transactions: Annotated[int | None, Query(ge=0, le=2**53, description="At least.")] = None,
    min_churn: Annotated[
        float | None, Query(ge=0, le=1, allow_inf_nan=False, description="Least churn probability.")
    ] = None,
    active_since: Annotated[QueryMoment | None, Query(description="With an event at or after it.")] = None,
    silent_since: Annotated[QueryMoment | None, Query(description="With no event at or after it.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Customers, filtered and sorted, page by page."""
    which = CustomerFilter(
        churn_band,
        decision,
        country,
        segment,
        min_transactions,
        min_churn,
        None if active_since is None else to_epoch_ms(active_since),
        None if silent_since is None else to_epoch_ms(silent_since),
    )
    asked = {"which": which, "sort": sort, "order": order}
    figure: type = float if sort in {"last_score", "churn_probability", "value_at_risk"} else int
    after = decode_cursor(cursor, asked, (str,) if sort == "customer_id" else (figure, str))
    page = await given.require_index().page(which, sort, order, after, limit)
    return json_answer(
        {
            "customers": [customer_out(row) for row in page.rows],
            "next_cursor": encode_cursor(page.next, asked),
        }
    )


@router.get(f"/{ID_BEFORE}/transactions", response_model=TransactionPage)
async def transactions(
    customer_id: CustomerId,
    given: Given,
    since: Annotated[QueryMoment | None, Query(description="Event time at or after it.")] = None,
    until: Annotated[QueryMoment | None, Query(description="Event time before it.")] = None,
    decision: Annotated[Decision | None, Query(description="Of the score.")] = None,
    min_score: Annotated[
        float | None, Query(ge=0, le=1, allow_inf_nan=False, description="Least score.")
    ] = None,
    limit: Limit = _PAGE,
    cursor: Cursor = None,
) -> Response:
    """Accepted transactions with their scores, newest first, from the event log."""
    which = EventFilter(
        None if since is None else to_epoch_ms(since),
        None if until is None else to_epoch_ms(until),
        {} if decision is None else {"decision": decision},
        min_score,
    )
    found = await transactions_page(given, customer_id, which, limit, cursor)
    return json_answer(found)


async def transactions_page(
    given: Services,
    customer_id: str,
    which: EventFilter = _ALL,
    limit: int = _PAGE,
    cursor: str | None = None,
) -> dict[str, Any]:
    """A `TransactionPage`."""
    asked = {"customer": customer_id, "which": which}
    after = decode_cursor(cursor, asked, (int, int, int))
    customer = await given.require_index().get(customer_id)
    if customer is None:
        raise UnknownCustomer("no transaction of this customer is in the event log")
    page = await given.require_events().of_customer(customer, which, after, limit)
    return {
        "customer_id": customer_id,
        "transactions": [event_out(row) for row in page.rows],
        "next_cursor": encode_cursor(page.next, asked),
    }


@router.get(f"/{ID_BEFORE}/features", response_model=CustomerFeatures)
async def features(
    customer_id: CustomerId,
    given: Given,
    as_of: Annotated[
        QueryMoment | None,
        Query(description="RFC 3339 with an offset (in a URL, + is %2B) or epoch ms; now if left out."),
    ] = None,
) -> Response:
    """Features as of now: windows that have emptied since the last event read as empty.

    As of more than 30 days before the customer's newest event, windows may reach behind what is kept:
    `history_cut` says so.
    """
    return json_answer(await features_now(given, customer_id, as_of))


async def features_now(given: Services, customer_id: str, as_of: datetime | None = None) -> dict[str, Any]:
    """`CustomerFeatures`."""
    state = await known_state(given, customer_id, scores=False)
    history = decode(state.history)
    as_of_ms = to_epoch_ms(as_of or given.now())
    engine = given.models.engine
    row = engine.compute(history.records, None, as_of_ms)
    return {
        "customer_id": customer_id,
        "as_of": epoch_ms_to_rfc3339(as_of_ms),
        "declarations": engine.hash,
        "transactions": history.totals.count,
        # What is unknown is NaN, which is written as null.
        "features": dict(zip(engine.names, row.tolist(), strict=True)),
        "history_cut": history_cut(history, as_of_ms, engine.reach_ms),
    }


@router.get(f"/{ID_BEFORE}/scores", response_model=CustomerScores)
async def scores(customer_id: CustomerId, given: Given) -> Response:
    """The newest fraud scores and the newest churn score, as they were published."""
    return json_answer(await newest_scores(given, customer_id))


async def newest_scores(given: Services, customer_id: str) -> dict[str, Any]:
    """`CustomerScores`."""
    state = await known_state(given, customer_id)
    return {
        "customer_id": customer_id,
        "fraud": [orjson.loads(score) for score in reversed(state.scores)],
        "churn": orjson.loads(state.churn) if state.churn else None,
    }


whole = APIRouter(prefix="/customers", tags=["customers"], responses=router.responses)
"""To be included last: an id may have a slash in it, so this takes whatever no other route does."""


@whole.get(f"/{ID}", response_model=CustomerOut)
async def customer(customer_id: CustomerId, given: Given) -> Response:
    """A customer: totals and newest scores from the sink's index, completed from the stream's state.

    Where one of the two is away the other answers, and `degraded` names what is missing; a tenant without a
    sink has no index that could be missing.
    """
    return json_answer(await whole_customer(given, customer_id))


async def whole_customer(given: Services, customer_id: str) -> dict[str, Any]:
    """`CustomerOut`."""

    async def indexed() -> Row | None:
        # A tenant without a sink has no index: it knows nobody, and trying again would change nothing.
        return None if given.index is None else await given.index.get(customer_id)

    row, state = cast(
        tuple[Row | BaseException | None, CustomerState | BaseException | None],
        tuple(await asyncio.gather(indexed(), given.store.read(customer_id), return_exceptions=True)),
    )
    degraded = []
    for name, found in (("index", row), ("state", state)):
        # A state that is empty or cannot be read is as good as away, where the index knows the customer.
        if isinstance(found, DependencyError) or (
            isinstance(found, HistoryError) and not isinstance(row, BaseException | None)
        ):
            degraded.append(name)
        elif isinstance(found, BaseException):
            raise found
    if isinstance(row, BaseException) and isinstance(state, BaseException):
        raise row
    if row is None and isinstance(state, HistoryIncomplete):
        raise state
    if isinstance(row, BaseException) or row is None:
        row = None
    if isinstance(state, BaseException) or state is None:
        state = None
    if row is None and state is None:
        if degraded:
            raise DependencyError("whether this customer is known cannot be said now")
        raise UnknownCustomer("no transaction or profile of this customer was ever accepted")
    return customer_out(row or {"customer_id": customer_id}, state, degraded)


LOOKUPS: Final = {
    "/customers/{customer_id}/features": features_now,
    "/customers/{customer_id}/scores": newest_scores,
    "/customers/{customer_id}/transactions": transactions_page,
    "/customers/{customer_id}": whole_customer,
}
"""What is asked for most, by the routes' formats: each from services and an id."""
