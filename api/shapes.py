"""What pages and rows look like on the wire."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import orjson
from fastapi import Query, Response
from pydantic import BaseModel, Field

from api.ports import EventLog, Row
from features.codec import decode
from features.ports import CustomerState
from schemas.fields import Moment, epoch_ms_to_rfc3339
from schemas.score import Band, Decision

Limit = Annotated[int, Query(ge=1, le=200, description="Most rows of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=512, description="`next_cursor` of the page before, with the same filter and order."),
]

HISTORY_CUT: Final = (
    "Some windows reach behind what is kept: counts and sums may be too small, and a score made from them is "
    "not the one that was published."
)


class CustomerOut(BaseModel):
    """A customer. Null is unknown."""

    customer_id: str = Field(examples=["c0000042"])
    transactions: int | None = Field(
        default=None, description="Ever accepted, each once, however often it was corrected.", examples=[231]
    )
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


class Stored(BaseModel):
    """Up to when figures go: what is not stored yet is not in them."""

    newest_event: Moment | None = Field(description="Event time of the newest transaction that is stored.")
    newest_score: Moment | None = Field(
        description="When the transaction that was scored last of those stored was scored. It stands still "
        "while the sink does, and while nothing is scored."
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


_TIMES: Final = {
    "first_event": "first_event_ms",
    "last_event": "last_event_ms",
    "churn_as_of": "churn_as_of_ms",
}
"""Fields by their columns, which have milliseconds."""


def json_answer(value: Any) -> Response:
    """What a model would be on the wire, without making one, which takes several times as long."""
    return Response(orjson.dumps(value), media_type="application/json")


def customer_out(
    row: Row, state: CustomerState | None = None, degraded: Sequence[str] = ()
) -> dict[str, Any]:
    """A row of the index as a `CustomerOut`; what it lacks is taken from the stream's state."""
    found: dict[str, Any] = {
        name: _moment(row.get(_TIMES[name])) if name in _TIMES else row.get(name)
        for name in CustomerOut.model_fields
    }
    if state is not None and "transactions" not in row:
        found |= _of_state(state)
    return found | {"degraded": list(degraded)}


async def stored_until(events: EventLog | None) -> dict[str, str | None]:
    """The fields of `Stored`."""
    event_ms, score_ms = (None, None) if events is None else await events.newest()
    return {"newest_event": _moment(event_ms), "newest_score": _moment(score_ms)}


def _moment(time_ms: int | None) -> str | None:
    return None if time_ms is None else epoch_ms_to_rfc3339(time_ms)


def _of_state(state: CustomerState) -> dict[str, Any]:
    history = decode(state.history)
    found: dict[str, Any] = {"transactions": history.totals.count}
    if history.totals.count:
        found["first_event"] = epoch_ms_to_rfc3339(history.totals.first_ms)
        times = history.records["time_ms"][history.records["kind"] == 0]
        found["last_event"] = epoch_ms_to_rfc3339(int(times.max())) if len(times) else None
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


def event_out(row: Row) -> dict[str, Any]:
    """A row of the event log as a `TransactionOut`."""
    found = {name: row.get(name) for name in TransactionOut.model_fields}
    return found | {
        "event_time": epoch_ms_to_rfc3339(row["event_ms"]),
        "reasons": orjson.loads(row["reasons"]),
    }
