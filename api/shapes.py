"""What pages and rows look like on the wire."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import Query
from pydantic import BaseModel, Field

from api.ports import Row
from features.codec import decode
from features.ports import CustomerState
from schemas.fields import Moment, from_epoch_ms
from schemas.score import Band, Decision

Limit = Annotated[int, Query(ge=1, le=200, description="Most rows of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=512, description="`next_cursor` of the page before, with the same filter and order."),
]


class CustomerOut(BaseModel):
    """A customer. Null is unknown."""

    customer_id: str = Field(examples=["c0000042"])
    transactions: int | None = Field(default=None, description="Ever accepted.", examples=[231])
    first_event: Moment | None = None
    last_event: Moment | None = None
    flagged: int | None = Field(default=None, description="Decided review or block.", examples=[3])
    blocked: int | None = Field(default=None, examples=[1])
    last_score: float | None = Field(default=None, description="Fraud score of the newest event.")
    last_decision: Decision | None = None
    churn_probability: float | None = Field(default=None, description="Of the newest churn score.")
    churn_band: Band | None = None
    churn_as_of: Moment | None = None
    value_at_risk: float | None = None
    country: str | None = None
    segment: str | None = Field(default=None, description="Of the profile; not of the clustering.")
    opened_on: str | None = Field(default=None, examples=["2019-04-01"])
    degraded: list[str] = Field(
        default_factory=list, description="What did not answer: `index` (of the sink) or `state` (Redis)."
    )


class CustomerPage(BaseModel):
    """Customers in the order asked for."""

    customers: list[CustomerOut]
    next_cursor: str | None = Field(description="Null behind the last page.")


class TransactionOut(BaseModel):
    """An accepted transaction with its score."""

    transaction_id: str
    event_time: Moment
    amount: float = Field(description="In major units.")
    amount_minor: int
    currency: str
    credit: bool
    transaction_type: str | None
    channel: str | None
    merchant_id: str | None
    merchant_category: str | None
    merchant_country: str | None
    counterparty_id: str | None
    score: float
    decision: Decision
    flags: list[str]
    reasons: list[dict[str, Any]]
    model_version: str
    partition: int
    offset: int


class TransactionPage(BaseModel):
    """Transactions of a customer, newest first."""

    customer_id: str
    transactions: list[TransactionOut]
    next_cursor: str | None = Field(description="Null behind the last page.")


def customer_out(row: Row, state: CustomerState | None = None, degraded: Sequence[str] = ()) -> CustomerOut:
    """A row of the index; what it lacks is taken from the stream's state."""
    found: dict[str, Any] = {name: row[name] for name in CustomerOut.model_fields.keys() & row.keys()}
    for name, column in (
        ("first_event", "first_event_ms"),
        ("last_event", "last_event_ms"),
        ("churn_as_of", "churn_as_of_ms"),
    ):
        found[name] = None if row.get(column) is None else from_epoch_ms(row[column])
    if state is not None and "transactions" not in row:
        found |= _of_state(state)
    return CustomerOut.model_validate(found | {"degraded": list(degraded)})


def _of_state(state: CustomerState) -> dict[str, Any]:
    history = decode(state.history)
    found: dict[str, Any] = {"transactions": history.totals.count}
    if history.totals.count:
        found["first_event"] = from_epoch_ms(history.totals.first_ms)
        times = history.records["time_ms"][history.records["kind"] == 0]
        found["last_event"] = from_epoch_ms(int(times.max())) if len(times) else None
    if state.scores:
        newest = orjson.loads(state.scores[-1])
        found |= {"last_score": newest["score"], "last_decision": newest["decision"]}
    if state.churn:
        churn = orjson.loads(state.churn)
        found |= {
            "churn_probability": churn["churn_probability"],
            "churn_band": churn["band"],
            "churn_as_of": churn["as_of"],
            "value_at_risk": churn["value_at_risk"],
        }
    if state.profile:
        profile = orjson.loads(state.profile)
        found |= {name: profile.get(name) for name in ("country", "segment", "opened_on")}
    return found


def event_out(row: Row) -> TransactionOut:
    """A row of the event log."""
    return TransactionOut.model_validate(
        {**row, "event_time": from_epoch_ms(row["event_ms"]), "reasons": orjson.loads(row["reasons"])}
    )
